"""What a run's end is called, whose it is, and which exit code tells it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from headway import errors, report
from headway.cli import app
from headway.core import ends
from headway.core.ends import Asked, End
from headway.runs import RunFolder


def test_the_codes_are_those_of_the_errors() -> None:
    assert ends.EXIT_CODES == {
        "finished": errors.FINISHED,
        "stopped": errors.STOPPED,
        "interrupted": errors.INTERRUPTED,
    }
    assert ends.FAILED == {"task": errors.TASK_FAILED, "platform": errors.PLATFORM_FAILED}
    codes = {*ends.EXIT_CODES.values(), *ends.FAILED.values(), errors.BAD_INPUT}
    assert len(codes) == 6, "each end has a code of its own"


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("task", "task"),
        ("NonFiniteLoss", "task"),
        ("BadData", "task"),
        ("BadInput", "task"),
        ("internal", "platform"),
        ("machine", "platform"),
        ("workers", "platform"),
        ("records", "platform"),
        ("superseded", "platform"),
        ("ray", "platform"),
        ("OutOfReach", "platform"),
        ("RunFailed", "platform"),
        ("anything new", "platform"),
    ],
)
def test_whose_a_failure_is(kind: str, cause: str) -> None:
    end = ends.failed(kind, "why")
    assert (end.state, end.message, end.cause) == ("failed", "why", cause)
    assert end.exit_code == {"task": 1, "platform": 3}[cause]


@pytest.mark.parametrize(
    ("steps", "own", "asked", "kept", "end", "code"),
    [
        (9, False, None, None, End("finished"), 0),
        (9, False, Asked("mary@x"), None, End("finished"), 0),
        (3, True, None, None, End("finished", "early: the task's loop ended after step 3 of 9"), 0),
        (3, False, Asked(), 3, End("interrupted", "ended by a signal after step 3"), 130),
        (3, False, Asked("mary@x"), 3, End("stopped", "stopped by mary@x after step 3"), 4),
        (
            5,
            False,
            Asked("mary@x", now=True),
            3,
            End("stopped", "stopped by mary@x after step 5; its newest checkpoint is of step 3"),
            4,
        ),
        (0, False, Asked("mary@x"), None, End("stopped", "stopped by mary@x after step 0"), 4),
    ],
)
def test_an_end_in_order(steps: int, own: bool, asked: Asked | None, kept: int | None, end: End, code: int) -> None:
    assert ends.ended(steps, 9, own, asked, kept) == end
    assert end.exit_code == code


def test_an_end_of_its_own_has_its_reason() -> None:
    found = ends.ended(3, 9, True, None, reason="it is good enough")
    assert found == End("finished", "early: the task's loop ended after step 3 of 9: it is good enough")
    assert ends.ended(9, 9, True, None, reason="it is good enough").message == "", "it did all"


def test_errors_carry_their_codes() -> None:
    assert errors.UserCodeFailed("w", "e", "t").exit_code == errors.TASK_FAILED
    assert errors.NonFiniteLoss("x").exit_code == errors.TASK_FAILED
    assert errors.BadData("x").exit_code == errors.BAD_INPUT
    assert errors.RunFailed("x").exit_code == errors.HeadwayFault("x").exit_code == errors.PLATFORM_FAILED
    assert ends.exit_code("failed") == 1, "of earlier releases it is not known whose"


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("stopped", 4), ("interrupted", 130)])
def test_a_command_that_led_a_run_ends_with_its_code(
    state: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "runs" / "r")
    run.path.mkdir(parents=True)
    run.write({"run": "r", "created": 1.0, "ended": 2.0, "state": state, "message": "so"})
    monkeypatch.setattr("headway.driver.run.resume", lambda *_, **__: report.load(run))
    done = CliRunner().invoke(app.app, ["resume", "r", "--runs", str(tmp_path / "runs")])
    assert done.exit_code == code, done.output
    going_on = f"{state.title()}. Go on with: headway resume r --runs {tmp_path / 'runs'}"
    assert (going_on in done.output) == (code != 0)


def test_what_a_report_says_of_a_failure(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r")
    run.path.mkdir()
    run.write({"run": "r", "created": 1.0, "state": "failed", "message": "so", "cause": "platform"})
    assert report.load(run).cause == "platform"
    run.write({"run": "r", "created": 1.0, "state": "failed", "message": "so"})
    assert report.load(run).cause is None, "of an earlier release"
