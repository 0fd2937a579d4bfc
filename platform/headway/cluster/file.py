"""A cluster's file: Ray's own cluster YAML, so that Ray's documentation holds, with a few keys of Headway's.

    cluster_name: trainers
    max_workers: 4
    idle_timeout_minutes: 5
    provider:
      type: aws                        # or this-machine, gcp, azure; kuberay has manifests instead
      region: eu-central-1
      headway: {stop_when_idle_minutes: 30, stop_after_hours: 8, notices: aws, runs: s3://bucket/runs}
    head_node_type: head
    available_node_types:
      head: {resources: {CPU: 0}, node_config: {InstanceType: m7i.large}}
      worker:
        max_workers: 4
        resources: {CPU: 8}
        one_of:                        # this type stands for these: the cheapest first, else the next
          - {type: c7i.2xlarge, zone: eu-central-1a, spot: true, price_per_hour: 0.14}
          - {type: c6i.2xlarge, zone: eu-central-1b, spot: true, price_per_hour: 0.15}

`load` checks all of it at the door, and each finding names the file, the line, the key and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from headway.cluster.market import Option
from headway.cluster.prices import book
from headway.errors import BadInput, nearest
from headway.notation import wording
from headway.notation.plain import line_of, read
from headway.notation.values import Place

KINDS = ("this-machine", "test-cloud", "aws", "gcp", "azure")
"""What `provider.type` may be."""
NOTICES = ("aws", "gcp", "azure", "none")
LONGEST_NAME = 40
"""Characters of a cluster's name: it is part of a folder's, a tag's and a host's."""
PROVIDER_MODULE = "headway.cluster.provider.Provider"
"""What Ray's autoscaler asks for machines."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_OF_PROVIDER: Mapping[str, str] = {
    "this-machine": "",
    "test-cloud": "socket options",
    "aws": "region availability_zone cache_stopped_nodes use_internal_ips security_group cloudwatch key_pair "
    "aws_credentials",
    "gcp": "region availability_zone project_id gcp_credentials use_internal_ips cache_stopped_nodes",
    "azure": "location resource_group subscription_id tags subnet_mask vnet availability_zone use_internal_ips "
    "use_external_head_ip msi_name msi_resource_group cache_stopped_nodes subnet_id msi_identity_id "
    "msi_identity_principal_id unique_id",
}
"""Ray's own keys below `provider`, beside those that all have."""
_FOR_ALL = ("disable_node_updaters", "disable_launch_config_check", "worker_liveness_check", "foreground_node_launch")
_MAPPINGS = ("auth", "docker", "file_mounts")
_LISTS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter"),
)
"""The monitor of an external provider dies with a KeyError without these, while `ray status` says all is well."""
IDLE_MINUTES = 5.0
"""Of Ray's, where a file says nothing."""
_UPSCALING = 100.0
"""Machines that are asked for at once, for each that runs: what is needed is needed now."""

Count = Annotated[int, Field(ge=0)]
Time = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: Any) -> Any:
        # pydantic takes true for 1, and YAML takes `yes` and `on` for true.
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"is {str(value).lower()}, which is no value for it")
        return value


class Headway(_Section):
    """`provider.headway`: what Ray has no key for."""

    stop_when_idle_minutes: Time | None = None
    """The cluster ends once no job has run on it for so long."""
    stop_after_hours: Time | None = None
    """It ends so long after its start, whatever runs."""
    boot_limit_minutes: Time = 10.0
    """A machine that has not joined by then is given back, and another tried."""
    notices: str = "none"
    """Whose notices of a machine's end each node listens for: aws, gcp, azure, none, or the URL of such a service."""
    runs: str | None = None
    """Where runs are kept (HEADWAY_RUNS on every machine)."""
    reads: list[str] = Field(default_factory=list)
    """Buckets, or places in them, that the machines may read beside it: where data is."""
    prices: str | list[dict[str, Any]] | None = None
    """A list of prices that goes before the package's: a file's whole path, or its lines as mappings (see
    `headway.cluster.prices.book`)."""
    tls: bool = False
    """Mutual TLS between the machines; see `headway cluster certs`."""

    @field_validator("prices")
    @classmethod
    def _priced(cls, prices: Any) -> Any:
        if isinstance(prices, str) and not prices.startswith(("/", "~")):
            raise ValueError(
                f"write the whole path of the list, not {prices!r}: the file is read from other folders too"
            )
        return prices

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The lines of the list of prices; none where there is no list.

        Raises:
            BadInput: it cannot be read, or is no list of prices.
        """
        if self.prices is None:
            return []
        if isinstance(self.prices, str):
            return [asdict(each) for each in book.load(Path(self.prices).expanduser())]
        return [asdict(each) for each in book.of_rows(self.prices, "provider.headway.prices")]

    @field_validator("notices")
    @classmethod
    def _known(cls, notices: str) -> str:
        if notices in NOTICES or (urlsplit(notices).scheme in ("http", "https") and urlsplit(notices).hostname):
            return notices
        raise ValueError(f"give one of {', '.join(NOTICES)}, or a URL")


class Provider(_Section):
    """`provider`."""

    model_config = ConfigDict(extra="allow")

    type: str
    headway: Headway = Field(default_factory=Headway)


class OneOf(_Section):
    """One way to get a machine of a node type."""

    type: str
    zone: str = ""
    spot: bool = False
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Dollars."""

    @property
    def option(self) -> Option:
        """The same, for a market."""
        return Option(self.type, self.zone, self.spot, self.price_per_hour)


class NodeType(_Section):
    """One of `available_node_types`."""

    resources: dict[str, Count] = Field(default_factory=dict)
    """What Ray gives out on a node: CPU, GPU, memory (bytes), or names of one's own."""
    node_config: dict[str, Any] = Field(default_factory=dict)
    """The cloud's own keys."""
    min_workers: Count = 0
    max_workers: Count | None = None
    one_of: list[OneOf] = Field(default_factory=list)
    order: Literal["cheapest", "as_listed"] = "cheapest"
    """In which order those of `one_of` are tried."""
    idle_timeout_s: Time | None = None
    priority: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    initialization_commands: list[str] | None = None
    worker_setup_commands: list[str] | None = None
    docker: dict[str, Any] | None = None

    def options(self, name: str) -> tuple[Option, ...]:
        """What may be tried for it, as listed; without `one_of` the type itself, by its name in the file."""
        return tuple(each.option for each in self.one_of) or (Option(name),)


class Spec(_Section):
    """The file's keys."""

    cluster_name: str
    max_workers: Count | None = None
    """Machines beside the head, of all types together."""
    upscaling_speed: Annotated[float, Field(ge=0)] | None = None
    idle_timeout_minutes: Annotated[float, Field(ge=0)] | None = None
    """A node that nothing has run on for so long is given back."""
    provider: Provider
    auth: dict[str, Any] = Field(default_factory=dict)
    docker: dict[str, Any] = Field(default_factory=dict)
    available_node_types: dict[str, NodeType]
    head_node_type: str | None = None
    file_mounts: dict[str, str] = Field(default_factory=dict)
    cluster_synced_files: list[str] = Field(default_factory=list)
    file_mounts_sync_continuously: bool = False
    rsync_exclude: list[str] = Field(default_factory=list)
    rsync_filter: list[str] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)
    initialization_commands: list[str] = Field(default_factory=list)
    setup_commands: list[str] = Field(default_factory=list)
    head_setup_commands: list[str] = Field(default_factory=list)
    worker_setup_commands: list[str] = Field(default_factory=list)
    head_start_ray_commands: list[str] = Field(default_factory=list)
    worker_start_ray_commands: list[str] = Field(default_factory=list)
    no_restart: bool = False


@dataclass(frozen=True)
class ClusterFile:
    """A file that was read and checked.

    Args:
        path: of the file.
        text: of it.
        name: of the cluster: what it says, or what was given in its stead.
        tree: as it is written, Headway's keys among it.
        spec: the same, checked.
    """

    path: Path
    text: str = field(repr=False)
    name: str
    tree: Mapping[str, Any]
    spec: Spec

    @property
    def kind(self) -> str:
        """`provider.type`."""
        return self.spec.provider.type

    @property
    def headway(self) -> Headway:
        """`provider.headway`."""
        return self.spec.provider.headway

    @property
    def head(self) -> str:
        """The head's node type."""
        return self.spec.head_node_type or next(iter(self.spec.available_node_types))

    @property
    def workers(self) -> dict[str, NodeType]:
        """The node types but the head's."""
        return {name: each for name, each in self.spec.available_node_types.items() if name != self.head}

    def least(self, node_type: str) -> int:
        """How many machines of a type there are from the start."""
        return self.spec.available_node_types[node_type].min_workers

    def most(self, node_type: str) -> int:
        """How many there may be at most; a type that says nothing has the whole cluster's limit."""
        said = self.spec.available_node_types[node_type].max_workers
        whole = self.spec.max_workers
        if said is None:
            return max(self.least(node_type), 0 if whole is None else whole)
        return said if whole is None else min(said, whole)

    @property
    def grows(self) -> bool:
        """Whether machines come and go by themselves: some type has less at the start than at most."""
        return any(self.least(name) < self.most(name) for name in self.workers)

    def for_ray(self, id: str, **market: Any) -> dict[str, Any]:
        """What Ray's autoscaler is given: the file without Headway's keys, and `PROVIDER_MODULE` as its provider.

        Args:
            id: of this cluster, which tells it from another of the same name.
            market: what the provider needs to find its market; plain values.

        Returns:
            A tree of plain values. What is the provider's: `provider.market`, which is the file's `provider.type`;
            `provider.headway`, with the file's keys there, `id`, `market`, what is sold (`sells`), and after what time
            an idle machine is given back (`idle_s`); and `node_config.headway` of each type, with its options and
            their order.
        """
        whole = self.spec.max_workers
        return {
            **{key: {} for key in _MAPPINGS},
            **{key: [] for key in _LISTS},
            "file_mounts_sync_continuously": False,
            "upscaling_speed": _UPSCALING,
            **self.tree,
            "cluster_name": self.name,
            "max_workers": sum(map(self.most, self.workers)) if whole is None else whole,
            "head_node_type": self.head,
            "available_node_types": {name: self._type_for_ray(name) for name in self.spec.available_node_types},
            "provider": {
                "disable_node_updaters": True,
                **self.tree["provider"],
                "type": "external",
                "module": PROVIDER_MODULE,
                "market": self.kind,
                "headway": {
                    **self.headway.model_dump(),
                    "prices": self.headway.rows,
                    "id": id,
                    "market": market,
                    "sells": {name: self._sold(name) for name in self.workers},
                    "idle_s": self._idle_s,
                },
            },
        }

    @property
    def _idle_s(self) -> float:
        """After what time Ray gives an idle machine back."""
        said = self.spec.idle_timeout_minutes
        return 60.0 * (IDLE_MINUTES if said is None else said)

    def _sold(self, name: str) -> dict[str, Any]:
        """What runs are told of a node type."""
        checked = self.spec.available_node_types[name]
        return {"resources": checked.resources, "one_of": [asdict(each) for each in checked.options(name)]}

    def _type_for_ray(self, name: str) -> dict[str, Any]:
        written, checked = self.tree["available_node_types"][name], self.spec.available_node_types[name]
        head = name == self.head
        return {
            **{key: value for key, value in written.items() if key not in ("one_of", "order")},
            "resources": checked.resources,
            "node_config": {
                **checked.node_config,
                "headway": {"order": checked.order, "one_of": [asdict(each) for each in checked.options(name)]},
            },
            "min_workers": 0 if head else self.least(name),
            "max_workers": 0 if head else self.most(name),
        }


def load(path: str | Path, name: str | None = None) -> ClusterFile:
    """Read a cluster's file.

    Args:
        path: of the file.
        name: of the cluster, instead of the one in it.

    Raises:
        BadInput: it cannot be read, or is not what it should be; by file, line and key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise BadInput(f"{path} cannot be read", reason, "Give the YAML file of a cluster.") from None
    return parse(path, text, name)


def parse(path: Path, text: str, name: str | None = None) -> ClusterFile:
    """The same of a text. Raises BadInput."""
    import yaml

    try:
        tree = read(text)
    except yaml.MarkedYAMLError as error:
        if "single document" in str(error):
            raise _several(path, text) from None
        where = f"{path}, line {error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise BadInput(where, error.problem or "it is no YAML", "Mend it.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no YAML", str(error).splitlines()[0]) from None
    if not isinstance(tree, dict):
        keys = "cluster_name, provider, available_node_types"
        raise BadInput(f"{path}, line 1", "it should hold keys and values", f"A cluster has at least: {keys}.")
    if "kind" in tree and "apiVersion" in tree:
        raise _several(path, text)
    try:
        spec = Spec.model_validate(tree)
    except ValidationError as error:
        found = [(_way(tree, one), said) for one in error.errors() for said in wording.say(Spec, tree, [one])]
        raise _refused(path, text, found) from None
    found = list(_contradictions(spec, tree))
    if found:
        raise _refused(path, text, found)
    chosen = name if name is not None else spec.cluster_name
    if wrong := wrong_name(chosen):
        where = "--name" if name is not None else f"{path}, line {line_of(text, ('cluster_name',))}: cluster_name"
        raise BadInput(f"{where}={chosen!r}", wrong)
    return ClusterFile(path, text, chosen, tree, spec)


def wrong_name(name: str) -> str:
    """Why a cluster cannot be called so; "" if it can."""
    if len(name) > LONGEST_NAME:
        return f"a cluster's name has at most {LONGEST_NAME} characters"
    return "" if _NAME.fullmatch(name) else "a cluster's name is of a-z, 0-9 and hyphens, with no hyphen at its ends"


def _several(path: Path, text: str) -> BadInput:
    if re.search(r"^apiVersion:", text, re.MULTILINE):
        remedy = "`headway cluster check` looks it over; start it with `kubectl apply -f`."
        return BadInput(f"{path} is a manifest of Kubernetes", "that is not started from here", remedy)
    return BadInput(f"{path} holds several YAML documents", "a cluster's file is one", "Make a file of each.")


def _refused(path: Path, text: str, found: list[tuple[Place, str]]) -> BadInput:
    """All that is wrong, in the order of the file."""
    lines = sorted({(line_of(text, way), said) for way, said in found})
    (first, reason), *more = lines
    said = "; ".join([reason, *(f"line {line}: {each}" for line, each in more)])
    return BadInput(f"{path}, line {first}", said)


def _way(tree: Any, error: ErrorDetails) -> Place:
    """The keys that lead to an error, without pydantic's own marks."""
    way: list[Any] = []
    for part in error["loc"]:
        inside = part in tree if isinstance(tree, dict) else isinstance(tree, list) and isinstance(part, int)
        if inside:
            way.append(part)
            tree = tree[part]
    return tuple(way)


def _contradictions(spec: Spec, tree: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """What is wrong with keys that are each well-formed."""
    kind = spec.provider.type
    if kind not in KINDS:
        more = " KubeRay has manifests instead: see cluster/kuberay." if kind in ("kuberay", "kubernetes") else ""
        kind_said = "this-machine" if kind in ("local", "fake_multinode") else kind
        yield ("provider", "type"), f"provider.type={kind!r} is unknown. {nearest(kind_said, list(KINDS))}{more}"
    else:
        known = ("type", "headway", *_FOR_ALL, *_OF_PROVIDER[kind].split())
        for key in tree["provider"]:
            if key not in known:
                said = f"unknown key 'provider.{key}' of {kind}. {nearest(str(key), list(known))}"
                yield ("provider", key), said
    if kind == "this-machine":
        yield from _of_this_machine(spec)
    yield from _of_types(spec)


def _of_this_machine(spec: Spec) -> Iterator[tuple[Place, str]]:
    """What this machine has not, that clouds have."""
    headway, way = spec.provider.headway, ("provider", "headway")
    if headway.notices != "none":
        said = f"provider.headway.notices={headway.notices!r}: this machine tells nobody of its end. Strike it out"
        yield (*way, "notices"), said
    if headway.runs is not None and "://" not in headway.runs and not headway.runs.startswith("/"):
        said = f"provider.headway.runs={headway.runs!r} is neither a URL nor the whole path of a folder"
        yield (*way, "runs"), said
    head = spec.head_node_type or next(iter(spec.available_node_types), "")
    for name, each in spec.available_node_types.items():
        at = ("available_node_types", name)
        if name != head and not any(each.resources.values()):
            yield at, f"{'.'.join(at)}.resources is empty: say what a node gives out, as {{CPU: 1}}"
        for key in each.node_config:
            said = f"unknown key '{'.'.join(at)}.node_config.{key}': a node of this machine has none. Strike it out"
            yield (*at, "node_config", key), said


def _of_types(spec: Spec) -> Iterator[tuple[Place, str]]:
    types, at = spec.available_node_types, "available_node_types"
    if not types:
        yield (at,), f"{at} is empty: name at least the head's type"
        return
    head = spec.head_node_type
    if head is None and len(types) > 1:
        yield (), f"head_node_type is missing: which of {', '.join(types)} is the head's?"
    elif head is not None and head not in types:
        yield ("head_node_type",), f"head_node_type={head!r} is none of {at}. {nearest(head, list(types))}"
    least = 0
    for name, each in types.items():
        if name == head or len(types) == 1:
            if each.min_workers or each.max_workers:
                yield (at, name), f"{at}.{name} is the head's type, of which there is one: it has no min_workers"
            continue
        least += each.min_workers
        most = spec.max_workers if each.max_workers is None else each.max_workers
        if most is not None and each.min_workers > most:
            said = f"{at}.{name}.min_workers={each.min_workers} is more than max_workers={most}"
            yield (at, name, "min_workers"), said
        seen: dict[tuple[str, str, bool], int] = {}
        for number, one in enumerate(each.one_of):
            alike = (one.type, one.zone, one.spot)
            if alike in seen:
                yield (at, name, "one_of", number), f"{at}.{name}.one_of.{number} is {one.option} a second time"
            seen[alike] = number
    if spec.max_workers is not None and least > spec.max_workers:
        said = f"max_workers={spec.max_workers} is less than the sum of all min_workers, {least}"
        yield ("max_workers",), said
