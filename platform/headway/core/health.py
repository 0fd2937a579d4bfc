"""What is well with a cluster and what is not, from what its machines say of themselves. Every finding has its reason.

Figures of machines come in as plain values (`Machine`); nothing is asked for here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]
GIB = 1 << 30
DISK = (GIB // 2, 5 * GIB)
"""Bytes free: less fails, less warns."""
DISK_FULL = 0.95
"""Share of a disk from which on Ray refuses objects (its `local_fs_capacity_threshold`)."""
SHARED_MEMORY = GIB
MEMORY = 2 * GIB
CLOCK_S = (5.0, 300.0)
"""Apart: more warns (logs of machines cannot be laid side by side), more fails: stores of the clouds refuse requests
that are signed five to fifteen minutes from now."""
SILENT_S = 30.0
"""Ray's own defaults come to 65 s."""
LOOPBACK = ("127.0.0.1", "localhost")
HASTY_S = 2.0
"""A machine that is only busy may be silent for so long."""


@dataclass(frozen=True)
class Finding:
    """One line of `headway doctor`.

    Args:
        name: of what was looked at.
        level: ok; warn (works, with a limit); fail (cannot train).
        found: the fact.
        remedy: what to do about it; "" where nothing need be done.
        reason: why it matters.
        where: the machines; none for this one.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""
    reason: str = ""
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """What a machine of the cluster says of itself.

    Args:
        name: its address, for people.
        head: whether the cluster's head is on it.
        error: why it said nothing; "" where it did.
        python, ray: versions.
        packages: versions of what runs need, None for what is not there.
        ahead_s: its clock before the head's; below 0 behind it.
        disks: free and all bytes, by what they are for.
        shared_memory: bytes of /dev/shm; None where there is none.
        memory: bytes.
        gpus: that the system shows; None where it has nothing to show them with.
        ray_cpus, ray_gpus: that Ray gives out.
        clusters: address files: the path, the address in it, whether somebody listens there.
        readable: files with the cluster's token that other users of the machine can read.
        cloud: whose it is, as its firmware says: aws, gcp, azure.
        certificate: of its links under TLS, what is wrong with it; "" where nothing is, or there is no TLS.
        expires: what is to be said of its end.
    """

    name: str
    head: bool = False
    error: str = ""
    python: str = ""
    ray: str = ""
    packages: Mapping[str, str | None] = field(default_factory=dict)
    ahead_s: float = 0.0
    disks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    shared_memory: int | None = None
    memory: int | None = None
    gpus: Sequence[str] | None = ()
    ray_cpus: float = 0.0
    ray_gpus: float = 0.0
    clusters: Sequence[tuple[str, str, bool]] = ()
    readable: Sequence[str] = ()
    cloud: str = ""
    certificate: str = ""
    expires: str = ""

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Machine:
        """From JSON; what another version says besides is left out."""
        known = {name: tree[name] for name in cls.__dataclass_fields__ if name in tree}
        known["disks"] = {name: (int(free), int(size)) for name, (free, size) in known.get("disks", {}).items()}
        clusters = known.get("clusters", ())
        known["clusters"] = tuple((str(path), str(address), bool(up)) for path, address, up in clusters)
        return cls(**known)


def judged(machines: Sequence[Machine], wanted: Mapping[str, Callable[[str], bool]], address: str) -> Iterator[Finding]:
    """All findings about a cluster's machines.

    Args:
        machines: all of them, also those that said nothing.
        wanted: whether a version of a package will do, by the package's name.
        address: HOST:PORT of the cluster's head.
    """
    yield from silent(machines)
    living = [machine for machine in machines if not machine.error]
    if not living:
        return
    yield from versions(living)
    yield from packages(living, wanted)
    yield from clocks(living)
    yield from disks(living)
    yield from memory(living)
    yield cpus(living)
    yield from gpus(living)
    yield from addresses(living, address)
    yield from tokens(living)
    yield from certificates(living)


def silent(machines: Sequence[Machine]) -> Iterator[Finding]:
    """Machines that Ray counts among the living, and that did nothing when they were asked."""
    for machine in machines:
        if machine.error:
            reason = "Ray counts it among the cluster's machines, and a worker that is placed there would not start"
            remedy = "Look at Ray's logs there; drain or restart the machine."
            yield Finding("machines", "fail", f"said nothing: {machine.error}", remedy, reason, (machine.name,))
    count = sum(not machine.error for machine in machines)
    if count:
        yield Finding("machines", "ok", f"{_number(count, 'machine')} answered", where=_names(machines, dead=False))


def versions(machines: Sequence[Machine]) -> Iterator[Finding]:
    """Ray and Python: all machines must have the same, and what the head has is taken for it."""
    remedy = "Give all machines the same: one image, or one environment."
    for name, of in (("ray", _ray), ("python", _python)):
        usual = of(next((machine for machine in machines if machine.head), machines[0]))
        odd = [machine for machine in machines if of(machine) != usual]
        for machine in odd:
            reason = f"the head has {usual}, and what they send each other is only understood by the same"
            yield Finding(name, "fail", of(machine), remedy, reason, (machine.name,))
        rest = [machine for machine in machines if machine not in odd]
        yield Finding(name, "ok", usual, where=_names(rest))


def _ray(machine: Machine) -> str:
    return machine.ray


def _python(machine: Machine) -> str:
    return ".".join(machine.python.split(".")[:2])


def packages(machines: Sequence[Machine], wanted: Mapping[str, Callable[[str], bool]]) -> Iterator[Finding]:
    """What runs need besides."""
    good = []
    for name, fits in wanted.items():
        bad: dict[str, list[Machine]] = {}
        for machine in machines:
            version = machine.packages.get(name)
            if version is None or not fits(version):
                bad.setdefault("is not installed" if version is None else f"is {version}", []).append(machine)
        for fact, found in bad.items():
            reason = "runs need it, in the release that this Headway goes with"
            remedy = "Install it there, or give `headway submit --install`, which brings it for one run."
            yield Finding("packages", "fail", f"{name} {fact}", remedy, reason, _names(found))
        if not bad:
            good.append(name)
    if good:
        yield Finding("packages", "ok", ", ".join(good), where=_names(machines))


def clocks(machines: Sequence[Machine]) -> Iterator[Finding]:
    """Clocks decide nothing of ours, but stores take no requests from another time."""
    good = []
    for machine in machines:
        finding = clock(machine.ahead_s, "the head's", machine.name)
        if finding.level != "ok":
            yield finding
        else:
            good.append(machine)
    if good:
        most = max(abs(machine.ahead_s) for machine in good)
        yield Finding("clock", "ok", f"within {most:.2f} s of the head's", where=_names(good))


def clock(ahead_s: float, whose: str, where: str, unsure_s: float = 0.0) -> Finding:
    """Of one clock against another. unsure_s: how far off the difference may be."""
    apart = max(0.0, abs(ahead_s) - unsure_s)
    found = f"{abs(ahead_s):.1f} s {'before' if ahead_s > 0 else 'behind'} {whose}"
    remedy = "Let a time service (chrony, systemd-timesyncd) set it."
    if apart > CLOCK_S[1]:
        reason = "stores of the clouds refuse requests that are signed at another time than theirs"
        return Finding("clock", "fail", found, remedy, reason, (where,) if where else ())
    if apart > CLOCK_S[0]:
        reason = "lines of logs and events from several machines cannot be laid side by side"
        return Finding("clock", "warn", found, remedy, reason, (where,) if where else ())
    return Finding("clock", "ok", found, where=(where,) if where else ())


def disks(machines: Sequence[Machine]) -> Iterator[Finding]:
    """Free space where Ray and Headway keep what they need."""
    good = []
    for machine in machines:
        found = [
            finding for what, (free, size) in machine.disks.items() for finding in _disk(machine, what, free, size)
        ]
        yield from found
        good += [] if found else [machine]
    if good:
        least = min((free for machine in good for free, _ in machine.disks.values()), default=0)
        yield Finding("disk", "ok", f"{least / GIB:.1f} GiB free or more", where=_names(good))


def _disk(machine: Machine, what: str, free: int, size: int) -> Iterator[Finding]:
    full = size > 0 and 1 - free / size > DISK_FULL
    level: Level = "fail" if free < DISK[0] or full else "warn" if free < DISK[1] else "ok"
    if level != "ok":
        reason = f"Ray takes no more objects on a disk that is {DISK_FULL:.0%} full" if full else f"{what} needs room"
        fact = f"{free / GIB:.1f} GiB of {size / GIB:.0f} free for {what}"
        yield Finding("disk", level, fact, "Free some space there.", reason, (machine.name,))


def memory(machines: Sequence[Machine]) -> Iterator[Finding]:
    """/dev/shm, where Ray keeps objects, and the memory of all."""
    for name, least, of, why, remedy in (
        ("shared memory", SHARED_MEMORY, _shared, "Ray keeps objects on disk instead, which is slow", "--shm-size=2g"),
        ("memory", MEMORY, _memory, "Ray and one worker want about 2 GiB", ""),
    ):
        small = [machine for machine in machines if of(machine) < least]
        mend = f"In a container: {remedy} or more." if remedy else "Use fewer workers, or a larger machine."
        for machine in small:
            yield Finding(name, "warn", f"{of(machine) / GIB:.1f} GiB", mend, why, (machine.name,))
        rest = [machine for machine in machines if machine not in small]
        if rest:
            fact = f"{min(map(of, rest)) / GIB:.1f} GiB or more"
            yield Finding(name, "ok", fact, where=_names(rest))


def _shared(machine: Machine) -> int:
    return machine.shared_memory or 0


def _memory(machine: Machine) -> int:
    return machine.memory if machine.memory is not None else MEMORY


def cpus(machines: Sequence[Machine]) -> Finding:
    """Whether there is room for a worker at all."""
    giving = [machine for machine in machines if machine.ray_cpus]
    if not giving:
        reason = "no worker can be placed until machines come that give some"
        return Finding("cpus", "warn", "Ray gives out none", "Start a machine: ray start --address.", reason)
    return Finding("cpus", "ok", f"Ray gives out {sum(each.ray_cpus for each in giving):g}", where=_names(giving))


def gpus(machines: Sequence[Machine]) -> Iterator[Finding]:
    """Whether Ray gives out what is there."""
    for machine in machines:
        if machine.gpus is None:
            if machine.ray_gpus:
                reason = "whether they are there is only seen when a worker begins on one"
                fact = f"Ray gives out {machine.ray_gpus:g}, and there is no nvidia-smi to show them"
                yield Finding("gpus", "warn", fact, "Look with their maker's tools.", reason, (machine.name,))
            continue
        seen = len(machine.gpus)
        if seen != int(machine.ray_gpus):
            level: Level = "fail" if machine.ray_gpus > seen else "warn"
            reason = "a worker would be placed on what is not there" if level == "fail" else "no worker uses the rest"
            fact = f"Ray gives out {machine.ray_gpus:g} GPUs, and the system shows {seen}"
            remedy = "Look at nvidia-smi there, and at CUDA_VISIBLE_DEVICES where Ray begins; or give it --num-gpus."
            yield Finding("gpus", level, fact, remedy, reason, (machine.name,))
        elif seen:
            yield Finding("gpus", "ok", ", ".join(machine.gpus), where=(machine.name,))
    if not any(machine.gpus or machine.ray_gpus for machine in machines):
        yield Finding("gpus", "ok", "none: workers compute on CPUs", where=_names(machines))


def addresses(machines: Sequence[Machine], address: str) -> Iterator[Finding]:
    """Files in which Ray notes the last cluster that was started on a machine: what `--address auto` goes by."""
    stale = False
    for machine in machines:
        for path, noted, listens in machine.clusters:
            if _same(noted, address, machine.head):
                continue
            stale = True
            if listens:
                fact, remedy = f"{path} names another cluster, {noted}, which is up", "Say the address: never `auto`."
            else:
                fact, remedy = f"{path} names {noted}, where nobody listens", f"Remove it: rm {path}"
            reason = "`--address auto`, and Ray's own tools without one, would go there from that machine"
            yield Finding("address file", "warn", fact, remedy, reason, (machine.name,))
    if not stale:
        yield Finding("address file", "ok", "none names another cluster", where=_names(machines))


def _same(noted: str, address: str, on_head: bool) -> bool:
    """Whether two addresses name one head, which may note itself by one that means it on its own machine only."""
    host, _, port = noted.rpartition(":")
    return noted == address or (on_head and host in LOOPBACK and port == address.rpartition(":")[2])


def tokens(machines: Sequence[Machine]) -> Iterator[Finding]:
    """Whether others on a machine can read the cluster's token."""
    for machine in machines:
        for path in machine.readable:
            yield readable_token(path, machine.name)


def certificates(machines: Sequence[Machine]) -> Iterator[Finding]:
    """Whether each machine's certificate is good, and stays so: Ray would try for ever, and not say."""
    remedy = "`headway cluster certs` renews it; what the machine runs is to be started again then."
    for machine in machines:
        if machine.certificate:
            reason = "what is started there from now on is not let into the cluster"
            yield Finding("certificate", "fail", machine.certificate, remedy, reason, (machine.name,))
        elif machine.expires:
            reason = "what is started there after that is not let into the cluster"
            yield Finding("certificate", "warn", machine.expires, remedy, reason, (machine.name,))


def readable_token(path: str, where: str) -> Finding:
    """A token that every user of a machine may read."""
    reason = "whoever reads it may run anything on the cluster"
    fact, remedy = f"{path} can be read by other users", f"chmod 600 {path}"
    return Finding("token", "warn", fact, remedy, reason, (where,) if where else ())


def health_checks(settings: Mapping[str, float], where: str) -> Finding:
    """How soon Ray gives a machine up.

    Args:
        settings: period_ms, timeout_ms and failure_threshold of the head's health checks.
        where: the head.
    """
    period_s, timeout_s = settings["period_ms"] / 1000, settings["timeout_ms"] / 1000
    threshold = settings["failure_threshold"]
    killed_s, silent_s = threshold * period_s, threshold * (period_s + timeout_s)
    fact = f"a machine that is gone is given up after {killed_s:.0f} s, one that falls silent after {silent_s:.0f} s"
    remedy = (
        "Start the head with RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 "
        "RAY_health_check_failure_threshold=3: 3 s and 9 s."
    )
    if killed_s < HASTY_S or timeout_s < HASTY_S / 2:
        reason = "a machine that is only busy for a moment is ended with all that runs on it"
        return Finding("health checks", "warn", fact, remedy, reason, (where,) if where else ())
    if silent_s > SILENT_S:
        reason = "so long a lost machine's places are taken, and no worker begins in their stead"
        return Finding("health checks", "warn", fact, remedy, reason, (where,) if where else ())
    reason = "the others of a run go on without its worker after workers.silence_s; so long its places stay taken"
    return Finding("health checks", "ok", fact, reason=reason, where=(where,))


@dataclass(frozen=True)
class Trial:
    """What came of writing to the place of the runs on one machine.

    Args:
        where: the machine.
        took_s: that it took; None where it failed.
        seen: machines whose marks it found there.
        fact, reason, remedy: of the failure.
    """

    where: str
    took_s: float | None
    seen: Sequence[str] = ()
    fact: str = ""
    reason: str = ""
    remedy: str = ""


def places(place: str, trials: Sequence[Trial]) -> Iterator[Finding]:
    """Whether every machine can keep a run at a place, and whether they mean the same one by it."""
    good = [trial for trial in trials if trial.took_s is not None]
    for trial in trials:
        if trial.took_s is None:
            reason = trial.reason or "workers write checkpoints and logs there themselves"
            fact = trial.fact or f"{place} cannot be written"
            yield Finding("runs", "fail", fact, trial.remedy, reason, (trial.where,))
    apart = [trial for trial in good if set(trial.seen) != {each.where for each in good}]
    for trial in apart:
        lost = sorted({each.where for each in good} - set(trial.seen))
        reason = "it is another folder under the same path, and a run would be scattered over several"
        remedy = "Give --runs a URL like s3://BUCKET/FOLDER, or a folder that all machines share."
        fact = f"{place} does not show what {', '.join(lost)} wrote"
        yield Finding("runs", "fail", fact, remedy, reason, (trial.where,))
    whole = [trial for trial in good if trial not in apart]
    if whole:
        slowest = max(trial.took_s or 0.0 for trial in whole)
        fact = f"{place} can be written, read and cleared, in {slowest:.2f} s at most"
        yield Finding("runs", "ok", fact, where=tuple(trial.where for trial in whole))


def _names(machines: Iterable[Machine], dead: bool = True) -> tuple[str, ...]:
    return tuple(machine.name for machine in machines if dead or not machine.error)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
