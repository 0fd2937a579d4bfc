"""The contract of a scheduler: what `headway.sweeps.schedule.protocol.Scheduler` promises, as tests.

A scheduler supplies one fixture, `make`, and inherits every test:

    class TestMine(SchedulerContract):
        @pytest.fixture
        def make(self) -> Make:
            return lambda mode, trials: Mine(mode, trials)

`make` is given the metric's mode and the number of trials to come. Trials are `LENGTH` steps long and are evaluated at
every step; their settings are those of `SPACE`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headway.sweeps.events import Config
from headway.sweeps.schedule.protocol import Exploit, Scheduler, Verdict
from headway.sweeps.space import parse

Make = Callable[[Any, int], Scheduler]
LENGTH = 32
SPACE = parse({"optimizer.lr": {"loguniform": [1e-4, 1e-1]}, "optimizer.momentum": {"uniform": [0.0, 0.99]}})

Loss = Callable[[int, Config, int], float]
"""Of a trial by its number, with settings, after some steps."""


def loss_of(trial: int, config: Config, step: int) -> float:
    """Falls with the steps, the lower the better the settings."""
    rate, momentum = float(config["optimizer.lr"]), float(config["optimizer.momentum"])
    return (math.log10(rate) + 2) ** 2 + abs(momentum - 0.9) + 3 / (step + 1)


def settings_of(trial: int) -> Config:
    chance = random.Random(f"settings {trial}")
    return SPACE.walk(lambda key, of: of.at(chance.random()))


@dataclass
class Player:
    """A sweep without machines: some places, on each a trial that comes to its gate when chance says so.

    Args:
        scheduler: that is asked.
        trials: to be begun at most; the searcher has no more.
        width: places.
        loss: of a trial.
        sign: 1 of a metric that is to be small, -1 of one that is to be large.
        fails: trials that fail, by number: at the first gate, or, where it is 0, before they begin.
        seed: of whose turn it is.

    Attributes:
        said: all that the scheduler said, in order.
        state: of each trial: waits, runs, paused, whole, stopped, failed.
        steps: of each trial.
        slowest_s: seconds of its thread's processor time of its slowest answer.
    """

    scheduler: Scheduler
    trials: int
    width: int = 4
    loss: Loss = loss_of
    sign: float = 1.0
    fails: dict[int, int] = field(default_factory=dict)
    seed: int = 0
    said: list[Any] = field(default_factory=list)
    state: dict[int, str] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    configs: dict[int, Config] = field(default_factory=dict)
    slowest_s: float = 0.0

    def play(self, turns: int | None = None) -> Player:
        """Until it is over, or for so many turns."""
        chance = random.Random(self.seed)
        done = 0
        while self._fill() and (turns is None or done < turns):
            done += 1
            running = sorted(trial for trial, state in self.state.items() if state == "runs")
            self._turn(chance.choice(running))
        return self

    def _ask(self, what: Callable[[], Any]) -> Any:
        began = time.thread_time()
        answer = what()
        self.slowest_s = max(self.slowest_s, time.thread_time() - began)
        self.said.append(answer)
        return answer

    def _fill(self) -> bool:
        """Give free places away; whether anybody runs then."""
        while self._running() < self.width:
            chosen = self._ask(self.scheduler.choose)
            if chosen is None and len(self.state) < self.trials:
                self._add(len(self.state) + 1)
                continue
            if chosen is None and not self._running():
                chosen = self._ask(self.scheduler.finale)
            if chosen is None:
                break
            assert self.state[chosen] in ("waits", "paused"), f"trial {chosen} {self.state[chosen]}, and is chosen"
            self.state[chosen] = "runs"
        return self._running() > 0

    def _running(self) -> int:
        return sum(state == "runs" for state in self.state.values())

    def _add(self, trial: int) -> None:
        self.state[trial], self.steps[trial], self.configs[trial] = "waits", 0, settings_of(trial)
        self.scheduler.added(trial, self.configs[trial], LENGTH)
        if self.fails.get(trial) == 0:
            self._end(trial, "failed", None)

    def _turn(self, trial: int) -> None:
        """A trial comes to its gate."""
        gate = self._ask(lambda: self.scheduler.gate(trial, self.steps[trial]))
        assert self.steps[trial] < gate <= LENGTH, f"a gate at {gate} after {self.steps[trial]} steps"
        self.steps[trial] = gate
        if trial in self.fails:
            self._end(trial, "failed", None)
            return
        value = self.sign * self.loss(trial, self.configs[trial], gate)
        if gate == LENGTH:
            self._end(trial, "stopped" if math.isnan(value) else "whole", value)
            return
        verdict, why = self._ask(lambda: self.scheduler.reported(trial, gate, value))
        assert why
        if isinstance(verdict, Exploit):
            assert verdict.source != trial
            assert SPACE.fault(verdict.config) == ""
            self.configs[trial], self.steps[trial] = verdict.config, self.steps[verdict.source]
        elif verdict is Verdict.PAUSE:
            self.state[trial] = "paused"
        elif verdict is Verdict.STOP:
            self._end(trial, "stopped", value)
        self._drop()

    def _end(self, trial: int, state: str, value: float | None) -> None:
        self.state[trial] = state
        self.scheduler.ended(trial, self.steps[trial], value)
        self._drop()

    def _drop(self) -> None:
        for trial in self._ask(self.scheduler.given_up):
            assert self.state[trial] == "paused", f"trial {trial} {self.state[trial]}, and is given up"
            self.state[trial] = "stopped"
            self.scheduler.ended(trial, self.steps[trial], None)

    @property
    def whole(self) -> list[int]:
        """Trials that went their whole way."""
        return [trial for trial, state in self.state.items() if state == "whole"]


class SchedulerContract:
    """Every test of the contract; a subclass supplies the fixture `make`.

    Attributes:
        trials: of a sweep.
        many: of a large one.
        thrifty: it ends, or leaves, trials that are not good.
    """

    trials = 20
    many = 500
    thrifty = True

    def test_a_sweep_comes_to_its_end(self, make: Make) -> None:
        for width in (1, 4, 50):
            end = Player(make("min", self.trials), self.trials, width).play()
            assert len(end.state) == self.trials
            assert not {"waits", "runs"} & set(end.state.values())
            assert end.whole

    def test_it_ends_where_fewer_trials_come_than_were_announced(self, make: Make) -> None:
        for trials in (1, 2, 3, self.trials - 1):
            end = Player(make("min", self.trials), trials).play()
            assert not {"waits", "runs"} & set(end.state.values())
            assert end.whole

    def test_the_same_calls_give_the_same_answers(self, make: Make) -> None:
        one, other = (Player(make("min", self.trials), self.trials, fails={3: 1, 5: 0}).play() for _ in range(2))
        assert one.said == other.said
        assert one.state == other.state

    def test_one_that_heard_the_same_goes_on_the_same(self, make: Make) -> None:
        """What a sweep that is taken up again does: a new one is told all that was told to the old one."""
        whole = Player(make("min", self.trials), self.trials).play()
        for turns in (1, 7, 20):
            part = Player(make("min", self.trials), self.trials).play(turns)
            assert part.said == whole.said[: len(part.said)]

    def test_large_is_to_small_as_max_is_to_min(self, make: Make) -> None:
        small = Player(make("min", self.trials), self.trials).play()
        large = Player(make("max", self.trials), self.trials, sign=-1.0).play()
        assert small.state == large.state

    def test_good_trials_go_further(self, make: Make) -> None:
        if not self.thrifty:
            return
        end = Player(make("min", self.trials), self.trials).play()
        ranked = sorted(end.state, key=lambda trial: loss_of(trial, settings_of(trial), LENGTH))
        third = len(ranked) // 3
        best, worst = (sum(end.steps[trial] for trial in part) for part in (ranked[:third], ranked[-third:]))
        assert best > worst

    def test_what_diverged_goes_no_further(self, make: Make) -> None:
        def loss(trial: int, config: Config, step: int) -> float:
            return math.nan if trial % 3 == 0 and step > 3 else loss_of(trial, config, step)

        end = Player(make("min", self.trials), self.trials, loss=loss).play()
        assert {end.state[trial] for trial in end.state if trial % 3 == 0} <= {"stopped", "paused"}
        assert end.whole

    def test_all_may_diverge(self, make: Make) -> None:
        end = Player(make("max", self.trials), self.trials, loss=lambda *_: math.nan).play()
        assert set(end.state.values()) == {"stopped"}

    def test_all_may_fail(self, make: Make) -> None:
        fails = {trial: trial % 2 for trial in range(1, self.trials + 1)}
        end = Player(make("min", self.trials), self.trials, fails=fails).play()
        assert set(end.state.values()) == {"failed"}

    def test_paused_ones_may_fail(self, make: Make) -> None:
        """The state of one that waits is lost for good, with all others at their gates."""
        player = Player(make("min", self.trials), self.trials, width=3).play(self.trials)
        for trial in [trial for trial, state in player.state.items() if state == "paused"]:
            player._end(trial, "failed", None)
        player.play()
        assert not {"waits", "runs"} & set(player.state.values())

    def test_ties_are_settled(self, make: Make) -> None:
        one, other = (Player(make("min", self.trials), self.trials, loss=lambda *_: 1.0).play() for _ in range(2))
        assert one.said == other.said
        assert one.whole

    def test_the_generators_of_others_are_left_alone(self, make: Make) -> None:
        random.seed(4)
        np.random.seed(4)
        before, numpys = random.getstate(), repr(np.random.get_state())
        Player(make("min", self.trials), self.trials).play()
        assert random.getstate() == before
        assert repr(np.random.get_state()) == numpys

    def test_its_rungs_name_trials_that_were_there(self, make: Make) -> None:
        player = Player(make("min", self.trials), self.trials).play()
        for step, trials in player.scheduler.rungs.items():
            assert len(set(trials)) == len(trials)
            assert all(player.steps[trial] >= step for trial in trials)

    def test_many_trials_take_it_little_time(self, make: Make) -> None:
        """In processor time, with room for a machine that does other things: milliseconds for each answer."""
        began = time.thread_time()
        end = Player(make("min", self.many), self.many, width=32).play()
        assert (time.thread_time() - began) / len(end.said) < 0.02
