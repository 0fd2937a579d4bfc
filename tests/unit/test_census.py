"""Whatever is trained is seen when it changes, without walking over all names at each step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from headway.elastic.worker.census import Census
from headway.elastic.worker.replica import Replica
from headway.errors import BadInput


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 1)))


def replaced(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.zeros(3, 2))


def swapped_unseen(model: nn.Sequential) -> None:
    model[0]._parameters["weight"] = nn.Parameter(torch.zeros(3, 2))


def grown(model: nn.Sequential) -> None:
    model[1].append(nn.Linear(1, 1))


def another_module(model: nn.Sequential) -> None:
    model[1][0] = nn.Tanh()


def gone(model: nn.Sequential) -> None:
    del model[1][1].bias


def parametrized(model: nn.Sequential) -> None:
    parametrizations.weight_norm(model[0])


CHANGES = [replaced, swapped_unseen, grown, another_module, gone, parametrized]


@pytest.mark.parametrize("change", CHANGES, ids=lambda each: each.__name__)
def test_a_change_is_seen(change: Callable[[nn.Sequential], None]) -> None:
    model = net()
    census = Census(model)
    model[0].weight.data.fill_(1.0)
    model[0].weight.requires_grad_(False)
    model.eval()
    assert census.holds(), "values and modes are no part of it"
    change(model)
    assert not census.holds()


def test_what_is_frozen_and_let_go_is_known_at_once() -> None:
    model = net()
    replica = Replica(model, torch.optim.SGD(model.parameters(), lr=0.1), None, "fp32")
    assert len(replica.trainable) == 4
    model[0].requires_grad_(False)
    assert len(replica.trainable) == 2
    assert len(replica.known) == 4
    model[0].requires_grad_(True)
    assert len(replica.trainable) == 4


@pytest.mark.parametrize("change", [replaced, swapped_unseen, grown], ids=lambda each: each.__name__)
def test_a_parameter_that_is_made_on_the_way_is_refused(change: Callable[[nn.Sequential], None]) -> None:
    model = net()
    replica = Replica(model, torch.optim.SGD(model.parameters(), lr=0.1), None, "fp32")
    assert len(replica.trainable) == 4
    change(model)
    with pytest.raises(BadInput, match="made after the session began"):
        _ = replica.trainable


def test_one_that_the_optimiser_was_given_is_refused_too() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    replica = Replica(model, optimizer, None, "fp32")
    _ = replica.trainable
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(BadInput, match="made after the session began"):
        _ = replica.trainable
