"""YAML as jobs are written in: read to plain values, and written so that it reads back as the same values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_SCIENTIFIC = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_MERGE = "tag:yaml.org,2002:merge"


def read(text: str) -> Any:
    """Plain values. 1e-3 is a number, as in YAML 1.2 (1.1 reads text); a key that is given twice is refused.

    Raises:
        yaml.YAMLError: it is no YAML.
        ValueError, RecursionError: a date or number that looks like one and is none; brackets without end.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key.start_mark)
            given = _MERGE if key.tag == _MERGE else loader.construct_object(key)
            if given in seen:  # 1 and 1.0 too: Python holds them for one key
                raise yaml.constructor.ConstructorError(None, None, f"key {given!r} is given twice", key.start_mark)
            seen.add(given)
        loader.flatten_mapping(node)
        return dict(loader.construct_pairs(node, deep=True))

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: str(node.value))  # a lone =, which is text
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _SCIENTIFIC, None)
    return yaml.load(text, Loader)


def line_of(text: str, way: Sequence[Any]) -> int:
    """The line of the key or list element that a way leads to, or of what is nearest above it; from 1."""
    import yaml

    node, line = yaml.compose(text, yaml.SafeLoader), 1
    for part in way:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((key, value) for key, value in pairs if key.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def write(tree: Any) -> str:
    """YAML that `read` gives the same values for."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _SCIENTIFIC, None)  # text like 1e-3 is put in quotes
    text: str = yaml.dump(tree, Dumper=Dumper, sort_keys=False)
    return text
