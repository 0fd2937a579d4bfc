"""The keeper's actor: which one may stay where another is begun, and what it says where it leads nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import headway
from headway.errors import HeadwayError
from headway.queues import actor
from headway.queues.actor import NAMESPACE, QueueKeeper, make_way


class Ray:
    """With one actor at most. Methods that are not given are not there."""

    def __init__(self, **methods: Callable[[], Any]) -> None:
        self.calls: list[str] = []
        self.dies = True
        remote = {name: SimpleNamespace(remote=lambda name=name: name) for name in methods}
        self.methods, self.actor = methods, SimpleNamespace(**remote) if methods else None

    def get_actor(self, name: str, namespace: str) -> Any:
        assert (name, namespace) == ("queue:here", NAMESPACE)
        if self.actor is None:
            raise ValueError("no such actor")
        return self.actor

    def get(self, called: str, timeout: float) -> Any:
        assert timeout > 0
        self.calls.append(called)
        return self.methods[called]()

    def kill(self, there: Any, no_restart: bool) -> None:
        assert there is self.actor
        assert no_restart
        self.calls.append("kill")
        if self.dies:
            self.actor = None


def hangs() -> None:
    raise TimeoutError("no answer")


def same() -> str:
    return headway.__version__


@pytest.mark.parametrize(
    ("ray", "anew", "calls"),
    [
        (Ray(), True, []),
        (Ray(release=same, end=hangs), False, ["release"]),
        (Ray(release=same, end=lambda: None), True, ["end", "kill"]),
        (Ray(release=lambda: "0.0.1", end=lambda: None), False, ["release", "end", "kill"]),
        (Ray(release=hangs, end=hangs), False, ["release", "end", "kill"]),
        (Ray(ready=same), False, ["kill"]),
    ],
    ids=["nobody", "it keeps the queue", "a restart", "another release", "it hangs", "an earlier release"],
)
def test_a_keeper_that_is_no_use_is_ended_before_another_is_begun(ray: Ray, anew: bool, calls: list[str]) -> None:
    make_way(ray, "queue:here", anew)
    assert ray.calls == calls
    assert (ray.actor is None) == ("kill" in calls or not ray.methods)


def test_one_that_ray_does_not_let_go_of_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor, "END_S", 0.1)
    ray = Ray(release=same)
    ray.dies = False
    with pytest.raises(HeadwayError, match="was killed"):
        make_way(ray, "queue:here", True)


def test_one_that_does_not_lead_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor, "READY_S", 0.01)
    keeper = QueueKeeper.__new__(QueueKeeper)
    keeper._led, keeper._error = threading.Event(), None
    assert "does not lead" in keeper.ready()["fact"]
    keeper._led.set()
    assert "pid" in keeper.ready()
    assert keeper.release() == headway.__version__
