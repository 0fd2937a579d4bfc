"""A run in a store: made, taken over, handed on, read, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from headway.errors import BadData, BadInput
from headway.runs import head as heads
from headway.runs import working_copy
from headway.runs.epochs import Superseded
from headway.runs.folder import RunFolder
from headway.runs.head import HEAD, Head
from headway.runs.lease import Lease
from headway.runs.remote import Clock, RemoteRun
from headway.runs.shipping import Shipping
from headway.runs.stream import Append, Replace, encode
from headway.storage.protocol import ABSENT, OutOfReach
from headway.testing.memory_storage import Memory, MemoryStorage, Stopped, Troubles


class Time:
    """A clock that waiting moves on."""

    def __init__(self) -> None:
        self.now, self.meanwhile = 0.0, lambda: None
        self.meanwhile: Callable[[], None]

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(time: Time) -> Memory:
    return Memory(lambda: time.now)


def run_of(store: Memory, time: Time, troubles: Troubles | None = None) -> RemoteRun:
    """The run, as a process of its own sees it."""
    return RemoteRun(store.client(troubles), "run", time.clock)


def ship(lease: Lease, folder: Path, time: Time) -> Shipping:
    """What is in the folder, all of it."""
    shipping = Shipping(
        lease,
        folder,
        lambda: None,
        5.0,
        lambda _: None,
        lambda _: None,
        None,
        lambda: time.now,
        lambda action: action(),
    )
    shipping.open()
    shipping.want()
    shipping.turn()
    assert shipping.finished()
    return shipping


def storage_of(run: RemoteRun) -> MemoryStorage:
    assert isinstance(run.storage, MemoryStorage)
    return run.storage


# Made and taken


def test_a_name_is_had_once(store: Memory, time: Time) -> None:
    run_of(store, time).create({"state": "running"})
    with pytest.raises(BadInput, match=r"run is taken: a run of that name is there. Choose another --name") as caught:
        run_of(store, time).create({"state": "other"})
    assert caught.value.exit_code == 2
    assert run_of(store, time).head().brief == {"state": "running"}


def test_the_answer_to_making_it_may_be_lost(store: Memory, time: Time) -> None:
    lease = run_of(store, time, Troubles(lost_answers=frozenset({1, 2}))).create({"state": "running"})
    lease.renew()
    assert run_of(store, time).head().beat == 2


def test_there_is_no_such_run(store: Memory, time: Time, tmp_path: Path) -> None:
    for ask in (run_of(store, time).head, run_of(store, time).claim, lambda: run_of(store, time).pull(tmp_path / "a")):
        with pytest.raises(BadInput, match=r"no run 'run' in memory://store"):
            ask()


def test_a_released_run_is_taken_at_once(store: Memory, time: Time) -> None:
    run_of(store, time).create({}).release()
    lease = run_of(store, time).claim()
    assert (lease.epoch, time.now) == (2, 0.0)


def test_a_run_that_nobody_released_is_watched_first(store: Memory, time: Time) -> None:
    run_of(store, time).create({})
    said: list[str] = []
    lease = run_of(store, time).claim(said.append)
    assert lease.epoch == 2
    assert 30.0 <= time.now < 35.0
    assert len(said) == 1
    assert "waiting up to 30 s" in said[0]


def test_a_run_that_is_led_elsewhere_is_left_and_told(store: Memory, time: Time) -> None:
    leader = run_of(store, time).create({})

    def renew() -> None:
        if time.now > 8.0:
            leader.renew()

    time.meanwhile = renew
    with pytest.raises(BadInput, match=r"run run is led elsewhere: by process \d+ on .+, since 20.+\. Wait") as caught:
        run_of(store, time).claim()
    assert caught.value.exit_code == 2
    assert time.now < 15.0
    assert leader.epoch == 1
    leader.renew()


def test_who_was_superseded_commits_nothing(store: Memory, time: Time) -> None:
    old = run_of(store, time).create({})
    new = run_of(store, time).claim()
    with pytest.raises(
        Superseded, match=r"another process leads run run \(process \d+ on .*its epoch is 2, this one's 1"
    ):
        old.commit(encode([Replace("run.json", b"{}")]))
    assert new.head == run_of(store, time).head()


def test_what_was_offered_is_settled_before_anything_else(store: Memory, time: Time) -> None:
    """A write that seemed to fail lands late: between the leader's tries, and after all of them."""
    lease = run_of(store, time, Troubles(late={2: 2, 5: 1000})).create({})
    one, two, three = (encode([Append("steps.jsonl", at, b"x\n")]) for at in (0, 2, 4))
    with pytest.raises(OutOfReach):
        lease.commit(one)
    with pytest.raises(RuntimeError, match="not settled"):
        lease.offer(two)
    lease.settle()
    lease.commit(two)
    lease.commit(three)
    store.land()
    assert run_of(store, time).head().tail == one + two + three


def test_the_lead_is_handed_over_within_an_epoch(store: Memory, time: Time) -> None:
    driver = run_of(store, time).create({})
    recorder = run_of(store, time).join(1)
    assert recorder.epoch == 1
    with pytest.raises(Superseded):
        driver.renew()
    recorder.commit(encode([Replace("run.json", b"{}")]))
    back = run_of(store, time).join(1)
    back.release()
    with pytest.raises(Superseded):
        run_of(store, time).join(1)
    run_of(store, time).claim()
    with pytest.raises(Superseded, match="its epoch is 2, this one's 1"):
        run_of(store, time).join(1)


def test_a_late_write_of_who_handed_over_changes_nothing(store: Memory, time: Time) -> None:
    driver = run_of(store, time, Troubles(late={2: 3})).create({})
    with pytest.raises(OutOfReach):
        driver.commit(encode([Replace("run.json", b"late")]))
    recorder = run_of(store, time).join(1)
    store.land()
    recorder.commit(encode([Replace("run.json", b"new")]))
    assert run_of(store, time).head().nonce == recorder.head.nonce


# Checkpoints


def manifest(run: RemoteRun, epoch: int, step: int) -> str:
    name = f"checkpoints/step-{step:08d}/e{epoch:06d}-ab/manifest.json"
    run.storage.put(name, b"{}", ABSENT)
    return name


def test_a_checkpoint_counts_in_its_epoch_or_where_it_was_adopted(store: Memory, time: Time) -> None:
    run = run_of(store, time)
    run.create({})
    first = manifest(run, 1, 100)
    assert run.counts(first, run.head())
    second = run_of(store, time).claim()
    zombie = manifest(run, 1, 200)
    mine = manifest(run, 2, 110)
    at = run.head()
    assert [run.counts(name, at) for name in (first, zombie, mine)] == [True, False, True]
    assert run.counts(first.removesuffix("/manifest.json"), at)
    second.release()
    run_of(store, time).claim()
    at = run.head()
    assert [run.counts(name, at) for name in (first, zombie, mine)] == [True, False, True]
    assert not run.counts("checkpoints/step-00000001/model.pt", at)


@pytest.mark.parametrize("fence", ["write", "look"])
@pytest.mark.parametrize("at", range(1, 8))
def test_a_checkpoint_that_is_committed_while_another_claims(store: Memory, time: Time, at: int, fence: str) -> None:
    """A leader commits one, sees that it leads still, and removes the one before; all of it between two requests of who
    claims: one of them is there and counts, whatever becomes of the claim."""
    leader, writer = run_of(store, time).create({}), run_of(store, time)
    older = manifest(writer, 1, 200)
    seen = 0

    def between() -> None:
        nonlocal seen
        seen += time.now >= 30.0
        if seen != at:
            return
        store.between = lambda: None
        manifest(writer, 1, 300)
        try:
            if fence == "write":
                leader.renew()
            leads = writer.head().epoch == leader.epoch
        except Superseded:
            leads = False
        if leads:
            writer.storage.delete([older])

    store.between = between
    try:
        epoch = run_of(store, time).claim().epoch
    except BadInput:
        epoch = 1
    assert seen >= at or epoch == 2
    head = writer.head()
    there = [f.name for f in writer.storage.list("checkpoints/") if head.counts(f.name)]
    assert there
    assert head.open == ()


def test_checkpoints_from_elsewhere_are_adopted_with_the_next_write(store: Memory, time: Time) -> None:
    """Also where one is under way of which nobody knows whether it was done."""
    run = run_of(store, time, Troubles(late={2: 1000}))
    lease = run.create({})
    with pytest.raises(OutOfReach):
        lease.renew()
    lease.adopt(("checkpoints/step-1/e000007-ab",))
    lease.settle()
    lease.renew()
    assert run.head().counts("checkpoints/step-1/e000007-ab/manifest.json")
    lease.renew()
    assert run.head().adopted == ("checkpoints/step-1/e000007-ab",)


def test_a_claim_that_stops_before_it_adopted_leaves_all_that_counted(store: Memory, time: Time) -> None:
    run_of(store, time).create({})
    first = manifest(run_of(store, time), 1, 100)
    with pytest.raises(Stopped):
        run_of(store, time, Troubles(stop_at=18)).claim()
    head = run_of(store, time).head()
    assert (head.epoch, head.open) == (2, (1,))
    second = manifest(run_of(store, time), 2, 100)
    head = run_of(store, time).claim().head
    assert (head.epoch, head.open) == (3, ())
    assert head.counts(first)
    assert head.counts(second)
    assert not head.counts(manifest(run_of(store, time), 2, 200))


# Read


@pytest.fixture
def shipped(store: Memory, time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteRun:
    """A run with a segment, a tail and a large file, released."""
    monkeypatch.setattr(heads, "TAIL_RAW_BYTES", 2000)
    run, folder = run_of(store, time), tmp_path / "leader"
    (folder / "code").mkdir(parents=True)
    (folder / "run.json").write_text('{"state": "running"}')
    (folder / "code/weights.bin").write_bytes(bytes(range(256)) * 400)
    (folder / "steps.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in range(300)))
    lease = run.create({"state": "running"})
    shipping = ship(lease, folder, time)
    (folder / "run.json").write_text('{"state": "finished"}')
    shipping.want()
    shipping.turn()
    assert shipping.end(released=True)
    shipping.free()
    head = run.head()
    assert len(head.segments) == 1
    assert head.tail
    return run


def test_a_copy_is_what_the_leader_wrote(shipped: RemoteRun, tmp_path: Path) -> None:
    shipped.pull(tmp_path / "copy")
    run = RunFolder(tmp_path / "copy")
    assert run.read() == {"state": "finished"}
    assert run.last_step() == 299
    assert (run.code / "weights.bin").read_bytes() == bytes(range(256)) * 400


def test_a_copy_that_is_up_to_date_costs_one_look(shipped: RemoteRun, tmp_path: Path) -> None:
    shipped.pull(tmp_path / "copy")
    requests = storage_of(shipped).requests
    before = len(requests)
    shipped.pull(tmp_path / "copy")
    shipped.pull(tmp_path / "leader")
    assert [request.name for request in requests[before:]] == [HEAD, HEAD]


def test_only_what_is_new_is_fetched(shipped: RemoteRun, tmp_path: Path) -> None:
    shipped.pull(tmp_path / "copy")
    lease = shipped.claim()
    end = (tmp_path / "copy/steps.jsonl").stat().st_size
    lease.commit(encode([Append("steps.jsonl", end, b'{"step": 300}\n')]))
    requests = storage_of(shipped).requests
    before = len(requests)
    shipped.pull(tmp_path / "copy")
    assert [request.name for request in requests[before:]] == [HEAD]
    assert RunFolder(tmp_path / "copy").last_step() == 300


def test_what_was_done_to_a_copy_is_undone(shipped: RemoteRun, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shipped.pull(copy)
    (copy / "run.json").write_text("{}")
    (copy / "new.txt").write_text("new")
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints/mine").write_text("not of the records")
    shipped.pull(copy)
    assert RunFolder(copy).read() == {"state": "finished"}
    assert not (copy / "new.txt").exists()
    assert (copy / "checkpoints/mine").exists()


def test_a_pull_that_was_stopped_is_done_again(
    shipped: RemoteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("headway.runs.replay._whole", stopped)
        with pytest.raises(KeyboardInterrupt):
            shipped.pull(tmp_path / "copy")
    shipped.pull(tmp_path / "copy")
    assert RunFolder(tmp_path / "copy").last_step() == 299


def test_the_folder_of_a_leader_on_this_machine_is_left_alone(store: Memory, time: Time, tmp_path: Path) -> None:
    run, folder = run_of(store, time), tmp_path / "run"
    folder.mkdir()
    lease = run.create({})
    shipping = ship(lease, folder, time)
    (folder / "steps.jsonl").write_text('{"step": 1}\n')
    run_of(store, time).pull(folder)
    assert RunFolder(folder).last_step() == 1
    shipping.free()


def test_who_brings_a_copy_up_to_date_for_ever_is_told(
    shipped: RemoteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.runs.replay.WAIT_S", 0.1)
    (tmp_path / "copy").mkdir()
    with (
        working_copy.held(tmp_path / "copy" / working_copy.PULLED, 0.0),
        pytest.raises(BadInput, match="is in use: another process"),
    ):
        shipped.pull(tmp_path / "copy")


def damage(storage: MemoryStorage, place: str, change: Callable[[bytes], bytes | None]) -> str:
    (found,) = storage.list(place)
    changed = change(storage.get(found.name))
    if changed is None:
        storage.delete([found.name])
    else:
        storage.put(found.name, changed)
    return found.name


@pytest.mark.parametrize("place", ["records/", "files/"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: None, "is missing: the head of run run names it"),
        (lambda content: content[:-9], "is damaged: it is too short"),
        (lambda content: content[:40] + b"!" + content[41:], "is damaged"),
        (lambda content: content + b"more", "nothing"),
    ],
)
def test_a_damaged_part_is_named(
    shipped: RemoteRun, tmp_path: Path, place: str, change: Callable[[bytes], bytes | None], words: str
) -> None:
    name = damage(storage_of(shipped), place, change)
    if words == "nothing":  # its length is in the head: what follows is not read
        shipped.pull(tmp_path / "copy")
        return
    with pytest.raises(BadData, match=words) as caught:
        shipped.pull(tmp_path / "copy")
    assert name in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "copy/.copy.json").exists()


def test_what_is_merged_while_it_is_read_is_read_again(shipped: RemoteRun, tmp_path: Path) -> None:
    lease = shipped.claim()
    (segment,) = lease.head.segments
    content = shipped.storage.get(segment.name)
    new = replace(segment, name=segment.name.replace("records/0-", "records/1-"), level=1)
    reader = RemoteRun(storage_of(shipped).store.client(), "run")
    merged = False

    def between() -> None:
        nonlocal merged
        if not merged and len(storage_of(reader).requests) == 1:
            merged = True
            lease.storage.put(new.name, content)
            lease.offer(merged=((segment,), new))
            lease.settle()
            lease.storage.delete([segment.name])

    storage_of(shipped).store.between = between
    assert reader.pull(tmp_path / "copy").segments == (new,)
    assert RunFolder(tmp_path / "copy").last_step() == 299


# The head


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b'"epoch": 1', b'"epoch": 2'),
        lambda content: b"[1, 2]",
        lambda content: json.dumps({"layout": heads.LAYOUT}).encode(),
        lambda content: b"\xff\xfe",
    ],
)
def test_a_head_that_is_damaged_is_refused(store: Memory, time: Time, change: Callable[[bytes], bytes]) -> None:
    run = run_of(store, time)
    run.create({})
    run.storage.put(HEAD, change(run.storage.get(HEAD)))
    with pytest.raises(BadData, match=r"run/head.json is damaged: .+ Nothing was guessed") as caught:
        run.claim()
    assert caught.value.exit_code == 2


def test_a_newer_layout_is_refused_by_name(store: Memory, time: Time) -> None:
    run = run_of(store, time)
    run.storage.put(HEAD, b'{"layout": "headway-run/2", "more": 1}')
    with pytest.raises(
        BadInput, match=r"has layout 'headway-run/2': this Headway reads 'headway-run/1'. Use the release"
    ):
        run.head()


def test_a_head_is_what_it_was(store: Memory, time: Time, shipped: RemoteRun) -> None:
    head = replace(shipped.head(), adopted=("checkpoints/step-1/e000001-a",), brief={"loss": float("inf"), "n": None})
    assert heads.read(head.content(), "here") == head


# Removed


def test_a_run_is_removed_with_all_that_is_in_it(shipped: RemoteRun, store: Memory) -> None:
    manifest(shipped, 1, 3)
    store.client().put("other/head.json", b"not this one")
    shipped.remove()
    assert list(store.objects) == ["other/head.json"]


def test_a_removal_that_was_stopped_is_gone_on_with(shipped: RemoteRun, store: Memory, time: Time) -> None:
    class NoDelete(MemoryStorage):
        def delete(self, names: object) -> None:
            raise OutOfReach("gone", "", "")

    run = run_of(store, time)
    run.storage.__class__ = NoDelete
    with pytest.raises(OutOfReach):
        run.remove()
    with pytest.raises(BadInput, match="run run is being removed"):
        run_of(store, time).head()
    with pytest.raises(BadInput, match="is taken"):
        run_of(store, time).create({})
    run_of(store, time).remove()
    assert not store.objects


def test_a_run_that_is_led_is_not_removed(store: Memory, time: Time) -> None:
    leader = run_of(store, time).create({})
    time.meanwhile = leader.renew
    with pytest.raises(BadInput, match="led elsewhere"):
        run_of(store, time).remove()
    assert isinstance(run_of(store, time).head(), Head)
