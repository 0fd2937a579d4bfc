"""The audit log: a chain that shows what is done to it; written by many at once, through lost answers and refusals."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headway.cli.app import app
from headway.core import audit as chain
from headway.core.audit import Act, Head
from headway.errors import Amiss, BadInput
from headway.runs import Place, audit, briefs
from headway.storage.protocol import OutOfReach, Storage
from headway.testing.memory_storage import Memory, Stopped, Troubles
from headway.testing.s3 import S3

KEYS = "entries/00000000000{}.json"


def act(number: int) -> Act:
    return Act("stop", f"run-{number}", "mary@laptop", 1e9 + number, {"now": bool(number % 2)}, f"nonce-{number}")


def log(length: int) -> tuple[Head, dict[int, bytes]]:
    """A log that nobody touched."""
    head, kept = Head(), {}
    for number in range(1, length + 1):
        entry = chain.following(head, act(number))
        kept[number] = entry.content()
        head = chain.moved(entry, kept[number])
    return head, kept


def faults(head: Head | None, kept: dict[int, bytes], **more: object) -> list[tuple[int, str]]:
    """Number and kind of all that is found."""
    verdict = chain.verify(None if head is None else head.content(), kept, **more)  # type: ignore[arg-type]
    return [(fault.number, fault.what.partition(":")[0]) for fault in verdict.faults]


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_a_log_that_nobody_touched_is_sound(length: int) -> None:
    head, kept = log(length)
    verdict = chain.verify(head.content(), kept)
    assert verdict.faults == ()
    assert verdict.pending is None
    assert [entry.act for entry in verdict.entries] == [act(number) for number in range(1, length + 1)]


def test_a_log_without_anything_is_one_that_has_not_begun() -> None:
    assert faults(None, {}) == []


def changed(content: bytes, **fields: object) -> bytes:
    """An entry with other fields, written as entries are."""
    entry = chain.read_entry(content)
    return replace(entry, act=replace(entry.act, **fields)).content()  # type: ignore[arg-type]


def test_a_changed_entry_is_named_and_no_other() -> None:
    head, kept = log(5)
    for number in kept:
        assert faults(head, {**kept, number: changed(kept[number], by="nobody")}) == [(number, "changed")]
        assert faults(head, {**kept, number: b"{}"}) == [(number, "changed")]
        assert faults(head, {**kept, number: kept[number] + b" "}) == [(number, "changed")]


def test_a_missing_entry_is_named_and_no_other() -> None:
    head, kept = log(5)
    for number in range(1, 5):
        assert faults(head, {n: c for n, c in kept.items() if n != number}) == [(number, "missing")]
    assert faults(head, {n: c for n, c in kept.items() if n not in (2, 3)}) == [(2, "missing"), (3, "missing")]


def test_a_log_whose_end_is_gone_is_truncated() -> None:
    head, kept = log(5)
    assert faults(head, {n: c for n, c in kept.items() if n < 5}) == [(5, "truncated")]
    assert faults(head, {1: kept[1]}) == [(2, "truncated")]
    assert faults(head, {}) == [(1, "truncated")]


def test_exchanged_entries_are_named() -> None:
    head, kept = log(5)
    assert faults(head, {**kept, 2: kept[4], 4: kept[2]}) == [(2, "reordered"), (4, "reordered")]
    assert faults(head, {**kept, 5: kept[4], 4: kept[5]}) == [(4, "reordered"), (5, "reordered")]


def test_what_is_put_in_shows() -> None:
    head, kept = log(3)
    shifted = {1: kept[1], 2: changed(kept[2], by="eve"), 3: kept[2], 4: kept[3]}
    assert {number for number, _ in faults(head, shifted)} >= {2, 3, 4}
    stranger = replace(chain.read_entry(kept[3]), number=4).content()
    assert faults(head, {**kept, 4: stranger}) == [(4, "inserted")]
    assert faults(head, {**kept, 9: kept[3]}) == [(9, "inserted")]
    assert faults(head, kept, strays=["entries/2b.json"]) == [(0, "inserted")]
    before = chain.verify(head.content(), {**kept, 0: kept[3]})
    assert [fault.number for fault in before.faults] == [0], "the first is number 1"
    assert [entry.act for entry in before.entries] == [act(number) for number in (1, 2, 3)]


def test_a_head_that_is_gone_moved_back_or_damaged_shows() -> None:
    head, kept = log(4)
    early, _ = log(2)
    assert faults(None, kept) == [(0, "missing")]
    assert faults(early, kept) == [(4, "inserted")]
    assert faults(replace(head, digest="0" * 64), kept) == [(4, "changed")]
    for content in (b"", b"[]", b"7", b'{"format": 1, "number": "4", "digest": "x"}', b"[" * 100_000):
        assert [fault.number for fault in chain.verify(content, kept).faults] == [0]


def test_one_entry_behind_the_head_is_that_of_a_writer_who_was_interrupted() -> None:
    _, kept = log(4)
    early, _ = log(3)
    verdict = chain.verify(early.content(), kept)
    assert verdict.faults == ()
    assert verdict.pending is not None
    assert verdict.pending.number == 4
    assert faults(None, {1: kept[1]}) == [], "the very first, before there was a head"


def test_a_log_that_is_written_anew_shows_to_who_kept_a_head() -> None:
    head, kept = log(5)
    other = Head()
    anew: dict[int, bytes] = {}
    for number in range(1, 6):
        entry = chain.following(other, replace(act(number), by="eve"))
        anew[number] = entry.content()
        other = chain.moved(entry, anew[number])
    assert faults(other, anew) == [], "by itself it is sound"
    assert faults(other, anew, known=[log(3)[0]]) == [(3, "rewritten")]
    assert faults(other, anew, known=[head]) == [(5, "rewritten")]
    shorter, fewer = log(2)
    assert faults(shorter, fewer, known=[head]) == [(5, "truncated")]
    assert faults(head, kept, known=[log(n)[0] for n in range(6)]) == []
    assert chain.read_said(head.said) == head


@given(st.data())
def test_whatever_is_done_to_a_log_shows(data: st.DataObject) -> None:
    head, kept = log(data.draw(st.integers(1, 8)))
    number = data.draw(st.sampled_from(sorted(kept)))
    at = data.draw(st.integers(0, len(kept[number]) - 1))
    flipped = bytearray(kept[number])
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    assert [found for found, _ in faults(head, {**kept, number: bytes(flipped)})] == [number]


@given(st.dictionaries(st.text(), st.floats() | st.text() | st.none() | st.lists(st.integers())), st.text(), st.text())
def test_any_act_can_be_written_and_read(details: dict[str, object], on: str, by: str) -> None:
    entry = chain.following(Head(), Act("submit", on, by, 5.0, {**details, "path": Path("/x")}))
    content = entry.content()
    again = chain.read_entry(content)
    assert again.content() == content
    assert (again.act.on, again.act.by) == (on, by)


def test_an_entry_is_small_whatever_it_is_told() -> None:
    entry = chain.following(Head(), Act("up", "c", "me", 5.0, {"file": "x" * 100_000}))
    assert len(entry.content()) < 4 * chain.DETAILS_CHARS
    assert chain.read_entry(entry.content()) == entry


# In a place


@pytest.fixture(params=["folder", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        return Place.of(tmp_path / "runs")
    s3: S3 = request.getfixturevalue("s3")
    s3.make_bucket("audited")
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    return Place.of(f"s3://audited/{tmp_path.name}")


def test_what_is_done_is_kept_and_is_no_run(place: Place) -> None:
    said: list[str] = []
    assert audit.note(place, "submit", "r", by="mary@laptop", details={"workers": 3}, say=said.append)
    assert audit.note(place, "stop", "r", say=said.append)
    assert said == []
    verdict = audit.verify(place)
    assert verdict.faults == ()
    first, second = [entry.act for entry in verdict.entries]
    assert (first.verb, first.on, first.by, first.details) == ("submit", "r", "mary@laptop", {"workers": 3})
    assert (second.verb, second.by) == ("stop", audit.this_person())
    assert briefs(place) == []


def test_a_log_that_this_machine_saw_cannot_be_cut_off_unseen(place: Place) -> None:
    for number in range(3):
        audit.note(place, "stop", f"run-{number}")
    kept = audit.verify(place).head
    assert kept is not None
    storage = audit._storage(place)
    earlier = chain.moved(audit.entries(place)[1], audit.entries(place)[1].content())
    storage.delete([KEYS.format(3)])
    storage.put(audit.HEAD, earlier.content())
    assert [fault.number for fault in audit.verify(place).faults] == [3]
    audit.memory(place).unlink()
    assert audit.verify(place).faults == (), "another machine, which saw nothing, has to be told"
    assert [fault.number for fault in audit.verify(place, [kept.said]).faults] == [3]


def test_a_log_that_was_written_anew_is_found_though_this_machine_has_added_to_it_since(place: Place) -> None:
    for number in range(3):
        audit.note(place, "stop", f"run-{number}", by="mary@laptop")
    storage, forged = audit._storage(place), Head()
    for entry in audit.entries(place):
        other = chain.following(forged, replace(entry.act, by="eve"))
        storage.put(KEYS.format(other.number), other.content())
        forged = chain.moved(other, other.content())
    storage.put(audit.HEAD, forged.content())
    audit.note(place, "stop", "run-3")
    for _ in range(2):
        assert [fault.number for fault in audit.verify(place).faults] == [1, 2, 3], "however often it is asked"
    audit.memory(place).unlink()
    assert audit.verify(place).faults == (), "it shows by nothing else"


def test_what_is_remembered_of_a_log_is_bounded_and_the_oldest_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "KEPT", 4)
    for number in range(6):
        audit.note(place, "stop", f"run-{number}")
    assert [known.number for known in audit._remembered(place)] == [1, 2, 5, 6]
    assert audit.verify(place).faults == ()
    assert [known.number for known in audit._remembered(place)] == [6], "it was seen whole"


def test_an_entry_whose_writer_could_not_move_the_head_is_no_fault_to_them(place: Place) -> None:
    audit.note(place, "stop", "r")
    storage = audit._storage(place)
    before = storage.get(audit.HEAD)
    audit.note(place, "stop", "q")
    storage.put(audit.HEAD, before)
    verdict = audit.verify(place)
    assert (verdict.faults, verdict.pending is not None) == ((), True)


def test_a_head_that_was_kept_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--kept cannot be used.*not like"):
        audit.verify(Place.of(tmp_path), ["12"])


def test_several_write_at_once_and_nothing_is_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PATIENCE_S", 300.0)  # the machine may be busy

    def write(who: int) -> None:
        for number in range(5):
            assert audit.note(place, "stop", f"{who}-{number}")

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    verdict = audit.verify(place)
    assert verdict.faults == ()
    assert verdict.pending is None
    assert {entry.act.on for entry in verdict.entries} == {f"{who}-{n}" for who in range(4) for n in range(5)}


def told(storage: Storage) -> list[str]:
    verdict = audit.look(storage)
    assert verdict.faults == ()
    return [entry.act.on for entry in verdict.entries]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 5))
def test_a_writer_who_is_killed_leaves_a_log_that_others_go_on_with(at: int, after: bool) -> None:
    memory = Memory()
    audit.append(memory.client(), act(1))
    dying = memory.client(Troubles(stop_at=at, stop_after=after))
    with suppress(Stopped):
        audit.append(dying, act(2))
    before = told(memory.client())
    assert before in (["run-1"], ["run-1", "run-2"])
    audit.append(memory.client(), act(3))
    assert told(memory.client()) == [*before, "run-3"]


@pytest.mark.parametrize("lost", range(1, 7))
def test_a_lost_answer_writes_nothing_twice(lost: int) -> None:
    memory = Memory()
    audit.append(memory.client(), act(1))
    shaky = memory.client(Troubles(lost_answers=frozenset({lost})))
    try:
        audit.append(shaky, act(2))
    except OutOfReach:
        assert lost == 1, "it could not even read"
        audit.append(shaky, act(2))
    assert told(memory.client()) == ["run-1", "run-2"]


def test_between_any_two_requests_others_may_write() -> None:
    memory = Memory()
    others = iter(range(10, 14))
    busy = False

    def meanwhile() -> None:
        nonlocal busy
        if busy or (number := next(others, None)) is None:
            return
        busy = True
        audit.append(memory.client(), act(number))
        busy = False

    memory.between = meanwhile
    audit.append(memory.client(), act(1))
    memory.between = lambda: None
    assert sorted(told(memory.client())) == sorted(["run-1", *(f"run-{n}" for n in range(10, 14))])


def test_a_log_that_grows_while_it_is_read_is_sound() -> None:
    memory = Memory()
    number = 0

    def meanwhile() -> None:
        nonlocal number
        memory.between = lambda: None
        for _ in range(3):
            number += 1
            audit.append(memory.client(), act(number))
        memory.between = meanwhile

    memory.between = meanwhile
    verdict = audit.look(memory.client())
    assert verdict.faults == ()


def test_a_writer_whom_others_outrun_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, clock = Memory(), [0.0]
    number = 0

    def ahead() -> None:
        nonlocal number
        memory.between = lambda: None
        number += 1
        clock[0] += 1.0
        audit.append(memory.client(), act(number))
        memory.between = ahead

    memory.between = ahead
    with pytest.raises(OutOfReach, match="others were ahead"):
        audit.append(memory.client(), act(99), now=lambda: clock[0])


def test_a_store_that_refuses_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("this is no folder")
    said: list[str] = []
    assert not audit.note(Place.of(tmp_path / "runs"), "stop", "r", say=said.append)
    assert len(said) == 1
    assert "does not have this stop" in said[0]


def test_a_damaged_log_is_said_and_stops_nobody(place: Place) -> None:
    audit.note(place, "stop", "r")
    storage = audit._storage(place)
    for name, content, fault in (
        (KEYS.format(2), b"garbage", (2, "inserted")),
        (audit.HEAD, b"garbage", (0, "changed")),
    ):
        storage.put(name, content)
        said: list[str] = []
        assert not audit.note(place, "stop", "q", say=said.append)
        assert "is damaged" in said[0]
        assert "headway audit verify" in said[0]
        assert fault in [(each.number, each.what.partition(":")[0]) for each in audit.verify(place).faults]


def test_what_is_remembered_is_for_its_owner_only(place: Place) -> None:
    audit.note(place, "stop", "r")
    assert audit.memory(place).stat().st_mode & 0o777 == 0o600
    assert "heads" in json.loads(audit.memory(place).read_text())
    audit.memory(place).write_text("garbage")
    assert audit.verify(place).faults == ()


# The command


def test_the_command_shows_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place.of(tmp_path / "runs")
    audit.note(place, "submit", "r", by="mary@laptop", details={"workers": [1, 3]})
    audit.note(place, "stop", "q\x1b[2J", by="john@desk")
    run = CliRunner().invoke
    shown = run(app, ["audit", "show", str(place)])
    assert shown.exit_code == 0
    assert "mary@laptop  submit r  workers=[1, 3]" in shown.stdout
    assert "\x1b" not in shown.stdout
    told = json.loads(run(app, ["audit", "show", str(place), "--on", "r", "--json"]).stdout)
    assert [(each["number"], each["verb"], each["by"]) for each in told["entries"]] == [(1, "submit", "mary@laptop")]
    sound = run(app, ["audit", "verify", str(place)])
    assert sound.exit_code == 0
    assert "2 entries, whole" in sound.stdout
    assert f"--kept {audit.verify(place).head.said}" in sound.stdout  # type: ignore[union-attr]
    (tmp_path / "runs" / ".audit" / KEYS.format(1)).unlink()
    amiss = run(app, ["audit", "verify", str(place), "--json"])
    assert json.loads(amiss.stdout)["faults"] == [{"entry": 1, "what": "missing"}]
    assert isinstance(amiss.exception, Amiss)
    assert amiss.exception.exit_code == 1


def test_a_place_without_a_log_is_no_fault_and_nothing_is_left_there(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["audit", "verify", str(tmp_path / "none")])
    assert found.exit_code == 0
    assert "has no log yet" in found.stdout
    assert not (tmp_path / "none").exists()
