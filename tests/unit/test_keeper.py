"""A node's keeper: what it holds survives the worker, nothing torn or damaged is ever given, and it goes by itself."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headway.elastic.wire import keepers
from headway.elastic.worker import keeper
from headway.elastic.worker.keeping import Keeping, Places
from headway.elastic.worker.nearest import Kept, nearest
from headway.elastic.worker.shelf import HEAD, HEAD_BYTES, Busy, Shelf, shortage
from headway.testing.forks import forks

JOB, MADE, TOTAL = "a" * 64, "made", 10_000
DEADLINE_S = 20.0


def wait(condition: Callable[[], Any], what: str = "it") -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come in time"
        time.sleep(0.002)
    return found


def keeping(folder: Path, machine: str = "m0", places: Callable[[], Places] = tuple, **config: Any) -> Keeping:
    there = {"run": "r" * 32, "token": "secret", "machine": machine, "host": "127.0.0.1", "folder": str(folder)}
    return Keeping({**there, "linger_s": 60.0, **config}, 1, JOB, "key", lambda text: None, lambda h, p: None, places)


def state(step: int, size: int = 50_000) -> dict[str, Any]:
    """All of it shows which step it is of."""
    return {
        "given": {"weights": torch.full((size,), float(step)), "step": step, "more": [torch.tensor(step)] * 3},
        "journal": {"start": 1, "entries": [], "whole_from": 0},
    }


def keep(one: Keeping, step: int, made: str = MADE, size: int = 50_000) -> bool:
    """Whether it is kept, now."""
    about = {"made": made, "total_steps": TOTAL, "start": 1, "whole_from": 0}
    return one.due(step, time.monotonic()) and one.keep(step, lambda: state(step, size), about)


def surely(one: Keeping, step: int, **rest: Any) -> None:
    wait(lambda: keep(one, step, **rest), f"step {step}")
    wait(lambda: step in [about["step"] for about in listed(one)], "its seal")  # which is a word on its way


def found(one: Keeping, made: str = MADE, saved: int = -1, step: int = TOTAL, **records: Any) -> Kept | None:
    told = {"start": 1, "step": step, "made": made, "origin": ("", -1), **records}
    return nearest(one, told, TOTAL, lambda: saved)


def listed(one: Keeping) -> list[dict[str, Any]]:
    with contextlib.closing(keepers.call(one.path, "secret", run=one.shelf)) as words:
        keepers.send(words.connection, {"op": "list"})
        return list(words.next()["states"])


def pid(one: Keeping) -> int:
    with contextlib.closing(keepers.call(one.path, "secret")) as words:
        keepers.send(words.connection, {"op": "list"})
        return int(words.next()["pid"])


def check(kept: Kept | None, step: int | None = None) -> int:
    """That a state is whole; returns its step."""
    assert kept is not None
    given = kept.tree["given"]
    assert step in (None, kept.step)
    assert given["step"] == kept.step
    assert bool((given["weights"] == float(kept.step)).all())
    assert [int(each) for each in given["more"]] == [kept.step] * 3
    return kept.step


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For sockets; whatever keeper is there in the end is ended."""
    place = Path("/tmp") / f"hk-{os.getpid()}-{tmp_path.name[-8:]}"  # a socket's path is short
    place.mkdir(mode=0o700)
    yield place
    for path in place.glob("*.sock"):
        keepers.end(str(path), "secret")
    for path in place.iterdir():
        path.unlink(missing_ok=True)
    place.rmdir()


def test_a_state_comes_back_and_the_newest_first(folder: Path) -> None:
    one = keeping(folder)
    for step in range(1, 6):
        surely(one, step)
    assert [about["step"] for about in listed(one)] == [5, 4]
    assert check(found(one)) == 5
    assert found(one, saved=5) is None, "the store has it as well"
    assert check(found(one, saved=4)) == 5
    one.close()
    assert check(found(keeping(folder))) == 5, "the worker is gone"


def test_one_keeper_serves_the_runs_of_a_sweep(folder: Path) -> None:
    first, second = (keeping(folder, shelf=name, memory=10**9) for name in ("s.0001", "s.0002"))
    surely(first, 3)
    surely(second, 5)
    assert pid(first) == pid(second)
    assert (check(found(first)), check(found(second))) == (3, 5)
    assert check(found(first, saved=3)) == 3, "it is nearer than the store"
    assert found(first, saved=4) is None
    first.close()  # paused: its state stays
    again = keeping(folder, shelf="s.0001")
    assert check(found(again)) == 3
    again.open()
    wait(lambda: again._hold)
    again.close(end=True)
    wait(lambda: not listed(again), "its end")
    assert check(found(second)) == 5, "the others' stay"
    second.close()


def test_of_runs_that_rest_those_that_rest_longest_make_room(folder: Path) -> None:
    size = 4 * 50_000
    names = [f"s.{number:04d}" for number in range(5)]
    for name in names:
        one = keeping(folder, shelf=name, memory=int(2.5 * 1.3 * size))
        surely(one, 1)
        surely(one, 2)  # both slots are in use
        wait(lambda one=one: all(about.get("digest") for about in listed(one)), "its digest")
        one.close()
        wait(lambda one=one: len(listed(one)) < 2, "its older state is let go")
    there = [name for name in names if listed(keeping(folder, shelf=name))]
    assert there == names[-2:]
    assert check(found(keeping(folder, shelf=names[-1]))) == 2


def test_one_that_works_is_no_one_that_rests(folder: Path) -> None:
    works, rests = keeping(folder, shelf="works", memory=0), keeping(folder, shelf="rests", memory=0)
    surely(works, 1)
    surely(rests, 1)
    rests.close()
    wait(lambda: not listed(rests), "there is no memory for it")
    assert check(found(works)) == 1
    works.close()


def test_a_larger_state_gets_more_room(folder: Path) -> None:
    one = keeping(folder)
    for step, size in ((1, 1000), (2, 1000), (3, 400_000), (4, 400_000), (5, 10)):
        surely(one, step, size=size)
        assert check(found(one)) == step
    one.close()


def test_what_does_not_count_is_passed_over(folder: Path) -> None:
    one = keeping(folder)
    surely(one, 7)
    assert found(one, made="another start") is None
    assert check(found(one, made="later", origin=(MADE, 7))) == 7, "the run went on from just this state"
    assert found(one, made="later", origin=(MADE, 6)) is None, "it went on from one before"
    assert found(keeping(folder, run="s" * 32)) is None, "another run's"
    other = keeping(folder)
    other.job = "b" * 64
    assert found(other) is None, "another job's"
    one.close()


def test_no_hole_in_the_records(folder: Path) -> None:
    """The state of step 9 was kept with the records from step 8 on."""
    one = keeping(folder)
    about = {"made": MADE, "total_steps": TOTAL, "start": 1, "whole_from": 8}
    wait(lambda: one.due(9, time.monotonic()) and one.keep(9, lambda: state(9), about))
    assert found(one, step=7) is None, "nobody has the records of step 7"
    assert check(found(one, step=8)) == 9
    assert check(found(one, step=12)) == 9
    one.close()


def test_another_token_is_refused(folder: Path) -> None:
    one = keeping(folder)
    surely(one, 3)
    with pytest.raises(keepers.Refused):
        keepers.call(one.path, "wrong")
    assert found(keeping(folder, token="wrong")) is None
    port = one._open.port  # type: ignore[union-attr]
    with pytest.raises(keepers.Refused):
        keepers.call(("127.0.0.1", port), "wrong")
    one.close()


def test_other_nodes_are_asked_over_the_network(folder: Path) -> None:
    one = keeping(folder, "m0")
    surely(one, 4)
    port = one._open.port  # type: ignore[union-attr]
    elsewhere = keeping(folder, "m1", lambda: (("127.0.0.1", 1), ("127.0.0.1", port)))
    kept = found(elsewhere)
    assert check(kept) == 4
    assert kept is not None
    assert not kept.here
    one.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_damage_is_seen(folder: Path, seed: int) -> None:
    """A flipped bit anywhere in the newest state: the one before it is taken, from here and from elsewhere."""
    chance = random.Random(seed)
    one = keeping(folder)
    surely(one, 1)
    surely(one, 2)
    wait(lambda: all("digest" in about for about in listed(one)))
    hold = one._open
    assert hold is not None
    memory = hold._memory[hold._newest]
    assert memory is not None
    size = next(about["bytes"] for about in listed(one) if about["step"] == 2)
    place = HEAD_BYTES + chance.randrange(size)
    print(f"seed {seed}: byte {place} of {size}")
    memory[place] ^= 1 << chance.randrange(8)
    assert check(found(one)) == 1
    port = hold.port
    assert check(found(keeping(folder, "m1", lambda: (("127.0.0.1", port),)))) == 1
    one.close()


def _train(folder: str, size: int, pipe: Any) -> None:
    """A worker that keeps a state after each step, and says so."""
    torch.set_num_threads(1)
    one = keeping(Path(folder))
    step = found(one)
    number = step.step if step is not None else 0
    while True:
        number += 1
        wait(lambda: keep(one, number, size=size), "a state")  # noqa: B023
        pipe.send(number)


def newest(folder: Path) -> int:
    """The step of what somebody new would go on from; -1: there is nothing."""
    kept = found(keeping(folder))
    return -1 if kept is None else check(kept)


def test_a_kill_in_mid_copy_tears_nothing(folder: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    last = 0
    for _ in range(8):
        receive, send = forks.Pipe(duplex=False)
        process = forks.Process(target=_train, args=(str(folder), 2_000_000, send))
        process.start()
        send.close()
        wait(lambda: receive.poll(0), "the first state")  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.05))  # anywhere in a copy
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        told = last
        with contextlib.suppress(EOFError):
            while receive.poll(0):
                told = receive.recv()
        receive.close()
        wait(lambda: newest(folder) >= told, "what was sealed")  # noqa: B023  # a word that is on its way
        last = newest(folder)
        assert told <= last <= told + 1, "a state that was sealed is there"
    assert last >= 8


def _train_with_a_child(folder: str, size: int, pipe: Any) -> None:
    """A worker whose code forks: the child outlives it, with all that it had open."""
    one = keeping(Path(folder))
    wait(lambda: keep(one, 1), "a state")
    child = os.fork()
    if not child:
        pipe.close()
        signal.pause()
    pipe.send(child)
    signal.pause()


def test_a_child_that_outlives_its_worker_holds_up_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.elastic.worker.keeping.AGAIN_S", 0.1)
    receive, send = forks.Pipe(duplex=False)
    process = forks.Process(target=_train_with_a_child, args=(str(folder), 0, send))
    process.start()
    send.close()
    child = receive.recv()
    try:
        process.kill()
        process.join()
        one = keeping(folder)
        assert check(found(one)) == 1
        surely(one, 2)
        one.close()
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_there_is_one_for_each_machine_and_run(folder: Path) -> None:
    """Whoever writes first does so alone, another when it is gone."""
    several = [keeping(folder) for _ in range(4)]
    for one in several:
        one.open()
    wait(lambda: all(o._open is not None for o in several), "their keeper")
    assert len({pid(one) for one in several}) == 1
    first, second = several[2], several[0]
    surely(first, 3)
    assert not keep(second, 4)
    wait(lambda: not second._asked)
    assert second._hold is None, "it may not"
    assert [about["step"] for about in listed(second)] == [3]
    first.close()
    second._again_at = 0.0
    surely(second, 4)
    assert check(found(second)) == 4
    for one in several:
        one.close()


def test_it_survives_its_worker_and_goes_when_the_run_ends(folder: Path) -> None:
    one = keeping(folder)
    surely(one, 1)
    process = pid(one)
    told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    assert int(told[1]) != os.getpid(), "no child of ours"
    assert int(told[3]) not in (os.getsid(0), os.getpid()), "in a session of its own"
    assert int(told[2]) != os.getpgrp()
    one.close(end=True)
    wait(lambda: not Path(f"/proc/{process}").exists(), "its end")
    assert not list(folder.iterdir()), "nothing is left behind"


def test_it_goes_when_nobody_speaks_to_it(folder: Path) -> None:
    one = keeping(folder, linger_s=0.4)
    surely(one, 1)
    process = pid(one)
    time.sleep(1.0)
    assert Path(f"/proc/{process}").exists(), "its worker lives"
    one.close()
    wait(lambda: not Path(f"/proc/{process}").exists(), "its end")


def test_who_only_asks_what_the_machine_does_keeps_it_from_nothing(folder: Path) -> None:
    """It is asked all the time, and holds memory."""
    one = keeping(folder, linger_s=0.4)
    surely(one, 1)
    process, (path,) = pid(one), folder.glob("*.sock")
    one.close()

    def gone() -> bool:
        with contextlib.suppress(OSError, EOFError):
            keepers.measure(str(path), "secret")
        return not Path(f"/proc/{process}").exists()

    wait(gone, "its end")


def test_a_keeper_that_died_is_replaced(folder: Path) -> None:
    one = keeping(folder)
    surely(one, 1)
    process = pid(one)
    os.kill(process, signal.SIGKILL)
    wait(lambda: not Path(f"/proc/{process}").exists(), "its end")
    surely(one, 2)
    assert check(found(one)) == 2
    one.close()


def test_it_is_small(folder: Path) -> None:
    one = keeping(folder)
    surely(one, 1)
    status = Path(f"/proc/{pid(one)}/status").read_text()
    anonymous = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    print(f"{anonymous} kB of its own")
    assert anonymous < 20_000
    one.close()


def test_a_lone_worker_is_copied_elsewhere(folder: Path) -> None:
    """To a machine where a worker waits and writes nothing, a spare say; from where a worker goes on."""
    far = keeping(folder, "m1")
    far.open()
    port = wait(lambda: far._open, "the other keeper").port
    one = keeping(folder, "m0", lambda: (("127.0.0.1", port),))
    one.carried(1)
    surely(one, 1)
    wait(lambda: listed(far), "the copy")
    surely(one, 2)
    wait(lambda: listed(far)[0]["step"] == 2, "the next")
    assert check(found(far)) == 2
    one.carried(2)
    surely(one, 3)
    surely(far, 3)  # it trains as well
    surely(far, 4)
    assert [about["step"] for about in listed(far)] == [4, 3]
    one.close()
    far.close()


def test_nothing_is_brought_where_a_worker_writes(folder: Path) -> None:
    far = keeping(folder, "m1")
    surely(far, 7)
    port = far._open.port  # type: ignore[union-attr]
    one = keeping(folder, "m0", lambda: (("127.0.0.1", port),))
    surely(one, 8)
    with contextlib.closing(keepers.call(("127.0.0.1", port), "secret")) as words:
        keepers.send(words.connection, {"op": "put", "about": listed(one)[0]})
        assert not words.next()["ok"]
    assert [about["step"] for about in listed(far)] == [7]
    one.close()
    far.close()


def test_a_keeper_that_stands_still_holds_up_no_step(folder: Path) -> None:
    one = keeping(folder)
    surely(one, 1)
    surely(one, 2)
    standing = pid(one)
    os.kill(standing, signal.SIGSTOP)
    try:
        about = {"made": MADE, "total_steps": TOTAL, "start": 1, "whole_from": 0}
        longest, step = 0.0, 3
        while one._hold is not None:  # until there is no more room for words to it
            begun = time.monotonic()
            one.keep(step, lambda: state(step, 10), about)  # noqa: B023
            longest, step = max(longest, time.monotonic() - begun), step + 1
            assert step < 100_000
        assert longest < keepers.GREET_S / 2
    finally:
        os.kill(standing, signal.SIGCONT)
    surely(one, step)
    assert check(found(one)) == step
    one.close()


def test_names_of_keepers_that_were_killed_go(folder: Path) -> None:
    one = keeping(folder, run="d" * 32)
    surely(one, 1)
    with contextlib.closing(keepers.call(one.path, "secret")) as words:
        keepers.send(words.connection, {"op": "list"})
        os.kill(words.next()["pid"], signal.SIGKILL)
    one.close()
    other = keeping(folder)
    surely(other, 1)
    assert {path.name[:2] for path in folder.iterdir()} == {"rr"}
    other.close()


def test_too_little_memory_turns_it_off_with_one_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    one = keeping(folder)
    one._say = notes.append
    about = {"made": MADE, "total_steps": TOTAL, "start": 1, "whole_from": 0}
    wait(lambda: one.due(1, time.monotonic()) or one._hold is not None)
    hold = wait(lambda: one._hold)
    monkeypatch.setattr(type(hold), "fits", lambda self, size: False)
    monkeypatch.setattr("headway.elastic.worker.keeping.SPARE", 1e9)
    assert not one.keep(1, lambda: state(1), about)
    wait(lambda: notes, "the note")
    assert "too little" in notes[0]
    assert not one.due(2, time.monotonic() + 100.0), "it is off"
    assert len(notes) == 1
    assert shortage(1) == ""
    one.close()


def test_keepers_that_do_not_answer_hold_up_no_end(folder: Path) -> None:
    """Their machines may be gone, or stand still."""
    with contextlib.ExitStack() as left:
        deaf = [left.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(8)]
        one = keeping(folder, places=lambda: tuple(each.getsockname() for each in deaf))
        surely(one, 1)
        begun = time.monotonic()
        one.close(end=True)
        assert time.monotonic() - begun < 3 * keepers.GREET_S
    wait(lambda: not Path(one.path).exists(), "the end")


def test_a_start_that_takes_too_long_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, tried = subprocess.run, []

    def slow(*arguments: Any, **options: Any) -> Any:
        tried.append(arguments)
        if len(tried) == 1:
            raise subprocess.TimeoutExpired("python", options["timeout"])
        return run(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", slow)
    one = keeping(folder)
    surely(one, 1)
    assert len(tried) == 2
    one.close()


@contextlib.contextmanager
def reading(one: Keeping, number: int) -> Iterator[None]:
    """Somebody reads a state."""
    with contextlib.closing(keepers.call(one.path, "secret")) as words:
        keepers.send(words.connection, {"op": "read", "number": number})
        assert words.next()["ok"]
        yield


def test_a_state_that_is_read_costs_the_training_thread_nothing(folder: Path) -> None:
    """As where it goes to another node over a slow network: no step pays for what cannot be written yet."""
    one, asked = keeping(folder), []
    surely(one, 1)
    with reading(one, 1):
        surely(one, 2)
        about = {"made": MADE, "total_steps": TOTAL, "start": 1, "whole_from": 0}
        for step in range(3, 20):
            assert one.due(step, time.monotonic())
            assert not one.keep(step, lambda: asked.append(1) or state(1), about)  # type: ignore[func-returns-value]
        assert not asked
    surely(one, 20)
    one.close()


def test_a_state_that_grows_while_one_is_read_has_room_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.elastic.worker.keeping.AGAIN_S", 0.05)
    one = keeping(folder)
    notes: list[str] = []
    one._say = notes.append
    surely(one, 1)
    surely(one, 2)
    monkeypatch.setattr(type(one._hold), "read", False)  # it begins just now
    with reading(one, 1):
        assert not keep(one, 3, size=400_000)
        wait(lambda: not one._asked, "the answer")
        time.sleep(0.1)
        assert not keep(one, 3, size=400_000)
    surely(one, 3, size=400_000)
    assert check(found(one)) == 3
    assert not notes
    one.close()


def test_a_state_that_cannot_be_had_ends_no_training(folder: Path) -> None:
    """Of the user's own, whose state_dict() raises: the next checkpoint says so."""
    one = keeping(folder)
    notes: list[str] = []
    one._say = notes.append
    surely(one, 1)

    def raises() -> Any:
        raise RuntimeError("no state today")

    assert not one.keep(2, raises, {"made": MADE, "total_steps": TOTAL, "start": 1, "whole_from": 0})
    assert not one.due(3, time.monotonic())
    (note,) = notes
    assert "RuntimeError: no state today; training goes on" in note
    one.close()


@contextlib.contextmanager
def taking(last: dict[str, Any], after_s: float = 0.0) -> Iterator[tuple[str, int]]:
    """Another node's keeper that takes one copy, and says this of it; it needs a while for each answer."""
    with socket.create_server(("127.0.0.1", 0)) as there:

        def answer() -> None:
            words = keepers.admit(there.accept()[0], "secret")
            about = words.next()["about"]
            time.sleep(after_s)
            keepers.send(words.connection, {"ok": True})
            words.fill(memoryview(bytearray(about["bytes"])))
            time.sleep(after_s)
            keepers.send(words.connection, last)
            words.close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield there.getsockname()
        thread.join()


def test_a_copy_that_came_damaged_is_none() -> None:
    with (
        taking({"ok": False, "reason": "damaged on its way"}) as there,
        pytest.raises(keepers.Refused, match="damaged"),
    ):
        keeper._bring(there, "secret", "", {"bytes": 100}, memoryview(bytes(100)))


def test_a_large_state_is_given_time_on_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """For its memory, and for its digest."""
    monkeypatch.setattr(keepers, "GREET_S", 0.5)
    with taking({"ok": True}, after_s=1.0) as there:
        keeper._bring(there, "secret", "", {"bytes": 100}, memoryview(bytes(100)))


def test_others_are_heard_while_a_large_state_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    one = keeper.Keeper({"run": "r" * 32, "token": "secret"})
    shelf = Shelf()
    slot, begun, go_on = shelf.slots[0], threading.Event(), threading.Event()
    slot.grow(100)
    assert slot.memory is not None
    HEAD.pack_into(slot.memory, 0, 1, 0)
    slot.about = {"number": 1, "bytes": 100, "digest": keeper.digest(slot.content(100))}
    digest = keeper.digest
    monkeypatch.setattr(keeper, "digest", lambda data: begun.set() or (go_on.wait(DEADLINE_S) and digest(data)))  # type: ignore[func-returns-value]
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(one._find(shelf, 1)))
    thread.start()
    assert begun.wait(DEADLINE_S)
    assert one._lock.acquire(timeout=DEADLINE_S / 2), "it is free"
    one._lock.release()
    with pytest.raises(Busy):
        slot.grow(1000)
    go_on.set()
    thread.join()
    assert found == [slot]


def test_strangers_on_the_network_keep_no_worker_out(folder: Path) -> None:
    one = keeping(folder)
    surely(one, 1)
    port = one._open.port  # type: ignore[union-attr]
    with contextlib.ExitStack() as left:
        for _ in range(keeper.MOST_TALKS):  # each is greeted, and says nothing
            stranger = left.enter_context(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
            assert stranger.recv(1)
        assert check(found(keeping(folder))) == 1
    one.close()


@pytest.mark.parametrize("length", [20, 45, 46, 60, 61, 90])
def test_a_socket_has_room_for_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """Wherever temporary files are, and whatever the numbers of machine and user."""
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * (length - 1))
    monkeypatch.setattr(Path, "mkdir", lambda path, mode, exist_ok: None)
    monkeypatch.setattr(Path, "lstat", lambda path: os.stat_result((stat.S_IFDIR | 0o700, 0, 0, 0, 2**31, *[0] * 5)))
    monkeypatch.setattr(os, "getuid", lambda: 2**31)
    path = keeper.socket_path({"folder": keeper.folder(), "run": "r" * 32, "machine": str(2**32 - 1)})
    with socket.socket(socket.AF_UNIX) as one, pytest.raises((FileNotFoundError, PermissionError)):
        one.bind(path)  # "AF_UNIX path too long" is another
