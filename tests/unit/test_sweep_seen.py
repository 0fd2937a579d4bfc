"""What is seen of a sweep follows from what its loop hears and asks for, whenever it is read."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from headway.cli.live_sweep import AROUND, SweepLive, chosen, drawn, heading
from headway.sweeps.crew import Holds, Said, Sized
from headway.sweeps.events import (
    Again,
    Ask,
    Clone,
    Failed,
    GoOn,
    Halt,
    Over,
    Pause,
    Reported,
    Spent,
    Start,
    Stop,
    Suggested,
    Width,
)
from headway.sweeps.names import run_of, trial_of
from headway.sweeps.seen import history
from headway.sweeps.seen.keeping import Seen
from headway.sweeps.seen.sight import Sight, ranked, rungs
from headway.sweeps.seen.view import Subject, View

SUBJECT = Subject("digits", "accuracy", "max", trials=4, price=0.36)


class Clock:
    """Unix seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


def hear(sight: Sight, at: float, *pairs: tuple) -> None:
    for event, *actions in pairs:
        sight.heard(at, event, actions)


def small(seen: Seen, clock: Clock) -> None:
    """Four trials: one goes its whole way, one is stopped, one fails, one diverges."""
    told = [
        (Width(2), Ask(1)),
        (Suggested(1, {"optimizer.lr": 0.1}), Start(1, {"optimizer.lr": 0.1}, 20), Ask(2)),
        (Suggested(2, {"optimizer.lr": 0.5}), Start(2, {"optimizer.lr": 0.5}, 20)),
        (Reported(1, 20, {"accuracy": 0.6}, True), Pause(1, "1st of 1 at step 20")),
        (Reported(2, 20, {"accuracy": 0.7}, True), GoOn(2, 80)),
        (Failed(1, 20, "task", "ValueError: no"), Stop(1, "failed", "ValueError: no")),
        (Suggested(3, {"optimizer.lr": 9.0}), Start(3, {"optimizer.lr": 9.0}, 20)),
        (Reported(3, 20, {"accuracy": math.nan}, True), Stop(3, "stopped", "not among the best")),
        (Reported(2, 80, {"accuracy": 0.9}, True), Stop(2, "finished", "")),
        (Halt("by ann", False), Over("stopped", "by ann")),
    ]
    for number, (event, *actions) in enumerate(told, 1):
        seen.heard(number, event, actions)
        seen.news([Holds({"digits.0002": 2}, {"digits.0002": 50}, {"compute": 10.0 * number})])
        clock.at += 10.0


def test_a_run_of_a_sweep_says_whose_it_is() -> None:
    assert run_of("digits", 7) == "digits.0007"
    assert run_of("digits", 12345, 2) == "digits.12345-2"
    for name in [("digits", 7, 1), ("a.0001-b", 12345, 2)]:
        assert trial_of(run_of(*name)) == name
    assert trial_of("digits-20260102") is None


def test_states_values_and_reasons_follow_the_loop(tmp_path: Path) -> None:
    clock = Clock()
    seen = Seen.begin(tmp_path, SUBJECT, clock=clock)
    small(seen, clock)
    view = seen.view()
    assert {number: trial.state for number, trial in view.trials.items()} == {1: "failed", 2: "finished", 3: "diverged"}
    assert view.trials[1].why == "ValueError: no"
    assert view.trials[2].why == ""
    assert view.best is view.trials[2]
    assert (view.best.best, view.best.best_step, view.best.rung) == (0.9, 80, 2)
    assert (view.state, view.message) == ("stopped", "by ann")
    assert rungs(view.trials) == {20: [1, 2, 3], 80: [2]}
    assert [trial.number for trial in ranked(view.trials.values(), SUBJECT)] == [2, 1, 3]


def test_who_held_how_many_workers_adds_up(tmp_path: Path) -> None:
    clock = Clock()
    seen = Seen.begin(tmp_path, SUBJECT, clock=clock)
    small(seen, clock)
    trial = seen.view().trials[2]
    assert trial.held[0][1] == 2
    assert trial.worker_s == pytest.approx(2 * (clock.at - 1_000_000.0 - trial.held[0][0]))
    assert seen.view().ledger_s == {"compute": 100.0}
    assert seen.view().dollars == pytest.approx(seen.view().worker_s / 3600 * 0.36)


def test_what_was_kept_reads_back_as_the_same(tmp_path: Path) -> None:
    clock = Clock()
    seen = Seen.begin(tmp_path, SUBJECT, clock=clock)
    small(seen, clock)
    seen.close("stopped", "by ann")
    found = history.read(tmp_path / history.FILE)
    assert found is not None
    sight, last = found
    assert last == 10
    one, other = sight.view(), seen.view()
    assert repr(one.trials) == repr(other.trials)  # NaN is not equal to itself
    assert (one.state, one.worker_s, one.ledger_s) == (other.state, other.worker_s, other.ledger_s)


def test_a_sweep_that_is_taken_up_again_goes_on_in_its_history(tmp_path: Path) -> None:
    """The time without a driver counts for nobody, replayed events are passed over, lost ones are made up for."""
    clock = Clock()
    first = Seen.begin(tmp_path, SUBJECT, clock=clock)
    config = {"optimizer.lr": 0.1}
    first.heard(1, Suggested(1, config), [Start(1, config, 20)])
    first.news([Holds({"digits.0001": 4}, {}, {"compute": 7.0})])
    clock.at += 5.0
    first.heard(2, Spent(8.0, 5.0), [])
    with (tmp_path / history.FILE).open("a") as file:
        file.write('{"at": 1000005.0, "n": 3, "ev')  # the driver was killed here
    clock.at += 1000.0
    again = Seen.begin(tmp_path, SUBJECT, clock=clock)
    assert again.view().trials[1].state == "paused"
    assert again.view().trials[1].workers == 0
    for number, event in enumerate(
        [Suggested(1, config), Spent(8.0, 5.0), Reported(1, 20, {"accuracy": 0.5}, True)], 1
    ):
        again.heard(number, event, [])
    view = again.view()
    assert view.trials[1].value == 0.5
    assert view.seconds == pytest.approx(5.0)
    assert view.trials[1].worker_s == pytest.approx(20.0)
    again.news([Holds({"digits.0001": 1}, {}, {"compute": 3.0})])
    assert again.view().ledger_s == {"compute": 10.0}


def test_trials_that_are_placed_again_are_seen_to_run(tmp_path: Path) -> None:
    clock, config = Clock(), {"optimizer.lr": 0.1}
    first = Seen.begin(tmp_path, SUBJECT, clock=clock)
    first.heard(1, Suggested(1, config), [Start(1, config, 20)])
    again = Seen.begin(tmp_path, SUBJECT, clock=clock)
    assert again.view().trials[1].state == "paused"
    again.placed([Start(1, config, 20)])
    trial = again.view().trials[1]
    assert (trial.state, trial.why, trial.until) == ("running", "", 20)


def test_a_trial_without_a_job_has_failed_and_says_why(tmp_path: Path) -> None:
    seen = Seen.begin(tmp_path, SUBJECT, clock=Clock())
    seen.heard(1, Suggested(1, {"optimizer.lr": 9.0}, "lr is too large"), [])
    assert (seen.view().trials[1].state, seen.view().trials[1].why) == ("failed", "lr is too large")


def test_a_trial_that_could_not_leave_in_order_is_paused_still(tmp_path: Path) -> None:
    seen, config = Seen.begin(tmp_path, SUBJECT, clock=Clock()), {"optimizer.lr": 0.1}
    seen.heard(1, Suggested(1, config), [Start(1, config, 20)])
    seen.heard(2, Reported(1, 20, {"accuracy": 0.5}, True), [Pause(1, "1st of 1")])
    seen.heard(3, Failed(1, 20, "platform", "the disk is on fire"), [])
    assert (seen.view().trials[1].state, seen.view().trials[1].why) == ("paused", "1st of 1")


def test_a_trial_that_took_over_weights_says_whose() -> None:
    sight = Sight(SUBJECT)
    sight.begun(0.0)
    hear(sight, 1.0, (Reported(1, 20, {"accuracy": 0.1}, True), Clone(1, 2, 20, {"optimizer.lr": 0.3}, 40)))
    trial = sight.trials[1]
    assert (trial.origin, trial.settings, trial.until, trial.state) == ((2, 20), {"optimizer.lr": 0.3}, 40, "running")


def test_an_end_by_its_own_account_is_no_evaluation_more() -> None:
    sight, start = Sight(SUBJECT), Start(1, {"optimizer.lr": 0.1}, 40)
    sight.begun(0.0)
    passed, ended = Reported(1, 20, {"accuracy": 0.1}, False), Reported(1, 20, {"accuracy": 0.1}, True)
    clone = Clone(1, 2, 12, {"optimizer.lr": 0.3}, 40)
    hear(sight, 1.0, (Suggested(1, {"optimizer.lr": 0.1}), start), (passed,), (ended, Stop(1, "finished", "")))
    assert [point.step for point in sight.trials[1].points] == [20]
    assert sight.trials[1].state == "finished"
    hear(sight, 2.0, (passed, clone), (Reported(1, 20, {"accuracy": 0.3}, True),))
    assert sight.trials[1].value == 0.3, "with another's weights it is one"


def test_a_trial_that_failed_and_is_tried_again_waits_for_its_turn() -> None:
    sight = Sight(SUBJECT)
    sight.begun(0.0)
    failed = (
        Failed(1, 30, "task", "ValueError: no"),
        Stop(1, "failed", "ValueError: no"),
        Over("failed", "one failed"),
    )
    hear(sight, 1.0, (Reported(1, 20, {"accuracy": 0.9}, True),), failed)
    assert (sight.state, sight.trials[1].state) == ("failed", "failed")
    hear(sight, 2.0, (Again(1), GoOn(1, 80)))
    assert (sight.state, sight.trials[1].state, sight.trials[1].why) == ("running", "running", "")
    assert sight.best is sight.trials[1]


def test_the_best_is_never_one_that_diverged_later() -> None:
    sight = Sight(SUBJECT)
    sight.begun(0.0)
    hear(
        sight,
        1.0,
        (Reported(1, 20, {"accuracy": 0.9}, True),),
        (Reported(2, 20, {"accuracy": 0.5}, True),),
        (Failed(1, 30, "diverged", "loss is nan"),),
    )
    assert sight.best is sight.trials[2]


def many(count: int) -> View:
    sight = Sight(Subject("big", "loss", "min", trials=count))
    sight.begun(0.0)
    for trial in range(1, count + 1):
        config = {"optimizer.lr": 0.1 * trial, "arguments.width": trial}
        hear(sight, trial * 1.0, (Suggested(trial, config), Start(trial, config, 20)))
        if trial % 10:
            verdict = Pause(trial, "8th of 9 at step 20, the best 2 go on") if trial % 3 else Stop(trial, "stopped", "")
            hear(sight, trial * 1.0, (Reported(trial, 20, {"loss": 1.0 / trial}, True), verdict))
    return sight.view()


@pytest.mark.parametrize("count", [3, 3000])
@pytest.mark.parametrize("size", [(40, 8), (80, 24), (200, 60)])
def test_the_table_fits_any_terminal(count: int, size: tuple[int, int]) -> None:
    width, height = size
    view = many(count)
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(drawn(view, width, height))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    shown, left = chosen(view, height - AROUND)
    assert view.best in shown
    assert len(shown) == min(count, height - AROUND)
    assert bool(left) == (count > len(shown))


@pytest.mark.parametrize("width", [70, 110, 130])
def test_reasons_and_settings_leave_room_for_the_rest(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    console.print(drawn(many(9), width, 24))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[1].split()[:6] == ["trial", "state", "rung", "step", "loss", "workers"]
    assert lines[2].split()[:5] == ["8", "paused", "1", "20", "0.125"]


def test_a_wide_table_says_settings_and_reasons() -> None:
    console = Console(file=io.StringIO(), width=200, height=40, force_terminal=True, color_system=None)
    console.print(drawn(many(9), 200, 40))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "the best 2 go on" in text
    assert "lr 0.4" in text


def test_without_a_terminal_there_are_lines_of_what_matters() -> None:
    console = Console(file=io.StringIO(), width=200, soft_wrap=True)
    clock = Clock()
    with SweepLive(console) as live:
        sight = Sight(SUBJECT)
        sight.begun(clock.at)
        hear(sight, clock.at, (Reported(1, 20, {"accuracy": 0.5}, True),))
        sight.room = 4
        live.update(sight.view())
        hear(sight, clock.at, (Failed(2, 3, "task", "ValueError: [bold]no"),))
        sight.over(clock.at, "finished", "")
        live.update(sight.view())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "best so far: trial 1, accuracy 0.5 at step 20" in text
    assert "trial 2 failed: ValueError: [bold]no" in text
    assert "2 trials" not in text.splitlines()[-1]
    assert text.splitlines()[-1].startswith("digits: 1 of 4 trials over")


def test_a_thousand_trials_are_followed_quickly(tmp_path: Path) -> None:
    """No work grows with the number of trials but a picture's."""
    clock = Clock()
    seen = Seen.begin(tmp_path, Subject("big", "loss", "min"), clock=clock)
    for trial in range(1, 1001):
        seen.heard(2 * trial - 1, Suggested(trial, {"x": 1.0}), [Start(trial, {"x": 1.0}, 20)])
        seen.heard(2 * trial, Reported(trial, 20, {"loss": 1.0}, True), [Stop(trial, "stopped", "")])
        seen.news([Holds({run_of("big", trial): 1}, {run_of("big", trial): 20}, {"compute": 1.0 * trial})])
        clock.at += 0.01
    assert seen.view().over == 1000


def test_news_say_room_and_lines(tmp_path: Path) -> None:
    views: list[View] = []
    seen = Seen.begin(tmp_path, SUBJECT, watch=views.append)
    seen.news([Sized(8), Said("digits.0001", "lost w1: its node is gone"), Said(None, "a note")])
    assert views[-1].room == 8
    assert views[-1].messages == ("digits.0001: lost w1: its node is gone", "a note")
    assert "digits: 0 of 4 trials over" in heading(views[-1])
