"""Records reach the recorder in order, and before the checkpoint that follows them."""

from __future__ import annotations

from typing import Any

import pytest

from headway.elastic.reporter import DriverLost, Reporter


class Recorder:
    """Stands for the actor: `push.remote` answers at once with what `ray.get` would give."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.attempt = 1
        self.gone = False
        self.push = self

    def remote(self, attempt: int, records: list[dict[str, Any]]) -> dict[str, Any]:
        import ray

        if self.gone:
            raise ray.exceptions.RayActorError()
        self.got += records
        return {"stop": False, "current": attempt == self.attempt}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    import ray

    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)
    return Recorder()


def test_a_checkpoint_settles_the_records_before_it(recorder: Recorder) -> None:
    reporter = Reporter(recorder, rank=0, attempt=1)  # its thread is not started: nothing else sends
    for step in range(3):
        reporter.step(step, 0, 1.0, 0.1, 8, "00")
    assert recorder.got == []
    assert reporter.settle()
    assert [r["step"] for r in recorder.got] == [0, 1, 2]


def test_an_attempt_that_was_replaced_may_not_commit(recorder: Recorder) -> None:
    reporter = Reporter(recorder, rank=0, attempt=1)
    recorder.attempt = 2
    assert not reporter.settle()


def test_a_lost_driver_stops_the_worker(recorder: Recorder) -> None:
    reporter = Reporter(recorder, rank=0, attempt=1)
    recorder.gone = True
    assert not reporter.settle()
    with pytest.raises(DriverLost):
        _ = reporter.stop_requested


def test_only_rank_0_speaks(recorder: Recorder) -> None:
    reporter = Reporter(recorder, rank=1, attempt=1)
    reporter.step(0, 0, 1.0, 0.1, 8, "00")
    reporter.settle()
    assert recorder.got == []
