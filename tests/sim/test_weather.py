"""The real watch and membership in bad weather, under a virtual clock: nobody well is killed, the lost are found."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from headway.cli.app import app
from headway.core.membership import Policy
from headway.core.watch import Patience
from headway.sim.air import HEAD, Fault
from headway.sim.doubt import PATIENCE, doubt
from headway.sim.weather import Weather

SILENCE = PATIENCE.silence_s
ALL = ("n1", "n2", "n3")


def weather(*faults: Fault, nodes: tuple[str, ...] = ALL, most: int = 3, minimum: int = 1, seed: int = 0) -> Weather:
    return Weather(Policy(12, minimum, most, patience=PATIENCE), nodes, list(faults), seed=seed)


def longest_pause(found: Weather) -> float:
    """Seconds between two commits, the longest."""
    times = sorted({c[0] for c in found.commits})
    return max(b - a for a, b in itertools.pairwise(times))


def test_2_4_a_quiet_run_has_one_generation() -> None:
    found = weather()
    found.run(60.0)
    assert len(found.generations) == 1
    assert found.killed == found.gone == []
    assert longest_pause(found) <= 0.6


@pytest.mark.parametrize("kind", ["cut", "in", "out"])
@pytest.mark.parametrize("seconds", [1.0, 3.0, 10.0])
def test_2_4_the_heads_own_link_is_down(kind: str, seconds: float) -> None:
    """The workers still exchange, and need nothing from the head meanwhile."""
    found = weather(Fault(kind, 20.0, 20.0 + seconds, (HEAD,)))
    found.run(60.0)
    assert found.killed == []
    assert len(found.generations) == 1
    assert longest_pause(found) <= 0.6


@pytest.mark.parametrize("kept", [0.0, 1.0])
@pytest.mark.parametrize("machine", [(), (HEAD,)])
def test_2_4_the_head_stands_still(kept: float, machine: tuple[str, ...]) -> None:
    for seconds in (1.0, 5.0, 10.0):
        found = weather(Fault("freeze", 20.0, 20.0 + seconds, machine, kept), nodes=(HEAD, "n1", "n2"))
        found.run(60.0)
        assert found.killed == []


def test_2_4_all_links_away_for_three_seconds_repeat_nothing() -> None:
    found = weather(Fault("cut", 20.0, 23.0, (*ALL, HEAD)))
    found.run(60.0)
    assert found.killed == []
    assert len(found.generations) == 1, "no exchange was broken, and no step is done again"
    assert longest_pause(found) <= 4.0


def test_2_4_a_worker_beside_the_head_accuses_nobody_when_the_heads_link_was_down() -> None:
    """It cannot reach the others, nor they it; the head hears it alone. None of them is to blame."""
    found = weather(Fault("cut", 20.0, 28.0, (HEAD,)), nodes=(HEAD, "n1", "n2"))
    found.run(60.0)
    assert found.killed == []
    assert found.commits[-1][0] > 59.0


@pytest.mark.parametrize("kind", ["cut", "in", "out"])
def test_2_4_one_cut_link_is_found_in_time(kind: str) -> None:
    found = weather(Fault(kind, 20.0, 1e9, ("n1",)))
    found.run(40.0)
    assert [(w, cause) for _, w, cause in found.gone] == [("w0", "link_cut")]
    assert found.gone[0][0] <= 20.0 + SILENCE + 0.5
    assert longest_pause(found) <= 4.0


def test_2_4_a_process_that_dies_is_known_at_once() -> None:
    found = weather()
    found.run(20.0)
    found.kill("w1")
    found.run(30.0)
    assert [g for g in found.gone if g[0] <= 20.2] == [(20.1, "w1", "process_died")]
    assert longest_pause(found) <= 1.5


def test_2_4_a_node_lost_while_the_head_is_doubted_is_found_after() -> None:
    found = weather(Fault("cut", 20.0, 28.0, (HEAD,)))
    found.run(24.0)
    found.lose_node("n2")
    found.run(60.0)
    assert [(w, cause) for _, w, cause in found.gone] == [("w1", "link_cut")]
    assert 28.0 < found.gone[0][0] <= 28.0 + SILENCE + 1.0
    assert {c[1] for c in found.commits if c[0] > 55.0} == {"w0", "w2"}


def test_2_4_a_silence_of_all_is_believed_in_the_end() -> None:
    found = weather(Fault("cut", 20.0, 1e9, (HEAD,)))
    found.run(20.0 + PATIENCE.lost_s - 1.0)
    assert found.gone == []
    found.run(20.0 + PATIENCE.lost_s + 1.0)
    assert len(found.gone) == 3


def test_2_7_two_workers_that_cannot_reach_each_other() -> None:
    found = weather(Fault("part", 20.0, 1e9, ("n1", "n2")))
    found.run(60.0)
    assert [(w, why) for _, w, why in found.killed] == [("w1", "parted")]
    assert longest_pause(found) <= 5.0, "3.2 s of it until they are sure"
    assert {c[1] for c in found.commits if c[0] > 55.0} == {"w0", "w2"}


def test_2_7_one_that_cannot_reach_any_other_is_the_one_that_goes() -> None:
    faults = [Fault("part", 20.0, 1e9, ("n1", n)) for n in ("n2", "n3", "n4")]
    found = weather(*faults, nodes=("n1", "n2", "n3", "n4"), most=4)
    found.run(60.0)
    assert [(w, why) for _, w, why in found.killed] == [("w0", "parted")]


def test_2_8_a_process_that_is_stopped_for_good_is_found() -> None:
    found = weather(Fault("stop", 20.0, 1e9, ("w1",)))
    found.run(40.0)
    assert [(w, cause) for _, w, cause in found.gone] == [("w1", "stopped")]
    assert found.gone[0][0] <= 20.0 + 2 * SILENCE + 0.5


def test_2_8_a_lone_worker_that_is_busy_is_left_alone() -> None:
    found = weather(Fault("lock", 20.0, 220.0, ("w0",)), nodes=("n1",), most=1)
    found.run(240.0)
    assert found.killed == []
    assert found.commits[-1][0] > 239.0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_2_19_no_generation_trains_beside_another(seed: int) -> None:
    no_generation_trains_beside_another(seed)


@pytest.mark.slow
def test_2_19_no_generation_trains_beside_another_in_many_runs() -> None:
    beside = sum(no_generation_trains_beside_another(seed) for seed in range(150))
    assert beside >= 20, "so many runs had a generation with nobody of the one before"


def no_generation_trains_beside_another(seed: int) -> bool:
    """Workers are cut from the head for long, one by one or together, and there is room for others.

    Returns:
        Whether a generation began with nobody of the one before.
    """
    chance = random.Random(seed)
    most = chance.randint(1, 3)
    nodes = tuple(f"n{i % chance.randint(1, 3)}" for i in range(most))
    faults, at = [], 10.0
    for node in sorted(set(nodes)):
        at += chance.choice([0.0, 0.3, 1.0, 3.0])
        faults.append(Fault("part", at, at + chance.choice([3.0, 30.0, 200.0]), (node, HEAD)))
    patience = Patience.of(2.0, 60.0, 300.0)
    found = Weather(Policy(6, 1, most, patience=patience), (*nodes, "m0", "m1", "m2"), faults, seed=seed)
    found.run(120.0)
    assert found.beside() == [], f"seed {seed}"
    fresh = [g for _, g in found.generations[1:] if not set(g.members) & {f"w{i}" for i in range(most)}]
    return bool(fresh)


def cut_one_by_one() -> Weather:
    """Two workers that still reach each other are lost to the head, not at once; there is room for two."""
    faults = [Fault("part", at, 1e9, (node, HEAD)) for at, node in ((10.0, "n1"), (11.5, "n2"))]
    return weather(*faults, nodes=("n1", "n2", "n3", "n4"), most=2)


def test_2_19_who_begins_anew_waits_for_the_last_lease() -> None:
    found = cut_one_by_one()
    found.run(60.0)
    assert found.beside() == []
    assert max(at for at, w, _, _ in found.commits if w in ("w0", "w1")) > 20.0, "the old ones trained on meanwhile"
    assert {w for at, w, _, _ in found.commits if at > 50.0} == {"w2", "w3"}


def test_2_19_the_check_can_fail() -> None:
    """Without a fence they do train beside each other."""
    found = cut_one_by_one()
    found.machine._fenced = lambda wanted, at: False  # type: ignore[method-assign]
    found.run(60.0)
    assert found.beside()


@pytest.mark.parametrize("first", range(0, 20, 5))
def test_2_4_healthy_runs_in_bad_weather_kill_nobody(first: int) -> None:
    for seed in range(first, first + 5):
        found = doubt(seed)
        assert found.killed == 0, found
        assert found.resumed, found


@pytest.mark.long
@pytest.mark.slow
def test_2_4_two_hundred_healthy_runs_in_bad_weather_kill_nobody() -> None:
    done = [doubt(seed) for seed in range(200)]
    print(f"seeds 0 to 199: {sum(len(d.faults) for d in done)} faults, {sum(d.doubt_s for d in done):.0f} s of doubt")
    assert [d for d in done if d.killed or not d.resumed] == []
    assert sum(d.doubt_s for d in done) > 100.0


def test_the_same_seed_gives_the_same_weather() -> None:
    assert doubt(7) == doubt(7)


def test_the_command() -> None:
    done = CliRunner().invoke(app, ["simulate", "--doubt", "2", "--seed", "5", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["seeds"] == [5, 6]
    assert told["killed"] == 0
