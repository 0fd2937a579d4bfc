"""What is asked of whoever leads a run: heard by the start that is meant, by no later one; in folders and in stores."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.waiting import until

from headway.errors import BadInput
from headway.job import parse
from headway.runs import Place, briefs, create, requests
from headway.runs.requests import Box, Ear, Resize, Stop, heard, of_attempt, of_epoch
from headway.storage.folder import FolderStorage
from headway.storage.protocol import OutOfReach
from headway.testing.memory_storage import Memory, Troubles
from headway.testing.s3 import S3

Make = Callable[[str], Box]


@pytest.fixture(params=["folder", "store"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Gives the box of a run, anew as another process has it."""
    memory = Memory()
    if request.param == "folder":
        return lambda run: Box.of(Place.of(tmp_path / "runs"), run)
    return lambda run: Box(memory.client().at(f"{run}/requests/"), 0.05)


def test_a_start_hears_what_is_meant_for_it_and_nothing_else(box: Make) -> None:
    told: list[Stop] = []
    asked = Stop("mary@laptop", 7.0)
    box("r").ask(of_epoch(2), asked)  # nobody listened
    with heard(box("r"), [of_epoch(3), of_attempt("ab")], told.append) as ear:
        box("q").ask(of_epoch(3), Stop("x", 1.0))
        box("r").ask(of_attempt("ab"), asked)
        until(lambda: told == [asked])
        urgent = Stop("mary@laptop", 9.0, now=True)
        box("r").ask(of_epoch(3), urgent)
        until(lambda: told == [asked, urgent])
        assert ear.stop == urgent
        box("r").ask(of_attempt("ab"), Stop("john@desk", 10.0))
        until(lambda: len(told) == 3)
        assert ear.stop == urgent, "who asks for an end at once is not asked to wait by another"
    assert box("r").asked(of_epoch(3)) is None, "it is answered"
    assert box("r").asked(of_epoch(2)) == asked, "what another start was asked is not this one's to take away"


def test_an_end_and_another_size_are_told_apart(box: Make) -> None:
    stops: list[Stop] = []
    sizes: list[Resize] = []
    first, second = Resize("mary@laptop", 7.0, 1, 4, "a", 4), Resize("john@desk", 8.0, 2, 2, "b", 2, ("n1", "n1"))
    with heard(box("r"), [of_epoch(3), of_attempt("ab")], stops.append, sizes.append):
        box("r").ask(of_attempt("ab"), first)
        until(lambda: sizes == [first])
        box("r").ask(of_epoch(3), second)
        until(lambda: sizes == [first, second])
        box("r").ask(of_epoch(3), Stop("mary@laptop", 9.0))
        until(lambda: stops)
    assert sizes == [first, second], "each once"
    assert box("r").sized(of_epoch(3)) is None, "it is answered"
    with heard(box("r"), [of_epoch(4)], stops.append) as ear:
        box("r").ask(of_epoch(4), first)
        ear.look()
    assert box("r").sized(of_epoch(4)) == first, "one that can do nothing about it leaves it to one that can"


def test_a_size_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    box = Box.of(Place.of(tmp_path / "runs"), "r")
    for damaged in (b"{", b"[]", b'{"by": "x", "at": 1, "min": "many", "max": 2, "id": "a"}'):
        box.storage.put("resize-attempt-ab.json", damaged)
        assert box.sized(of_attempt("ab")) is None


def test_what_is_asked_again_or_damaged_is_heard_once_and_nothing_is_left(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    told: list[Stop] = []
    box, start = Box.of(place, "r"), of_attempt("ab")
    ear = Ear(box, [start], told.append)
    ear.look()
    assert told == []
    assert not place.folder.exists(), "to look leaves nothing behind"
    box.ask(start, Stop("a", 1.0))
    ear.look()
    ear.look()
    assert told == [Stop("a", 1.0)]
    box.storage.put("stop-attempt-ab.json", b"{")
    ear.look()
    ear.look()
    assert [stop.by for stop in told] == ["a", "somebody"], "it asks for an end, whatever else it said"
    box.withdraw([start])
    assert list(place.folder.iterdir()) == [], "a listing of runs finds none, and no name is taken"


@pytest.mark.parametrize("how", ["remove", "discard", "by hand"])
def test_another_run_of_the_same_name_is_not_asked_what_the_first_was(tmp_path: Path, how: str) -> None:
    place = Place.of(tmp_path / "runs")
    job = parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3})
    run = create(place, "r", job)
    with run.led() as epoch:
        assert epoch == 1
        Box.of_run(run).ask(of_epoch(1), Stop("a", 1.0))
    shutil.rmtree(run.path) if how == "by hand" else run.discard() if how == "discard" else run.remove()
    assert how == "by hand" or list(place.folder.iterdir()) == []
    Box.of(place, "r").ask(of_attempt("ab"), Stop("b", 2.0))
    again = create(place, "r", job)
    assert Box.of_run(again).asked(of_epoch(1)) is None
    assert Box.of_run(again).asked(of_attempt("ab")) == Stop("b", 2.0), "it has been waiting for its run"


def test_a_folder_is_listed_and_not_asked_for_names_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS remembers for a minute that a name was not there; a folder that is opened is looked at anew."""
    place = Place.of(tmp_path / "runs")
    opened: list[str] = []
    get = FolderStorage.get

    def noted(self: FolderStorage, name: str) -> bytes:
        if str(tmp_path) in self.url:  # an ear that another test left listens elsewhere
            opened.append(name)
        return get(self, name)

    monkeypatch.setattr(FolderStorage, "get", noted)
    told: list[Stop] = []
    ear = Ear(Box.of(place, "r"), [of_epoch(1), of_attempt("ab")], told.append)
    ear.start()
    ear.look()
    assert not place.folder.exists(), "a place that is not there is not made to be looked at"
    place.folder.mkdir()
    until((place.folder / ".requests" / "r").is_dir, "so that there is something to be listed")
    with heard(Box.of(place, "r"), [of_epoch(1)], told.append):
        pass
    assert (place.folder / ".requests" / "r").is_dir(), "one of two that look goes"
    ear.look()
    assert opened == []
    Box.of(place, "r").ask(of_attempt("ab"), Stop("a", 1.0))
    until(lambda: told)
    assert set(opened) == {"stop-attempt-ab.json"}
    ear.close()
    assert list(place.folder.iterdir()) == []


def test_where_what_is_not_there_is_forbidden_the_rest_is_heard() -> None:
    """As S3 answers to those who may list a part of the bucket only."""

    class Strict(Box):
        def asked(self, start: str) -> Stop | None:
            found = super().asked(start)
            if found is None:
                raise BadInput("the bucket", "403", "")
            return found

    told: list[Stop] = []
    box = Strict(Memory().client(), 0.01)
    box.ask(of_attempt("ab"), Stop("a", 1.0))
    with heard(box, [of_epoch(1), of_attempt("ab")], told.append):
        until(lambda: told)


def test_a_store_that_does_not_answer_is_asked_again() -> None:
    memory, told = Memory(), list[Stop]()
    troubled = memory.client(Troubles(lost_answers=frozenset({1, 3})))
    memory.client().put("stop-epoch-000001.json", b'{"by": "a", "at": 1.0, "now": false}')
    with pytest.raises(OutOfReach):
        Ear(Box(memory.client(Troubles(lost_answers=frozenset({1})))), [of_epoch(1)], told.append).look()
    with heard(Box(troubled, 0.01), [of_epoch(1)], told.append):
        until(lambda: told)


def test_a_request_in_a_bucket_is_beside_the_run_and_costs_a_listing_nothing(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headway.runs.far import storage_of

    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path))
    s3.make_bucket("asked")
    place = Place.of("s3://asked/here")
    Box.of(place, "r").ask(of_attempt("ab"), Stop("a", 1.0))
    assert [found.name for found in storage_of("s3://asked/here").list()] == ["r/requests/stop-attempt-ab.json"]
    assert briefs(place) == []
    run = create(place, "r", parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3}))
    assert Box.of(place, "r").asked(of_attempt("ab")) == Stop("a", 1.0)
    run.discard()
    assert storage_of("s3://asked/here").list() == []


def test_who_asks_has_a_name_where_users_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise OSError("no username set in the environment")

    assert "@" in requests.this_person()
    monkeypatch.setattr(requests.getpass, "getuser", none)
    assert requests.this_person().startswith("somebody@")


@pytest.mark.parametrize(
    "content",
    [
        b'{"by": "x", "at": 1.0, "min": 1, "max": Infinity, "id": "a", "at_once": 1}',
        b'{"by": "x", "at": 1' + b"0" * 400 + b', "min": 1, "max": 1, "id": "a", "at_once": 1}',
        b"[" * 100_000,
        b"[]",
    ],
)
def test_what_cannot_be_read_deafens_nobody(box: Make, content: bytes) -> None:
    stops: list[Stop] = []
    box("r").storage.put("resize-epoch-000003.json", content)
    assert box("r").sized(of_epoch(3)) is None
    box("r").storage.put("stop-epoch-000002.json", content)
    assert box("r").asked(of_epoch(2)) == Stop("somebody", 0.0)
    with heard(box("r"), [of_epoch(3)], stops.append, lambda size: None):
        box("r").ask(of_epoch(3), Stop("mary@laptop", 7.0))
        until(lambda: stops)


def test_a_request_that_whoever_is_told_cannot_take_is_not_the_last_that_is_heard(box: Make) -> None:
    told: list[Stop] = []
    tried = threading.Event()

    def take(size: Resize) -> None:
        tried.set()
        raise RuntimeError("what is that?")

    with heard(box("r"), [of_epoch(3)], told.append, take):
        box("r").ask(of_epoch(3), Resize("mary@laptop", 7.0, 1, 4, "a", 4))
        assert tried.wait(30)
        box("r").ask(of_epoch(3), Stop("mary@laptop", 8.0))
        until(lambda: told)
