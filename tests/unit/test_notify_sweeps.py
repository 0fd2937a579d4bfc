"""Of a sweep people are told once: its trials tell nobody, and its file keeps no address."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.waiting import until

from headway.errors import BadInput
from headway.notation.plain import read
from headway.sweeps import file
from headway.sweeps.rules import Budget
from headway.sweeps.run import _without_secrets, terms_of
from headway.sweeps.seen.telling import Telling, seen
from headway.sweeps.seen.view import Point, Subject, Trial, View

SECRET = "T0AAAAAAA/B0BBBBBBB/cccccccc"
JOB: dict[str, Any] = {
    "name": "digits",
    "task": "task.py:Digits",
    "data": {"train": "d/train", "validation": "d/test"},
    "steps": 100,
    "evaluate_every_steps": 10,
    "optimizer": {"name": "sgd", "lr": 0.1},
}


def sweep(*hooks: dict[str, Any]) -> file.Sweep:
    space = {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}}
    return file.taken({"job": {**JOB, "notify": list(hooks)}, "trials": 8, "space": space})


def view(state: str = "running", worker_s: float = 0.0) -> View:
    trial = Trial(1, {"optimizer.lr": 0.1}, step=20, points=[Point(20, 0.9, 1.0, 1.0, True)], best=0.9, best_step=20)
    return View(Subject("s", "accuracy", "max"), state, "", {1: trial}, trial, 2, 2, 60.0, worker_s, {})


@pytest.fixture
def taken() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    found: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{SECRET}", found
    server.shutdown()
    server.server_close()
    thread.join()


def test_trials_tell_nobody_and_the_sweep_does() -> None:
    found = sweep({"url": f"https://hooks.example/{SECRET}", "on": ["finished"]})
    assert found.example.notify == []
    assert found.job_of({"optimizer.lr": 0.01}, repeat=2).notify == []
    (hook,) = found.notify
    assert hook.on == ["finished"]
    assert sweep().notify == []


def test_what_is_kept_of_a_sweep_has_no_address_and_is_the_same_sweep() -> None:
    found = sweep({"url": f"https://hooks.example/{SECRET}"}, {"url_file": "/x"})
    text = file.to_yaml(_without_secrets(found))
    assert SECRET not in text
    again = file.taken(read(text))
    assert [hook.url for hook in again.notify] == ["***", None]
    assert terms_of(again) == terms_of(found) == terms_of(sweep()), "its decisions do not hang on who is told"


def test_an_address_that_is_none_is_refused_at_the_door() -> None:
    with pytest.raises(BadInput, match="begin with http") as raised:
        sweep({"url": f"htps://hooks.example/{SECRET}"})
    assert SECRET not in str(raised.value)


def test_how_a_sweep_is(taken: tuple[str, list[dict[str, Any]]]) -> None:
    at, facts = seen(view(worker_s=90.0), Budget(worker_s=100.0))
    assert (at.step, at.done, at.used) == (20, 21, 0.9)
    assert facts["best"] == {"trial": 1, "step": 20, "value": 0.9}


def test_a_sweep_tells_of_its_budget_and_of_its_end(taken: tuple[str, list[dict[str, Any]]]) -> None:
    url, words = taken
    telling = Telling("s", "/runs/s", sweep({"url": url}).notify, Budget(worker_s=100.0), lambda _: None)
    telling.start()
    telling.look(view())
    until(lambda: telling._lookout._thread.is_alive())

    def spent() -> bool:
        telling.look(view(worker_s=95.0))
        return bool(words)

    until(spent, "it is told that the budget is nearly spent")
    telling.ended("finished", "all trials are over", view("finished", 96.0))
    assert telling.close() == []
    assert [(word["kind"], word["sweep"]) for word in words] == [("budget", "s"), ("finished", "s")]
    assert words[0]["text"] == "95% of its budget is spent"
    assert words[1]["best"] == {"trial": 1, "step": 20, "value": 0.9}
