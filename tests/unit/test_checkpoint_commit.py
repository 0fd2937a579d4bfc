"""A checkpoint is committed by one request, whatever befalls that request, those around it, and who writes with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
from tests.stalls import Stalls

from headway.checkpoint import flat, writing
from headway.checkpoint.found import MANIFEST, SKELETON
from headway.checkpoint.store import BELOW, LEAVING_S, Store, names
from headway.checkpoint.writing import Place, Share, Shares
from headway.errors import BadCheckpoint
from headway.job import Checkpoint as Policy
from headway.runs.epochs import Superseded
from headway.storage.protocol import Buffer, Conflict, OutOfReach
from headway.testing.memory_storage import Memory, MemoryStorage, Stopped, Troubles

JOB = "a" * 64


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "CHUNK_BYTES", 1024)


def store(place: Any, epoch: int = 1, **more: Any) -> Store:
    return Store(place, JOB, Policy(keep_last=1), epoch, **more)


def state(step: int, size: int = 600) -> dict[str, Any]:
    """Of three chunks, of which two are the same on all workers."""
    optimizer = {0: torch.full((10,), step / 2)}
    return {"model": {"w": torch.arange(float(size)) + step}, "optimizer": optimizer, "session": {"step": step}}


def saved(to: Store, step: int, **more: Any) -> Any:
    return to.write(step, state(step), {"run": "r", "metrics": {}}, **more)


def sound(memory: Memory, epoch: int = 2) -> int:
    """The step that a run goes on from; nothing is passed over on the way there, and nothing else is left."""
    there = store(memory.client(), epoch)
    checkpoint, parts, passed_over = there.restore()
    assert passed_over == []
    assert checkpoint is not None
    w = parts["model"]["w"]
    assert torch.equal(w, state(checkpoint.step, len(w))["model"]["w"])
    there.clean()
    whole = names(there.root)
    assert {name.rpartition("/")[0] for name in memory.objects} == set(whole)
    return checkpoint.step


def requests_of(work: Callable[[MemoryStorage], Any]) -> int:
    """How many there are where nothing befalls it."""
    client = Memory().client()
    saved(store(client), 5)
    before = len(client.requests)
    work(client)
    return len(client.requests) - before


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_writer_that_stops_for_ever_at_any_request_leaves_a_run_that_is_read(after: bool) -> None:
    count = requests_of(lambda client: saved(store(client), 10))
    assert count >= 7
    went_on = []
    for stop in range(1, count + 1):
        memory = Memory()
        saved(store(memory.client()), 5)
        with pytest.raises(Stopped):
            saved(store(memory.client(Troubles(stop_at=stop, stop_after=after))), 10)
        went_on.append(sound(memory))
    assert went_on == sorted(went_on)
    assert set(went_on) == {5, 10}


def test_a_lost_answer_of_any_request_is_either_nothing_or_told_and_tried_again() -> None:
    """Under the same name it is the same checkpoint, whichever request it was."""
    count = requests_of(lambda client: saved(store(client), 10))
    told = 0
    for lost in range(1, count + 1):
        memory = Memory()
        saved(store(memory.client()), 5)
        there = store(memory.client(Troubles(lost_answers=frozenset({lost}))))
        try:
            found = saved(there, 10, attempt="a")
        except OutOfReach:
            told += 1
            found = saved(there, 10, attempt="a")
        assert found is not None
        assert found.name == "step-00000010/e000001-a"
        saved(there, 11)  # which removes what could not be removed then
        assert sound(memory) == 11
    assert 0 < told < count


def test_a_manifest_that_arrives_late_meets_itself() -> None:
    count = requests_of(lambda client: saved(store(client), 10))
    for late in range(1, count + 1):
        for pause in (1, 3, 100):
            memory = Memory()
            saved(store(memory.client()), 5)
            there = store(memory.client(Troubles(late={late: pause})))
            try:
                saved(there, 10, attempt="a")
            except OutOfReach:
                saved(there, 10, attempt="a")
            memory.land()
            saved(there, 11)
            assert store(memory.client(), 1).restore()[0].step == 11  # type: ignore[union-attr]
            memory.clock = lambda: LEAVING_S + 1
            assert sound(memory) == 11


def test_one_that_failed_and_arrived_all_the_same_counts() -> None:
    memory = Memory()
    count = requests_of(lambda client: saved(store(client), 10, attempt="a"))
    manifest = next(
        number
        for number in range(1, count + 1)
        if not _arrives(Memory(), Troubles(lost_answers=frozenset({number, number + 1})))
    )
    there = store(memory.client(Troubles(lost_answers=frozenset({manifest, manifest + 1}))))
    with pytest.raises(OutOfReach):
        saved(there, 10, attempt="a")
    saved(there, 12)
    assert sound(memory) == 12


def _arrives(memory: Memory, troubles: Troubles) -> bool:
    """Whether it is told as written, or is not there."""
    try:
        saved(store(memory.client(troubles)), 10)
    except OutOfReach:
        return not any(name.endswith(MANIFEST) for name in memory.objects)
    return True


def test_a_commit_that_waited_long_is_not_made_of_what_was_cleaned_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "WAITED_S", 0.0)
    memory = Memory()
    saved(store(memory.client()), 5)

    def allowed() -> bool:
        memory.clock = lambda: LEAVING_S + 1
        store(memory.client()).clean()
        return True

    with pytest.raises(BadCheckpoint, match="is missing"):
        saved(store(memory.client()), 10, allowed=allowed)
    assert sound(memory) == 5


def test_what_is_there_of_another_attempt_is_left_alone() -> None:
    memory = Memory()
    memory.client().put(f"step-00000010/e000001-a/{MANIFEST}", b"other")
    found = saved(store(memory.client()), 10, attempt="a")
    assert found.name != "step-00000010/e000001-a"
    assert store(memory.client()).restore()[0] == found


def test_where_a_later_epoch_leads_a_conflict_is_the_end() -> None:
    memory, led = Memory(), [1]
    memory.client().put(f"step-00000010/e000001-a/{MANIFEST}", b"other")

    def fence() -> None:
        if led[0] > 1:
            raise Superseded("another leads", "", "")

    def allowed() -> bool:
        led[0] = 2
        return True

    with pytest.raises(Superseded):
        saved(store(memory.client(), fence=fence), 10, attempt="a", allowed=allowed)


def test_a_zombies_checkpoint_does_not_count_and_it_removes_nothing() -> None:
    """The head is another's between its question and its manifest."""
    memory, epoch = Memory(), [1]
    adopted: set[str] = set()

    def counts(manifests: list[str]) -> list[str]:
        return [name for name in manifests if name in adopted or f"/e{epoch[0]:06d}-" in name]

    def fence() -> None:
        if epoch[0] > 1:
            raise Superseded("another leads", "", "")

    class Late(MemoryStorage):
        def put(self, name: str, content: Buffer, only_if: Any = None) -> str:
            if name == MANIFEST and "step-00000010" in self._prefix:
                adopted.update(f"{BELOW}/{each}" for each in memory.objects if each.endswith(MANIFEST))
                epoch[0] = 2
            return super().put(name, content, only_if)

        def at(self, prefix: str) -> MemoryStorage:
            return Late(self.store, self._client, self.url, self._prefix + prefix)

    client = memory.client()
    there = store(Late(memory, client._client, "", ""), counts=counts, fence=fence)
    saved(there, 5)
    with pytest.raises(Superseded):
        saved(there, 10)
    other = store(memory.client(), 2, counts=counts, fence=lambda: None)
    assert [c.step for c in other.committed()] == [5]
    other.clean()
    assert {name.partition("/")[0] for name in memory.objects} == {"step-00000005"}


# -- several workers -------------------------------------------------------------------------------------------------


class Narrow(MemoryStorage):
    """A worker's own way to the store, of so many bytes a second; counts what it wrote."""

    rate = 1e9

    def put(self, name: str, content: Buffer, only_if: Any = None) -> str:
        with self._client.way:  # type: ignore[attr-defined]
            time.sleep(len(content) / self.rate)
        return super().put(name, content, only_if)

    def at(self, prefix: str) -> MemoryStorage:
        found = Narrow(self.store, self._client, self.url, self._prefix + prefix)
        found.rate = self.rate
        return found


def narrow(memory: Memory, rate: float = 1e9) -> Narrow:
    client = memory.client()._client
    client.way = threading.Lock()  # type: ignore[attr-defined]
    found = Narrow(memory, client, "", "")
    found.rate = rate
    return found


SHARE = "one that shares in a checkpoint"


def together(places: list[Narrow], states: list[dict[str, Any]], died: tuple[int, ...] = ()) -> Any:
    """All write a checkpoint at once; returns what the first one committed."""
    size = len(places)

    def share(rank: int) -> None:
        shares = Shares()
        if shares.take(states[rank], Share(rank, size)):
            states[rank]["model"]["w"].zero_()  # training goes on
            store(places[rank]).write_share(10, "a", shares, lambda: True)

    there = [rank for rank in range(1, size) if rank not in died]
    threads = [threading.Thread(target=share, args=(rank,), name=SHARE) for rank in there]
    for thread in threads:
        thread.start()
    found = store(places[0]).write(10, states[0], {"metrics": {}}, attempt="a", of=size)
    for thread in threads:
        thread.join()
    return found


def chunks_of(place: Narrow) -> list[str]:
    return [request.name[:5] for request in place.requests if request.kind == "put" and request.name[0] == "0"]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_each_worker_writes_its_share_and_the_first_one_the_rest(size: int) -> None:
    memory = Memory()
    places = [narrow(memory) for _ in range(size)]
    found = together(places, [state(10, 5000) for _ in range(size)])
    count = len(found.parts) - 1
    assert count == 20
    written = [chunks_of(place) for place in places]
    assert sorted(chain(*written)) == [f"{number:05d}" for number in range(count)], "each once"
    for rank in range(1, size):
        assert sorted(written[rank]) == [f"{number:05d}" for number in range(count - 1) if number % size == rank]
    assert f"{count - 1:05d}" in written[0], "what follows the shared parts is the first one's"
    assert sound(memory, epoch=1) == 10


@pytest.mark.parametrize("troubles", [Troubles(stop_at=4), Troubles(outages=((0.0, 9.0),))], ids=["stops", "cut off"])
def test_what_a_worker_does_not_write_the_first_one_does(troubles: Troubles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PATIENCE_S", 0.2)
    memory = Memory()
    places = [narrow(memory) for _ in range(3)]
    places[1]._client.troubles = troubles
    raised: list[BaseException] = []

    def heard(arguments: threading.ExceptHookArgs) -> None:
        if arguments.thread is not None and arguments.thread.name == SHARE and arguments.exc_value is not None:
            raised.append(arguments.exc_value)  # other tests' threads may be left

    monkeypatch.setattr(threading, "excepthook", heard)
    together(places, [state(10, 5000) for _ in range(3)], died=(2,))
    assert len(raised) == 1
    assert sound(memory, epoch=1) == 10


def test_a_replica_that_differs_writes_nothing_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other bytes, and of another layout."""
    monkeypatch.setattr(writing, "PATIENCE_S", 0.1)
    memory = Memory()
    states = [state(10, 5000) for _ in range(3)]
    states[1]["model"]["w"][300:] += 1
    states[2]["model"] = {"v": torch.ones(7), **states[2]["model"]}
    together([narrow(memory) for _ in range(3)], states)
    assert store(memory.client(), 1).restore()[2] == []
    parts = store(memory.client(), 1).restore()[1]
    assert torch.equal(parts["model"]["w"], state(10, 5000)["model"]["w"])


def test_others_wait_for_the_first_one_and_write_nothing_where_it_does_not_begin() -> None:
    memory, shares = Memory(), Shares()
    assert shares.take(state(10, 5000), Share(1, 2))
    asked = iter([True, True, False])
    shares.write(memory.client(), Place(10, 1, "a"), lambda: next(asked))
    assert memory.objects == {}
    memory.client().put(f"{Place(10, 1, 'a').name}/{SKELETON}", b"")
    shares.write(memory.client(), Place(10, 1, "a"))
    assert len(memory.objects) == 1 + 9


def test_a_small_state_is_the_first_ones_alone() -> None:
    assert not Shares().take(state(10, 100), Share(1, 2))


def test_n_workers_write_n_times_as_fast() -> None:
    rate, size = 1.5e5, 4

    def lasted(count: int) -> float:
        memory = Memory()
        states = [state(10, 50_000) for _ in range(count)]
        with Stalls() as stalls:
            begun = time.monotonic()
            together([narrow(memory, rate) for _ in range(count)], states)
            found = time.monotonic() - begun - stalls.lost_s(begun)
        assert sound(memory, epoch=1) == 10
        return found

    alone = lasted(1)
    assert alone >= 1.0
    assert lasted(size) < 0.6 * alone


def test_conflict_is_told_by_the_writer_alone() -> None:
    memory = Memory()
    memory.client().put(f"step-00000010/e000001-a/{MANIFEST}", b"other")
    with pytest.raises(Conflict):
        writing.write(memory.client(), Place(10, 1, "a"), JOB, state(10), {"metrics": {}})
