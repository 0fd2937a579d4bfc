"""Compiled models: their weights have plain names in checkpoints and digests, and compiling is no work on a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.loops import Undisturbed, job, rows
from torch import nn

from headway import weights
from headway.elastic.worker.context import Context
from headway.elastic.worker.replica import Replica
from headway.elastic.worker.session import Session


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1))


def whole() -> nn.Module:
    return torch.compile(network(), backend="eager")  # type: ignore[return-value]


def inside() -> nn.Module:
    model = network()
    model[1] = torch.compile(model[1], backend="eager")  # type: ignore[assignment]
    return model


def replica(model: nn.Module) -> Replica:
    return Replica(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5), None, "fp32")


@pytest.mark.parametrize("build", [whole, inside])
def test_a_state_fits_compiled_and_not(build: Any) -> None:
    plain, compiled = replica(network()), replica(build())
    assert list(compiled.snapshot()["model"]) == list(plain.snapshot()["model"])
    assert compiled.names() == plain.names()
    for parameter in plain.model.parameters():
        parameter.data.add_(1.0)
    compiled.load(plain.snapshot())
    assert (compiled.words() == plain.words()).all()
    other = replica(network())
    other.load(compiled.snapshot())
    assert (other.words() == plain.words()).all()


def test_a_state_of_an_earlier_release_has_the_compilers_names() -> None:
    old, new = whole(), replica(whole())
    state = {**new.snapshot(), "model": old.state_dict()}
    assert all(name.startswith(weights.COMPILED) for name in old.state_dict())
    new.load(state)
    plain = network()
    plain.load_state_dict(weights.state_for(plain, old.state_dict()))


def test_compiling_is_a_start(data: Path, tmp_path: Path) -> None:
    """And the run is that of the model as it is, to the bit."""

    def call(compiled: bool) -> Any:
        def own(context: Context) -> Any:
            model = network()
            seen: list[str] = []

            def backend(graph: Any, inputs: Any) -> Any:
                seen.append(context.ledger._cause)
                return graph.forward

            ready = torch.compile(model, backend=backend) if compiled else model
            with Session(context, ready, torch.optim.SGD(ready.parameters(), lr=0.1), None) as session:
                for step in session.steps():
                    for batch in step.lanes():
                        step.backward(session.model(batch["x"].float()).square().mean())
                    assert context.ledger._cause != "start"
            return seen, {weights.plain(key): value.tolist() for key, value in model.state_dict().items()}

        return own

    made = job(data, steps=2)
    seen, compiled = Undisturbed(made, tmp_path / "a", call(True)).result
    assert set(seen) == {"start"}
    _, plain = Undisturbed(made, tmp_path / "b", call(False)).result
    assert compiled == plain
