"""A process of a pool is as new after each run."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import random
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from headway.driver import determinism
from headway.elastic.worker import afresh as module
from headway.elastic.worker import garbage
from headway.elastic.worker.afresh import Afresh


@pytest.fixture
def afresh() -> Iterator[Afresh]:
    """Of this process; what a test leaves is put back."""
    made = Afresh()
    yield made
    made.again()
    garbage.take_in()


def test_what_a_run_changed_is_as_before(tmp_path: Path) -> None:
    afresh = Afresh()
    garbage.take_in()
    before, folder, streams, filters = dict(os.environ), Path.cwd(), (sys.stdout, sys.stderr), list(warnings.filters)
    drawn = (random.getstate(), torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # type: ignore[index]
    settings = (torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision(), np.geterr())
    hooks = len(torch.nn.modules.module._global_forward_hooks)

    os.environ["OF_A_RUN"], os.environ["HOME"] = "1", "/elsewhere"
    os.environ.pop("PATH", None)
    os.chdir(tmp_path)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.path.insert(0, str(tmp_path))
    warnings.simplefilter("error")
    logging.getLogger().addHandler(handler := logging.NullHandler())
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    np.seterr(all="ignore")
    torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)

    sys.stdout.close()
    assert afresh.again() == ""
    assert (dict(os.environ), Path.cwd(), (sys.stdout, sys.stderr)) == (before, folder, streams)
    assert str(tmp_path) not in sys.path
    assert warnings.filters == filters
    assert handler not in logging.getLogger().handlers
    now = (torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision(), np.geterr())
    assert now == settings
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()
    assert not torch.backends.cudnn.benchmark
    assert torch.zeros(1).device.type == "cpu"
    assert len(torch.nn.modules.module._global_forward_hooks) == hooks
    again = (random.getstate(), torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # type: ignore[index]
    assert again == drawn


def numerics() -> list[object]:
    """What the bits of a result hang on, beside the generators."""
    cuda = torch.backends.cuda
    return [
        float(torch.tensor(1e-40) * 1.0) > 0.0,
        torch.backends.opt_einsum.strategy,
        (cuda.matmul.allow_bf16_reduced_precision_reduction, cuda.matmul.allow_fp16_reduced_precision_reduction),
        (cuda.flash_sdp_enabled(), cuda.math_sdp_enabled(), cuda.mem_efficient_sdp_enabled()),
        (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()),
        torch.utils.deterministic.fill_uninitialized_memory,
    ]


def test_what_bits_hang_on_is_as_before(afresh: Afresh) -> None:
    before = numerics()
    torch.set_flush_denormal(True)
    torch.backends.opt_einsum.strategy = "greedy"
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_math_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.set_autocast_enabled("cpu", True)
    torch.set_autocast_dtype("cpu", torch.float16)
    torch.set_autocast_cache_enabled(False)
    torch.utils.deterministic.fill_uninitialized_memory = False
    assert not any(new == old for new, old in zip(numerics(), before, strict=True))
    assert afresh.again() == ""
    assert numerics() == before


def test_the_users_modules_are_imported_anew_and_libraries_stay(afresh: Afresh, tmp_path: Path) -> None:
    library = tmp_path / "env" / "site-packages"
    library.mkdir(parents=True)
    for folder in (tmp_path, library):
        (folder / f"of_{folder.name.replace('-', '_').replace('site_packages', 'library')}.py").touch()
    (tmp_path / "theirs.py").write_text("import theirs_too\ncount = []\n")
    (tmp_path / "theirs_too.py").touch()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "inner.py").touch()
    (library / "shared_library.py").touch()
    sys.path[:0] = [str(tmp_path), str(library)]
    first = importlib.import_module("theirs")
    for name in ("bundle.inner", "shared_library", "xml.dom.minidom"):
        importlib.import_module(name)
    assert afresh.again([tmp_path]) == ""
    assert not {"theirs", "theirs_too", "bundle", "bundle.inner"} & sys.modules.keys()
    assert {"shared_library", "xml.dom.minidom"} <= sys.modules.keys()
    sys.path.insert(0, str(tmp_path))
    assert importlib.import_module("theirs") is not first
    del sys.modules["shared_library"]


def test_a_task_that_is_installed_is_imported_anew(afresh: Afresh, tmp_path: Path) -> None:
    library = tmp_path / "site-packages"
    (library / "their_package").mkdir(parents=True)
    (library / "their_package" / "__init__.py").touch()
    (library / "their_package" / "tasks.py").touch()
    sys.path.insert(0, str(library))
    importlib.import_module("their_package.tasks")
    afresh.again(top="their_package")
    assert not {"their_package", "their_package.tasks"} & sys.modules.keys()


def test_threads_that_go_on_are_told(afresh: Afresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spins.py").write_text("def spin(over):\n    over.wait()\n")
    sys.path.insert(0, str(tmp_path))
    monkeypatch.setattr(module, "LINGER_S", 0.05)
    over = threading.Event()
    thread = threading.Thread(target=importlib.import_module("spins").spin, args=(over,), name="spinner", daemon=True)
    thread.start()
    assert afresh.again([tmp_path]) == "the run left threads behind: spinner"
    over.set()
    thread.join()
    assert afresh.again([tmp_path]) == ""


def test_what_nobody_has_is_let_go_sooner_or_later(afresh: Afresh) -> None:
    class Ring:
        def __init__(self) -> None:
            self.itself = self

    ring = Ring()
    seen = weakref.ref(ring)
    del ring
    afresh.again()
    assert seen() is None

    ring = Ring()
    seen = weakref.ref(ring)
    afresh.again()
    del ring
    gc.collect()
    assert seen() is not None  # it was there when a run ended
    for _ in range(module.WHOLE):
        afresh.again()
    assert seen() is None


def test_what_cublas_was_told_at_its_start_stays_told(monkeypatch: pytest.MonkeyPatch, afresh: Afresh) -> None:
    """It reads it once in a process: without it the next run with `reproducible: bitwise` would be refused."""
    monkeypatch.delenv(determinism.WORKSPACE, raising=False)
    cuda = [False]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: cuda[0])
    made = Afresh()
    os.environ[determinism.WORKSPACE] = ":4096:8"
    made.again()
    assert determinism.WORKSPACE not in os.environ
    os.environ[determinism.WORKSPACE] = ":4096:8"
    cuda[0] = True
    made.again()
    assert os.environ.pop(determinism.WORKSPACE) == ":4096:8"
