"""Have the queue of a place kept by a new keeper, whatever the one that is there does."""

from __future__ import annotations

from headway.jobs import entry as begins
from headway.jobs.api.client import RayJobs
from headway.jobs.send import parcel, sending, submitting
from headway.jobs.send.sending import Packed, Say
from headway.jobs.spec import FILE, to_json
from headway.queues import asking
from headway.queues.actor import ANEW


def restart(address: str, place: str, say: Say = submitting.quiet) -> None:
    """End the keeper that is there, if one is, and begin another on a cluster.

    Raises:
        HeadwayError: it could not; another cluster keeps it, say.
    """
    api = RayJobs.at(address)
    api.admit()
    packages = submitting._packages(None, place, None)
    spec = asking._spec("queue", "queue", place, packages=packages, settings=(ANEW,))
    own = {FILE: to_json(spec).encode(), begins.FILE: begins.script().encode()}
    sending.ask(api, spec, Packed(parcel.packed(own), (parcel.headway(),)), say)
