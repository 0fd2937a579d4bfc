"""What a run's processes are called in Ray's dashboard, and on what terms others find them."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any

from headway.tracking.environment import package_version


class Names:
    """The names of the actors of one start of a run: headway:RUN:recorder, headway:RUN:controller, headway:RUN:WORKER.

    Each start has a namespace of its own, so that actors of one before it, which may linger, are not in the way.

    Args:
        run: its name.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.namespace = f"headway-{secrets.token_hex(8)}"

    @property
    def metadata(self) -> dict[str, str]:
        """Of the Ray job."""
        return {"headway": package_version("headway") or "not installed", "headway_run": self.run}

    def of(self, who: str) -> dict[str, Any]:
        """Options of an actor."""
        return {"name": f"headway:{self.run}:{who}", "namespace": self.namespace}

    def find(self, who: str) -> Any:
        """An actor; None where it is not there yet, or not any more."""
        import ray

        with suppress(ValueError):
            return ray.get_actor(**self.of(who))
        return None

    def end(self, who: str) -> bool:
        """Kill an actor at once. Whether there was one."""
        import ray

        with suppress(ValueError):  # not there yet, or not any more
            ray.kill(ray.get_actor(**self.of(who)))
            return True
        return False
