"""Which modules keep no activations (the job's `activation_checkpointing`): those that are named, or repeated blocks.

A block is one of several modules of one class, side by side in a ModuleList or Sequential, that hold
parameters and consist of other modules: a transformer's layers, a residual network's blocks. A single layer gains
nothing by it, since what it is given is what it keeps anyway.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from headway.errors import BadInput, nearest
from headway.weights import plain

KEY = "activation_checkpointing"
_CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
_UNCALLED = (nn.ModuleList, nn.ModuleDict)
NONE = (
    f"{KEY}: the model has no repeated blocks (modules of one class side by side, made of others), so that all its "
    "activations are kept: name modules for it"
)
"""What is said where nothing was chosen."""
SHOWN = 8
"""Known names in an error, at most."""


@dataclass(frozen=True)
class Block:
    """Args:
    name: of the module, as a state dict has it; NAME:PATH of a module beside the model.
    module: itself, without what compiling put around it.
    """

    name: str
    module: nn.Module

    @property
    def kind(self) -> str:
        """The name of its class."""
        return type(self.module).__name__


def chosen(wanted: bool | Sequence[str], model: nn.Module, others: Mapping[str, nn.Module]) -> list[Block]:
    """The modules, none of them within another.

    Args:
        wanted: True for the repeated blocks; or patterns of names of modules, or of their classes.
        model: of the run.
        others: modules beside it, by name.

    Raises:
        BadInput: a pattern that matches none.
    """
    if isinstance(wanted, bool):
        return _repeated(model) if wanted else []
    return _named(wanted, model, others)


def words(found: Sequence[Block]) -> str:
    """What was chosen, for people: `12 Block (layers.0 to layers.11)`."""
    kinds: dict[str, list[str]] = {}
    for block in found:
        kinds.setdefault(block.kind, []).append(block.name)
    return ", ".join(f"{len(names)} {kind} ({_span(names)})" for kind, names in kinds.items())


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


# By name


def _named(patterns: Sequence[str], model: nn.Module, others: Mapping[str, nn.Module]) -> list[Block]:
    known = list(_all(model, others))
    found: dict[int, Block] = {}
    for pattern in patterns:
        matched = [block for block in known if _matches(pattern, block)]
        if not matched:
            raise _unmatched(pattern, known)
        for block in matched:
            found.update((id(each.module), each) for each in _called(block))
    return _outermost([block for block in known if id(block.module) in found])


def _matches(pattern: str, block: Block) -> bool:
    return fnmatch.fnmatchcase(block.name, pattern) or fnmatch.fnmatchcase(block.kind, pattern)


def _all(model: nn.Module, others: Mapping[str, nn.Module]) -> Iterator[Block]:
    """Each once, and not the model itself: as one block it would take as much memory as before."""
    seen = {id(model)}
    for prefix, root in (("", model), *((f"{name}:", other) for name, other in others.items())):
        for path, module in root.named_modules():
            inner, name = _inner(module), prefix + plain(path + ".").removesuffix(".")
            if id(inner) not in seen and name not in ("", prefix):
                seen.add(id(inner))
                yield Block(name, inner)


def _called(block: Block) -> Iterator[Block]:
    """It, or of a list of modules, which is never called, its members."""
    if type(block.module).forward is not nn.Module.forward and not isinstance(block.module, _UNCALLED):
        yield block
        return
    for name, child in block.module.named_children():
        yield from _called(Block(f"{block.name}.{name}", _inner(child)))


def _unmatched(pattern: str, known: Sequence[Block]) -> BadInput:
    names = [block.name for block in known]
    kinds = list(dict.fromkeys(block.kind for block in known))
    remedy = nearest(pattern, [*names, *kinds])
    if remedy.startswith("Known"):
        more = ", ..." if len(names) > SHOWN else ""
        remedy = f"Known: {', '.join(names[:SHOWN])}{more}; classes: {', '.join(kinds[:SHOWN])}."
    return BadInput(f"{KEY}: {pattern!r}", "no module of the model has such a name, and no class of one", remedy)


# By being repeated


def _repeated(model: nn.Module) -> list[Block]:
    """Of the largest group the class, wherever it stands in a container; then of other groups, what is in none of
    these."""
    groups: list[list[Block]] = []
    in_containers: list[Block] = []
    for name, container in model.named_modules():
        if not isinstance(container, _CONTAINERS) or type(container) is nn.ModuleDict:  # which holds models, or heads
            continue
        children = [Block(_joined(name, key), _inner(child)) for key, child in container.named_children()]
        children = [block for block in children if _is_composite(block.module)]
        in_containers += children
        kinds = {type(block.module) for block in children}
        each = ([block for block in children if type(block.module) is kind] for kind in kinds)
        groups += [group for group in each if len(group) > 1]
    # Of two that are equal the outer one; but rather blocks than a stage of them.
    groups.sort(key=lambda group: (-len(group), type(group[0].module) is nn.Sequential, group[0].name.count(".")))
    taken: list[Block] = []
    for group in groups:
        kind = type(group[0].module)
        alike = group if kind is nn.Sequential else [b for b in in_containers if type(b.module) is kind]
        taken += _apart(_outermost(alike), taken)
    order = {id(module): number for number, module in enumerate(model.modules())}
    return sorted(taken, key=lambda block: order[id(block.module)])


def _is_composite(module: nn.Module) -> bool:
    """Whether it is called, consists of other modules and holds parameters."""
    called = not isinstance(module, _UNCALLED)
    return called and any(True for _ in module.children()) and any(True for _ in module.parameters())


def _apart(blocks: Iterable[Block], taken: Sequence[Block]) -> list[Block]:
    """Those that neither are nor hold a module of what is taken, nor are within one."""
    within = {id(module) for block in taken for module in block.module.modules()}
    heads = {id(block.module) for block in taken}
    return [
        block
        for block in blocks
        if id(block.module) not in within and not any(id(module) in heads for module in block.module.modules())
    ]


def _outermost(blocks: Sequence[Block]) -> list[Block]:
    """Those that are within no other, each once."""
    within = {id(module) for block in blocks for module in block.module.modules() if module is not block.module}
    once = {id(block.module): block for block in reversed(blocks)}
    return [block for block in reversed(once.values()) if id(block.module) not in within]


def _inner(module: nn.Module) -> nn.Module:
    """What `torch.compile` has wrapped, which calls it in its own way."""
    found = getattr(module, "_orig_mod", None)
    return found if isinstance(found, nn.Module) else module


def _joined(name: str, key: str) -> str:
    return plain(f"{name}.{key}." if name else f"{key}.").removesuffix(".")
