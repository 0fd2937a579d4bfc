"""Around the plain loop, on a GPU: several optimisers, closures, parts of batches, compiled models, averaged weights,
metrics that are no means, rows of the user's own; and a whole run in one process, whose model is then used."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.gpu.around import Act, own_rows, worked
from tests.gpu.device import DEVICE, REHEARSAL, device, gpu_only
from tests.gpu.loop import STEPS, alone, job_of
from tests.unit.trained import TASK, points

from headway.data.read.streams import open_readers
from headway.elastic.worker import batches
from headway.strategies.group import Group
from headway.testing.company import Generation
from headway.testing.workers import Crew

pytestmark = device

PRECISIONS = ("fp32", "bf16", "fp16")
Found = dict[str, Any]


def same(found: Found, wanted: Found) -> None:
    """To the bit, the optimisers' states and the averages too."""
    assert found["step"] == wanted["step"]
    for key in ("state", "averages"):
        assert found[key] == wanted[key]
    for key in ("words", "weights", "rates", "scale", "finished", "devices"):
        assert found[key] == wanted[key], key


def again_and_in_parts(processes: Crew, act: Act, folder: Path, data: str, until: int = 3) -> list[Found]:
    """A run that is done twice, and once more with a checkpoint in its middle that it goes on from: all of the same
    bits. Returns what the first ends with, and what the two parts do."""
    cut = Act(**{**vars(act), "until": until})
    acts = [("first", act), ("again", act), ("parts", cut), ("parts", act)]
    first, again, begun, ended = processes(alone, 1, acts, str(folder), data, worked)[0]
    assert all(math.isfinite(step["loss"]) for step in first["steps"])
    assert first["devices"] == [DEVICE]
    same(again, first)
    assert (again["steps"], again["evaluations"]) == (first["steps"], first["evaluations"])
    assert begun["step"] == until
    same(ended, first)
    assert begun["steps"] + ended["steps"] == first["steps"]
    assert begun["evaluations"] + ended["evaluations"] == first["evaluations"]
    return [first, begun, ended]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_optimisers_take_turns(processes: Crew, precision: str, tmp_path: Path, data: str) -> None:
    act = Act(DEVICE, task="Gan", fields={"precision": precision})
    first, *_ = again_and_in_parts(processes, act, tmp_path, data)
    assert first["step"] == STEPS
    # In step 1 the critic's two updates are left out, each of which halves the scale.
    assert first["scale"] == (2.0**14 if precision == "fp16" else 1.0)
    assert first["rates"] == [1e-3, 1e-3 * 0.5 ** (STEPS // 3)]


@pytest.mark.parametrize(("task", "fields"), [
    ("Gan", {"precision": "fp16"}), ("Gan", {"precision": "bf16"}),
    ("Search", {"clip_norm": None}), ("Nets", {"accumulate": 2}),
])  # fmt: skip
def test_two_workers_end_as_one(processes: Crew, task: str, fields: dict[str, Any], tmp_path: Path, data: str) -> None:
    """Over gloo, which lets two have one device; one of them is lost in a step, between two of its updates where it has
    several."""
    act = Act(DEVICE, task=task, fields=fields)
    (wanted,) = processes(alone, 1, [("one", act)], str(tmp_path), data, worked)[0]
    (tmp_path / "two").mkdir()
    script = (Generation((0, 1)), Generation((0,)))
    lost = Act(DEVICE, script, task=task, fields=fields, dies=((1, 5),))
    found, gone = processes(worked, 2, lost, str(tmp_path / "two"), data)
    assert gone is None
    assert (found["been"], found["told"]) == ([1, 2], [])
    same(found, wanted)
    assert (found["steps"], found["evaluations"]) == (wanted["steps"], wanted["evaluations"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_closure_is_evaluated_again_and_again(processes: Crew, precision: str, tmp_path: Path, data: str) -> None:
    act = Act(DEVICE, task="Search", fields={"precision": precision, "clip_norm": None})
    first, *_ = again_and_in_parts(processes, act, tmp_path, data)
    losses = [step["loss"] for step in first["steps"]]
    assert min(losses[4:]) < losses[0] / 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_in_parts(processes: Crew, precision: str, tmp_path: Path, data: str) -> None:
    act = Act(DEVICE, fields={"precision": precision, "accumulate": 2})
    first, *_ = again_and_in_parts(processes, act, tmp_path, data)
    assert first["step"] == STEPS
    assert first["scale"] == (2.0**15 if precision == "fp16" else 1.0)


def test_parts_are_the_mathematics_of_the_whole(processes: Crew, tmp_path: Path, data: str) -> None:
    acts = [(str(n), Act(DEVICE, task="Wide", fields={"accumulate": n})) for n in (1, 2, 4)]
    whole, *others = processes(alone, 1, acts, str(tmp_path), data, worked)[0]
    for found in others:
        assert [s["samples"] for s in found["steps"]] == [s["samples"] for s in whole["steps"]]
        losses = [s["loss"] for s in whole["steps"]]
        assert [s["loss"] for s in found["steps"]] == pytest.approx(losses, rel=1e-4)


NEEDS_COMPILER = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler, which Triton needs"
)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=[gpu_only, NEEDS_COMPILER])])
def test_a_compiled_model(processes: Crew, backend: str, tmp_path: Path, data: str) -> None:
    """It has the weights' names of one that is not compiled, and goes on from its checkpoint."""
    act = Act(DEVICE, arguments={"dropout": 0.0, "backend": backend})
    plain = Act(DEVICE, arguments={"dropout": 0.0})
    cut = Act(**{**vars(act), "until": 3})
    acts = [("plain", plain), ("first", act), ("parts", cut), ("parts", act)]
    whole, first, begun, ended = processes(alone, 1, acts, str(tmp_path), data, worked)[0]
    assert first["names"] == whole["names"]
    assert not [name for name in first["names"] if "_orig_mod" in name]
    losses = [step["loss"] for step in whole["steps"]]
    assert [step["loss"] for step in first["steps"]] == pytest.approx(losses, rel=2e-3)
    assert begun["steps"] + ended["steps"] == first["steps"]
    same(ended, first)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_averaged_weights_are_evaluated(processes: Crew, precision: str, tmp_path: Path, data: str) -> None:
    act = Act(DEVICE, arguments={"ema": True}, fields={"precision": precision})
    first, *_ = again_and_in_parts(processes, act, tmp_path, data)
    (average,) = first["averages"]
    assert average.keys() >= {"last.weight", "norm.running_mean"}
    assert average["last.weight"] != first["state"]["last.weight"]


def test_a_run_ends_early_at_the_same_step(processes: Crew, tmp_path: Path, data: str) -> None:
    """By a rule that takes what falls for no improvement; also where it goes on from before that."""
    stop = {"metric": "loss", "mode": "max", "patience": 2, "min_delta": 100.0}
    act = Act(DEVICE, arguments={"ema": True}, fields={"stop": stop})
    first, *_ = again_and_in_parts(processes, act, tmp_path, data)
    assert first["step"] == 6  # the first of 2, 4 and 6 is the best
    assert "loss" in first["finished"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_metrics_that_are_no_means_are_those_of_the_cpu(
    processes: Crew, precision: str, tmp_path: Path, data: str
) -> None:
    fields = {"precision": precision}
    arguments = {"dropout": 0.0, "measured": True}
    acts = [(f"run{n}", Act(where, arguments=arguments, fields=fields)) for n, where in enumerate(("cpu", DEVICE))]
    wanted, found = processes(alone, 1, acts, str(tmp_path), data, worked)[0]
    assert len(found["evaluations"]) == len(wanted["evaluations"]) == STEPS // 2
    for (values, tables), (other, others) in zip(found["evaluations"], wanted["evaluations"], strict=True):
        assert {"auc", "f1", "perplexity", "by_class/less"} <= values.keys() == other.keys()
        assert tables == others
        assert tables
        for name in values.keys() - {"loss", "perplexity"}:
            assert values[name] == other[name], name
        assert values["perplexity"] == pytest.approx(other["perplexity"], rel=1e-6)
        assert values["loss"] == pytest.approx(other["loss"], rel=0.1)


def pinned(_: Group, folder: str, data: str) -> dict[str, Any]:
    """What a reader of the user's own rows gives, and where a step has it."""
    act = Act(DEVICE, own=True)
    train, _ = open_readers(job_of(act, data), device=DEVICE, own=own_rows())
    train.carry((0, 1), 0)
    given = train.batch(0, 0, 0)
    moved = batches.tensors_of(given, torch.device(DEVICE))
    tensors = {name: value for name, value in given.arrays.items() if isinstance(value, torch.Tensor)}
    found = {
        "pinned": {name: value.is_pinned() for name, value in tensors.items()},
        "devices": {name: value.device.type for name, value in moved.items() if isinstance(value, torch.Tensor)},
        "equal": all(torch.equal(moved[name].cpu(), value) for name, value in tensors.items()),
        "names": moved["name"],
    }
    train.close()
    return found


def test_rows_of_the_users_own_are_pinned(processes: Crew, tmp_path: Path, data: str) -> None:
    (found,) = processes(pinned, 1, str(tmp_path), data)
    assert found["pinned"] == dict.fromkeys(("x", "y"), not REHEARSAL)
    assert found["devices"] == dict.fromkeys(("x", "y"), DEVICE)
    assert found["equal"]
    assert all(name.startswith("row ") for name in found["names"])


@pytest.mark.parametrize("fields", [{}, {"accumulate": 2, "precision": "bf16"}], ids=["whole", "parts"])
def test_rows_of_the_users_own(processes: Crew, fields: dict[str, Any], tmp_path: Path, data: str) -> None:
    act = Act(DEVICE, own=True, fields=fields)
    first, *_ = again_and_in_parts(processes, act, tmp_path, data)
    assert first["step"] == STEPS


OWN = """

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, row):
        x = torch.randn(2)
        return {"x": x, "y": int(x.sum() > 0)}

def train_set():
    return Rows()
"""


def whole_run(_: Group, folder: str) -> dict[str, Any]:
    """Trained, stopped, gone on with, loaded, evaluated and used, all in this process; without Ray and MLflow."""
    for name in ("ray", "mlflow"):
        sys.modules[name] = None  # type: ignore[assignment]
    import headway

    home, runs = Path(folder), Path(folder) / "runs"
    (home / "points.py").write_text(TASK + OWN)
    sets = {"train": str(home / "train"), "validation": str(home / "val")}
    job = {
        "name": "points", "task": f"{home}/points.py:Points", "data": sets, "lanes": 4, "lane_batch": 4, "steps": 12,
        "optimizer": {"name": "adam", "lr": 0.05}, "evaluate_every_steps": 3, "seed": 3, "reproducible": "bitwise",
        "checkpoint": {"every_steps": 3, "keep_last": 100}, "tracking": {"enabled": False},
        "workers": {"gpus": int(DEVICE != "cpu")},
    }  # fmt: skip

    def train(name: str, **fields: Any) -> Any:
        return headway.train({**job, **fields}, name=name, runs_folder=runs, address="in-process")

    def draws() -> list[float]:
        return [*torch.randn(3).tolist(), *torch.randn(3, device=DEVICE).tolist()]

    torch.manual_seed(11)
    first = train("first")  # CUDA starts in it
    drawn = [draws()]
    torch.manual_seed(11)
    drawn.append(draws())
    torch.manual_seed(11)
    again = train("again")
    drawn.append(draws())
    short = train("parts", steps=6)
    longer = headway.resume("parts", settings=["steps=12"], runs_folder=runs, address="in-process")
    own = train("own", data={"train": f"{home}/points.py:train_set", "validation": sets["validation"]})
    found: dict[str, Any] = {
        "states": [each.state for each in (first, again, short, longer, own)],
        "weights": [each.weights_sha256 for each in (first, again, longer)],
        "losses": [first.losses, own.losses], "drawn": drawn,
    }  # fmt: skip
    for where in ("cpu", DEVICE):
        model, _ = headway.load_model("first", "last", device=where, runs_folder=runs)
        predicted = headway.predict("first", sets["validation"], step="last", device=where, runs_folder=runs).table
        evaluated = headway.evaluate("first", sets["validation"], step="last", device=where, runs_folder=runs)
        assert predicted is not None
        found[f"on {where}"] = {
            "devices": sorted({tensor.device.type for tensor in model.state_dict().values()}),
            "training": model.training,
            "class": predicted["class"].to_pylist(),
            "scores": [score for row in predicted["scores"].to_pylist() for score in row],
            "metrics": evaluated.metrics,
            "confusion": evaluated.confusion,
        }
    return found


def test_a_whole_run_in_one_process(processes: Crew, tmp_path: Path) -> None:
    for name in ("cloudpickle", "yaml"):  # what only a run as a whole needs
        pytest.importorskip(name)
    points(tmp_path)
    (found,) = processes(whole_run, 1, str(tmp_path))
    assert found["states"] == ["finished"] * 5
    first, again, longer = found["weights"]
    assert first == again == longer
    assert found["drawn"][0] == found["drawn"][1] == found["drawn"][2], "generators are as they were"
    assert all(math.isfinite(loss) for losses in found["losses"] for loss in losses)
    here, there = found["on cpu"], found[f"on {DEVICE}"]
    assert (here["devices"], there["devices"]) == (["cpu"], [DEVICE])
    assert not here["training"]
    assert not there["training"]
    assert there["scores"] == pytest.approx(here["scores"], abs=1e-4)
    assert (there["class"], there["confusion"]) == (here["class"], here["confusion"])
    for name, value in here["metrics"].items():
        assert there["metrics"][name] == pytest.approx(value, rel=1e-3), name
    assert there["metrics"]["accuracy"] > 0.6
