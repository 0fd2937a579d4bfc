"""What the runs of a sweep have recorded and kept, in a store that does not answer at times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headway.runs.place import Place
from headway.storage.protocol import OutOfReach
from headway.sweeps import looking
from headway.sweeps.looking import LOOK_S, PATIENCE_S, Looking


class Clock:
    """Goes on where somebody waits."""

    def __init__(self) -> None:
        self.at, self.stopped = 0.0, False

    def __call__(self) -> float:
        return self.at

    def wait(self, seconds: float) -> bool:
        self.at += seconds
        return self.stopped


def away() -> OutOfReach:
    return OutOfReach("s3://runs does not answer", "", "")


def answers(*said: object) -> Callable[[Place, str], object]:
    """Of a store: each once, the last again and again; raised where it is an error."""
    left: Iterator[object] = iter(said)

    def answer(place: Place, run: str) -> object:
        found = next(left, said[-1])
        if isinstance(found, OutOfReach):
            raise found
        return found

    return answer


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path))
    return Place.of("s3://runs/some/place")


def test_what_was_recorded_is_waited_for(far: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = Clock(), list[str]()
    found = [(4, {"loss": 1.0})]
    monkeypatch.setattr(looking, "_recorded", answers(away(), away(), away(), found))
    assert Looking(far, clock.wait, said.append, clock).recorded("s.0001") == found
    assert clock.at == 1 + 2 + 4
    assert len(said) == 3
    assert "does not answer, and is asked again in 4 s" in said[2]


def test_it_is_not_waited_for_longer_than_that_nor_when_the_sweep_is_left(
    far: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    it = Looking(far, clock.wait, lambda _: None, clock)
    monkeypatch.setattr(looking, "_finished", answers(away()))
    with pytest.raises(OutOfReach):
        it.finished("s.0001")
    assert PATIENCE_S <= clock.at < PATIENCE_S + looking.MOST_S
    clock.at, clock.stopped = 0.0, True
    with pytest.raises(OutOfReach):
        it.finished("s.0001")
    assert clock.at == looking.AGAIN_S


def test_a_store_is_not_listed_at_every_look(far: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    it = Looking(far, clock.wait, lambda _: None, clock)
    monkeypatch.setattr(looking, "_saved", answers([4], away(), [4, 8]))
    assert [it.saved("s.0001"), it.saved("s.0001")] == [[4], [4]]
    clock.at += LOOK_S
    for _ in range(2):
        with pytest.raises(OutOfReach):
            it.saved("s.0001")
    clock.at += LOOK_S
    assert it.saved("s.0001") == [4, 8]


def test_a_folder_is_looked_at_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_saved", answers([4], [4, 8]))
    it = Looking(Place.of(tmp_path), Clock().wait, lambda _: None, Clock())
    assert [it.saved("s.0001"), it.saved("s.0001")] == [[4], [4, 8]]
    monkeypatch.undo()
    assert (it.saved("s.0001"), it.recorded("s.0001"), it.finished("s.0001")) == ([], [], False)
