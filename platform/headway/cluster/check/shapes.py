"""Files held against schemas: Ray's own for cluster files, KubeRay's definitions for manifests."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headway.cluster.check.finding import Fault, at
from headway.errors import nearest

KUBERAY = "1.7.0"
"""Whose definitions lie in crds/."""
DEFINED = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}
SHOWN = 12
"""Faults of one file that are told; one mistake may break many rules of a schema."""
OURS = ("one_of", "order")


def of_ray(tree: Mapping[str, Any]) -> Iterator[Fault]:
    """A cluster file against Ray's own schema, without the keys that are Headway's."""
    plain = json.loads(json.dumps(tree, default=str))
    at(plain, "provider", default={}).pop("headway", None)
    for each in at(plain, "available_node_types", default={}).values():
        if isinstance(each, dict):
            for key in OURS:
                each.pop(key, None)
            each.setdefault("resources", {})
            each.setdefault("node_config", {})
    yield from _against(_ray_schema(), plain)


def of_kuberay(tree: Mapping[str, Any]) -> Iterator[Fault]:
    """A RayCluster or RayJob against KubeRay's definition; keys that it does not know are faults."""
    kind, version = str(tree.get("kind")), str(tree.get("apiVersion"))
    if version != "ray.io/v1":
        said = f"apiVersion: {version}"
        yield Fault(("apiVersion",), said, "KubeRay serves these kinds as ray.io/v1", "apiVersion: ray.io/v1")
        return
    yield from _against(_definition(kind), tree)


def _against(schema: Any, tree: Any) -> Iterator[Fault]:
    import jsonschema

    errors = sorted(jsonschema.Draft7Validator(schema).iter_errors(tree), key=lambda error: list(error.absolute_path))
    for error in errors[:SHOWN]:
        yield _fault(error)


def _fault(error: Any) -> Fault:
    way = tuple(error.absolute_path)
    where = ".".join(map(str, way)) or "the file"
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        strange = next(key for key in error.instance if key not in known)
        return Fault((*way, strange), f"unknown key {strange!r} in {where}", "", nearest(str(strange), known))
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return Fault(way, f"{where} lacks {missing!r}", "it is required", f"Add {missing}.")
    value = json.dumps(error.instance, default=str)
    value = value if len(value) <= 60 else f"{value[:57]}..."
    return Fault(way, f"{where}={value}", _said(error), "")


def _said(error: Any) -> str:
    """The schema's wish in words."""
    if error.validator == "type":
        kinds = error.validator_value
        return f"it should be of type {' or '.join(kinds) if isinstance(kinds, list) else kinds}"
    if error.validator == "enum":
        return f"it should be one of {', '.join(map(str, error.validator_value))}"
    return str(error.message)[:200]


@functools.cache
def _ray_schema() -> Any:
    import ray.autoscaler

    path = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def _definition(kind: str) -> Any:
    """The schema of a kind, as strict as `kubectl --validate=strict` is."""
    import yaml

    packed = (Path(__file__).parent / "crds" / f"{DEFINED[kind]}.yaml.gz").read_bytes()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tree = yaml.load(gzip.decompress(packed), Loader=loader)
    schema = next(each for each in tree["spec"]["versions"] if each["name"] == "v1")["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object", "required": [], "x-kubernetes-preserve-unknown-fields": True}
    return _strict(schema)


def _strict(schema: Any) -> Any:
    """The same as JSON schema, with no room for keys that are not named."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: _strict(value) for key, value in schema.items() if key not in ("format", "default")}
    if "properties" in schema and isinstance(schema["properties"], dict):
        made["properties"] = {key: _strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made
