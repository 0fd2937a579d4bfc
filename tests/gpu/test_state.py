"""A state on a GPU is copied, kept, given to others, and read into again."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.gpu.device import DEVICE, REHEARSAL, device, gpu_only, settled

from headway.checkpoint import flat
from headway.checkpoint.copies import Copies
from headway.checkpoint.store import Store
from headway.checkpoint.writing import Share, Shares
from headway.elastic.worker import transfer
from headway.job import Checkpoint
from headway.strategies.group import Group
from headway.testing.workers import Crew

pytestmark = device

MIB = 2**20


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tree(device: str, seed: int = 0) -> dict[str, Any]:
    """Tensors of several kinds, orders in memory and sizes, one that belongs into host memory, and plain values."""
    draws = torch.Generator().manual_seed(seed)

    def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, generator=draws).to(dtype).to(device)

    return {
        "model": {
            "large": drawn(3000, 1000),
            "half": drawn(300, 7, dtype=torch.bfloat16),
            "fp16": drawn(5, dtype=torch.float16),
            "turned": drawn(40, 30).t(),
            "channels_last": drawn(2, 3, 8, 8).to(memory_format=torch.channels_last),
            "slice": drawn(20, 20)[::2, ::3],
            "scalar": drawn(1)[0],
            "empty": drawn(0, 4),
            "counts": torch.arange(seed, seed + 9, device=device),
            "flags": torch.tensor([True, False, seed == 0], device=device),
        },
        "host": {"generator": torch.Generator().manual_seed(seed).get_state(), "step": torch.tensor(float(seed))},
        "plain": [1, "two", {"three": (3.5, None)}, seed],
    }


def leaves(found: Any, at: str = "") -> dict[str, Any]:
    if isinstance(found, dict):
        return {k: v for key, value in found.items() for k, v in leaves(value, f"{at}.{key}").items()}
    return {at: found}


def devices_of(found: Any) -> dict[str, torch.device]:
    return {name: value.device for name, value in leaves(found).items() if isinstance(value, torch.Tensor)}


def alike(found: Any, wanted: Any, devices: dict[str, torch.device] | None = None) -> None:
    """devices: where tensors must live, by name."""
    found, wanted = leaves(found), leaves(wanted)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
            assert torch.equal(found[name].cpu(), value.cpu()), name
            assert devices is None or found[name].device == devices[name], name
        else:
            assert found[name] == value, name


def test_copies_are_taken_while_the_device_is_still_at_work() -> None:
    copies = Copies()
    alike(copies.take(tree(DEVICE)), tree("cpu"))
    state = tree(DEVICE, 1)
    if not REHEARSAL:
        torch.cuda._sleep(int(5e8))
    state["model"]["large"].mul_(2)  # in line behind that
    copy = copies.take(state)
    state["model"]["large"].zero_()  # and the next step goes on
    settled()
    wanted = tree("cpu", 1)
    wanted["model"]["large"].mul_(2)
    alike(copy, wanted)
    assert all(value.device.type == "cpu" for value in leaves(copy).values() if isinstance(value, torch.Tensor))


@gpu_only
def test_a_copy_takes_host_memory_once_and_none_of_the_device() -> None:
    copies = Copies()
    state = {f"part{number}": torch.full((32 * MIB,), float(number), device=DEVICE) for number in range(8)}
    size = 8 * 128 * MIB
    settled()
    torch.cuda.reset_peak_memory_stats()
    before, held = resident(), torch.cuda.memory_allocated()
    copies.take(state)
    copies.take(state)
    grown = resident() - before
    assert torch.cuda.max_memory_allocated() - held < 64 * MIB
    assert grown < 1.1 * size, f"{grown / MIB:.0f} MiB for a state of {size / MIB:.0f}"


def hand_on(group: Group, into: bool) -> int:
    """Rank 0 gives its state along a chain of all others; each has one of its own, on its device. Tensors seen."""
    receivers = list(range(1, group.size))
    if group.rank == 0:
        transfer.send(group, tree(DEVICE), receivers)
        return 0
    own = tree(DEVICE, group.rank)
    places = {name: value.data_ptr() for name, value in leaves(own["model"]).items()}
    found = transfer.receive(group, 0, receivers, own if into else None)
    if into:
        devices = devices_of(own) | {".model.slice": group.device}  # it has gaps: a new one is made
        alike(found, tree(DEVICE), devices)
        kept = [name for name, value in leaves(found["model"]).items() if value.data_ptr() == places[name]]
        assert {".large", ".half", ".turned", ".channels_last"} <= set(kept), f"filled in place: {kept}"
    alike(transfer.copied(found), tree("cpu"))
    return len(leaves(found))


@pytest.mark.parametrize("into", [True, False], ids=["in place", "anew"])
def test_a_state_goes_from_device_to_device(processes: Crew, into: bool) -> None:
    assert processes(hand_on, 3, into) == [0, *[len(leaves(tree("cpu")))] * 2]


def test_a_state_is_saved_and_loaded_into_host_memory(tmp_path: Path) -> None:
    """Where it then goes is known to who takes it: `test_alone` goes on from it on either device."""
    store = Store(tmp_path / "checkpoints", "a" * 64, Checkpoint())
    committed = store.write(3, Copies().take(tree(DEVICE)), {})
    assert committed is not None
    alike(committed.load(), tree("cpu"))
    alike(store.restore()[1], tree("cpu"))


def test_a_share_of_a_state_is_copied_from_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two workers write every other chunk of one checkpoint."""
    monkeypatch.setattr(flat, "CHUNK_BYTES", 1 * MIB)
    state, shares = tree(DEVICE), Shares()
    store = Store(tmp_path / "checkpoints", "a" * 64, Checkpoint())
    assert shares.take(state, Share(1, 2))
    other = threading.Thread(target=store.write_share, args=(3, "attempt", shares, lambda: True))
    other.start()
    committed = store.write(3, Copies().take(state), {}, attempt="attempt", of=2)
    other.join(20.0)
    assert not other.is_alive()
    assert committed is not None
    alike(committed.load(), tree("cpu"))
    written = {entry.name for entry in committed.place.list()}
    assert written == {*committed.parts, "manifest.json"}, "a chunk of the share was not the whole's"
