"""What a plan, and `headway strategies`, say of a job's strategy."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conftest import Run

from headway import plan_words
from headway.job import parse
from headway.strategies.catalogue import COMPRESSIONS, STRATEGIES
from headway.strategies.options import COMPRESSORS, KINDS, OPTIONS, Strategy
from headway.strategies.summary import Summary
from headway.strategies.traffic import Size, copies_per_step, dense, per_step

TREE: dict[str, Any] = {"name": "n", "task": "/x/t.py:T", "data": {"train": "/d"}, "lanes": 8, "steps": 3}
P = 1_000_000


def summary(strategy: Any, workers: int = 4, **more: Any) -> Summary:
    return Summary.of(parse({**TREE, "workers": {"max": workers}, "strategy": strategy, **more}))


def lines(
    strategy: Any, workers: int = 4, parameters: int | None = P, checkpoint: int | None = 12 * P
) -> dict[str, str]:
    return dict(plan_words.lines({"strategy": summary(strategy, workers).shown(parameters, checkpoint)}))


def sent(workers: int = 4, replicas: int = 4, state: int | None = 2 * P, **options: Any) -> float | None:
    return per_step(Strategy.model_validate(options), Size(workers, replicas, P, state))


def test_what_a_sum_over_workers_sends() -> None:
    """A ring's: of w workers each sends (w - 1) / w of the elements to be summed, and as many that are."""
    assert sent(workers=2, kind="all_reduce") == 4 * P
    assert sent(workers=4, kind="all_reduce") == 1.5 * 4 * P == dense(Size(4, 4, P))
    assert sent(workers=1, kind="all_reduce") == 0
    assert sent(kind="all_reduce", compression="fp16") == sent(kind="all_reduce", compression="bf16") == 1.5 * 2 * P
    assert sent(kind="all_reduce", compression="int8") == 1.5 * P
    assert sent(kind="parameter_server") == 1.5 * 4 * P


def test_what_a_choice_sends_grows_with_the_workers() -> None:
    top_k: dict[str, Any] = {"kind": "all_reduce", "compression": {"kind": "top_k", "ratio": 0.01}}
    two, eight = sent(2, 2, **top_k), sent(8, 8, **top_k)
    assert two == pytest.approx(0.06 * P)
    assert eight == pytest.approx(7 * 0.06 * P)
    assert sent(2, 8, **top_k) == pytest.approx(4 * 0.06 * P), "each of a worker's replicas makes its own"


def test_what_rounds_send() -> None:
    assert sent(kind="diloco", every=50) == 1.5 * 4 * P / 50
    assert sent(kind="diloco", every=50, compression="int8") == 1.5 * P / 50
    assert sent(kind="local_sgd", every=8, average="weights") == 1.5 * 4 * P / 8
    assert sent(kind="local_sgd", every=8) == 1.5 * 4 * 3 * P / 8, "with the two states of Adam"
    assert sent(kind="local_sgd", every=8, state=None) is None
    assert sent(kind="gossip", average_every=10) == pytest.approx(0.9 * 2 * 4 * P + 0.1 * 1.5 * 4 * P)
    assert sent(2, 2, kind="gossip", average_every=2) == pytest.approx(4 * P)
    assert sent(kind="gossip", graph="complete", every=2, average_every=4) == pytest.approx(
        (0.75 * 3 * 4 * P + 0.25 * 1.5 * 4 * P) / 2
    )
    assert sent(8, 8, kind="gossip", graph="exponential", average_every=1000) == pytest.approx(3 * 4 * P, rel=1e-2)
    assert sent(2, 8, kind="gossip", average_every=1000) == pytest.approx(2 * 4 * P, rel=1e-2), "two of its four"
    assert sent(1, 4, kind="gossip") == 0


def test_what_is_not_known_beforehand() -> None:
    assert sent(kind="all_reduce", compression="power_sgd") is None
    assert sent(kind="parameter_server", sparse=["tables.*"]) is None


def test_copies_are_of_what_replicas_have_alone() -> None:
    def copies(workers: int = 4, replicas: int = 8, state: int | None = 2 * P, **options: Any) -> float | None:
        return copies_per_step(Strategy.model_validate(options), Size(workers, replicas, P, state))

    assert copies(kind="diloco", every=50) == 2 * 4 * 2 * P / 50
    assert copies(kind="diloco", every=50, state=None) is None
    assert copies(kind="diloco", inner_state="own") == 0
    assert copies(workers=1, kind="diloco") == 0
    assert copies(kind="all_reduce") == 0
    assert copies(kind="local_sgd") == 0, "the state is averaged, and all have it"
    assert copies(kind="local_sgd", average="weights", every=8) == 2 * 4 * 2 * P / 8
    assert copies(kind="gossip") == 2 * 4 * 3 * P, "and weights of its own"


def test_a_plan_says_it() -> None:
    found = lines({"kind": "diloco", "every": 50, "replicas": 4, "inner_state": "own"})
    assert found["strategy"].startswith("diloco: replicas train by themselves for many steps")
    assert "rounds of 50 steps" in found["strategy"]
    assert "outer SGD with rate 0.7 and Nesterov momentum 0.9" in found["strategy"]
    assert found["replicas"] == "4, of lanes 0-1, 2-3, 4-5, 6-7; who carries them makes no difference to the result"
    told = "each of 4 workers sends about 120.0 kB a step, 50 times fewer than with all_reduce (6.0 MB)"
    assert found["sent"] == told
    assert lines({"kind": "diloco", "every": 50})["sent"] == (
        f"{told}; and 160.0 kB of copies, so that a lost worker costs only time"
    )
    assert lines("all_reduce")["sent"] == "each of 4 workers sends about 6.0 MB a step"
    assert "replicas" not in lines("all_reduce")
    assert "1.32 times more than" in lines({"kind": "gossip", "average_every": 20, "inner_state": "own"})["sent"]
    assert "cannot be told beforehand; with all_reduce 6.0 MB" in lines({"compression": "power_sgd"})["sent"]


def test_a_plan_says_nothing_that_is_not_known() -> None:
    assert "sent" not in lines("all_reduce", parameters=None)
    assert "sent" not in lines("all_reduce", workers=1)
    assert dict(plan_words.lines({})) == {}
    quorum = lines({"kind": "diloco", "quorum": 3})
    assert "no difference" not in quorum["replicas"]
    assert "complete with 3 replicas and 1 s of grace" in quorum["strategy"]


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ({"kind": "parameter_server", "consistency": "asp"}, "strategy=parameter_server with asp: updates are made in"),
        ({"kind": "parameter_server", "backup_workers": 1}, "with backup workers: a step leaves out whoever is late"),
        ({"kind": "diloco", "quorum": 3}, "a round leaves out whoever is late"),
        ({"kind": "diloco", "every": 9, "inner_state": "own"}, "costs up to 9 steps of those replicas"),
        ({"replicas": 8}, "strategy.replicas=8 changes nothing"),
    ],
)
def test_what_a_user_should_know_is_noted(strategy: Any, said: str) -> None:
    assert any(said in note for note in summary(strategy).notes())


@pytest.mark.parametrize("strategy", ["all_reduce", "parameter_server", "diloco", {"kind": "diloco", "quorum": 4}])
def test_of_what_holds_nothing_is_noted(strategy: Any) -> None:
    assert [*summary(strategy).notes()] == []


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ({"kind": "parameter_server", "consistency": "ssp"}, "nobody is more than 4 steps ahead of the slowest"),
        ({"kind": "parameter_server", "backup_workers": 1}, "of all replicas but the last one to come; rounds of 50"),
        ({"kind": "parameter_server", "sparse": ["t.*"], "fail_over": False}, "rows of t.* travel alone"),
        ({"kind": "gossip"}, "a graph that is a ring; an average over all in every 10. round"),
        ({"kind": "local_sgd", "average": "weights"}, "weights alone are averaged"),
        ({"compression": {"kind": "top_k", "ratio": 0.001}}, "sent as top_k of 0.100%"),
        ({"compression": {"kind": "top_k", "start_step": 9}}, "sent as top_k of 1%, from step 9 on"),
        ({"compression": {"kind": "int8", "error_feedback": False}}, "what is left out is lost"),
    ],
)
def test_its_words(strategy: Any, said: str) -> None:
    assert said in summary(strategy).shown(None, None)["words"]


def test_every_kind_is_listed(run: Run) -> None:
    assert set(STRATEGIES) == set(KINDS)
    assert set(COMPRESSIONS) == set(COMPRESSORS)
    status, out, _ = run("strategies", "--json")
    found = json.loads(out)
    assert status == 0
    assert [entry["kind"] for entry in found["strategies"]] == list(KINDS)
    assert [entry["kind"] for entry in found["compressions"]] == list(COMPRESSORS)
    diloco = {option["name"]: option for option in found["strategies"][3]["options"]}
    assert set(diloco) == set(OPTIONS["diloco"])
    assert (diloco["every"]["default"], diloco["outer"]["default"]["lr"]) == (50, 0.7)
    assert all(option["means"] for entry in found["strategies"] for option in entry["options"])


def test_the_list_is_for_people(run: Run) -> None:
    status, out, _ = run("strategies")
    assert status == 0
    assert all(f"\n{kind}\n" in f"\n{out}" for kind in (*KINDS, *COMPRESSORS))
    status, out, _ = run("strategies", "top_k")
    assert status == 0
    assert "ratio=0.01: Share of the elements" in " ".join(out.split())
    assert "diloco" not in out
    status, _, error = run("strategies", "top-k")
    assert (status, "Did you mean 'top_k'?" in error) == (2, True)
