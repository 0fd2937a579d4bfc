"""Runs in an S3 store: what it costs to save, restore, list and keep records, against the bare library.

    python benchmarks/storage.py                       all of it
    python benchmarks/storage.py checkpoint restore    some; what is not measured keeps its figures

The service is moto in a process of its own, behind a proxy that answers after 50 ms and lets 40 MB/s through. Peers are
measured in the same run, in turns: `torch.save` and one put in the training thread; the same ranges of the same objects
read by obstore in as many threads; the same listing and reads by obstore.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from measure import keep, kept, summary

ROOT = Path(__file__).parent.parent
BUCKET = "bench"
LATENCY_S, RATE = 0.05, 40e6
MB = 1e6
PARAMETERS = 20_000_000
NUM_RUNS = 1000
STATE_BYTES = 2 * 2**30
_processes = multiprocessing.get_context("spawn")


# -- the service -----------------------------------------------------------------------------------------------------


class Service:
    """A fake S3 in another process, whose work is not done by the process that is measured."""

    def __enter__(self) -> Self:
        self._pipe, there = _processes.Pipe()
        self._process = _processes.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        self.endpoint: str = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._pipe.send(("end",))
        self._process.join(10.0)
        self._process.kill()

    def ask(self, *what: Any) -> Any:
        self._pipe.send(what)
        return self._pipe.recv()

    def slow(self, latency_s: float = LATENCY_S, rate: float | None = RATE) -> None:
        """How it answers from now on; counts begin anew."""
        self.ask("faults", 0, latency_s, rate)

    def counts(self) -> dict[str, int]:
        """Requests by method since `slow`."""
        found: dict[str, int] = self.ask("counts")
        return found


def _serve(pipe: Any) -> None:
    from headway.testing.s3 import S3, Faults

    services = [S3().start()]
    services[0].make_bucket(BUCKET)
    pipe.send(services[0].endpoint)
    while True:
        what, *given = pipe.recv()
        if what == "end":
            for service in reversed(services):
                service.close()
            return
        if what == "faults":
            services[given[0]].faults = Faults(latency_s=given[1], rate=given[2])
            pipe.send(None)
        elif what == "link":  # another way to the same buckets, with a pace of its own
            services.append(S3(Faults(latency_s=given[0], rate=given[1]), services[0]).start())
            pipe.send(services[-1].endpoint)
        elif what == "counts":
            pipe.send(dict(services[0].counts))


def environment(endpoint: str) -> dict[str, str]:
    """What this process, and those that it starts, need to speak to it."""
    from headway.testing.s3 import KEYS

    return {**KEYS, "HEADWAY_STORE_ENDPOINT": endpoint, "HEADWAY_STORE_REGION": "us-east-1"}


def storage(path: str) -> Any:
    from headway import config
    from headway.storage.opener import open_storage

    return open_storage(f"s3://{BUCKET}/{path}", config.load().store)


def bare() -> Any:
    """The library alone."""
    from obstore.store import S3Store

    return S3Store(
        BUCKET,
        endpoint=os.environ["HEADWAY_STORE_ENDPOINT"],
        region="us-east-1",
        access_key_id="headway",
        secret_access_key="headway",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "300s"},
    )


def timed(act: Callable[[], Any]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


# -- a checkpoint ----------------------------------------------------------------------------------------------------


class Heard:
    """Takes what a saver says, in place of the journal."""

    leads, stop_requested = True, False

    def __init__(self) -> None:
        self.done, self.at = threading.Event(), 0.0

    def checkpoint_done(self, checkpoint: Any, error: str | None, let_go: Any = ()) -> None:
        assert error is None, error
        self.at = time.monotonic()
        self.done.set()

    def allows(self, step: int) -> bool:
        return True

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def checkpoint(service: Service, repeats: int) -> dict[str, Any]:
    """A state of 240 MB while training goes on, and in line."""
    import obstore
    import torch
    from checkpoint import step, trained

    from headway.checkpoint.store import Store
    from headway.elastic.worker.saver import Saver
    from headway.job import Checkpoint

    model, optimizer = trained(PARAMETERS)

    def state() -> dict[str, Any]:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def in_line() -> None:
        content = io.BytesIO()
        torch.save(state(), content)
        obstore.put(peer, "inline", content.getvalue(), use_multipart=False)

    rule, heard, peer = Checkpoint(keep_last=1), Heard(), bare()
    store = Store(storage("ours"), "a" * 64, rule)
    saver = Saver(store, rule, heard)  # type: ignore[arg-type]
    names = ("blocked_s", "durable_s", "durable_beside_training_s", "in_line_s", "step_s", "beside_s")
    found: dict[str, list[float]] = {name: [] for name in names}

    def save(number: int, training: bool) -> float:
        """Seconds until it is durable."""
        heard.done.clear()
        begun = time.monotonic()
        saver.save(number, state, {}, "due")
        found["blocked_s"].append(time.monotonic() - begun)
        while training and not heard.done.is_set():
            found["beside_s"].append(timed(lambda: step(model, optimizer)))
        saver.finish()
        return heard.at - begun

    saver.save(1, state, {}, "first")  # it also allocates; a run pays that once
    saver.finish()
    size, writing = store.committed()[-1].bytes, 0
    for number in range(1, repeats + 1):
        found["step_s"] += [timed(lambda: step(model, optimizer)) for _ in range(3)]
        service.slow()
        found["durable_s"].append(save(2 * number, training=False))
        counts = service.counts()
        writing = sum(counts.get(method, 0) for method in ("PUT", "POST", "DELETE"))
        found["in_line_s"].append(timed(in_line))
        found["durable_beside_training_s"].append(save(2 * number + 1, training=True))
    saver.close()
    limit_s = size / RATE
    ratios = {
        "blocked": [a / b for a, b in zip(found["blocked_s"][::2], found["in_line_s"], strict=True)],
        "durable": [each / limit_s for each in found["durable_s"]],
        "beside": [a / b for a, b in zip(found["durable_s"], found["in_line_s"], strict=True)],
    }
    what = f"{size / MB:.0f} MB, {LATENCY_S * 1e3:.0f} ms a request, {RATE / MB:.0f} MB/s"
    return {
        "what": what,
        **{name: summary(values) for name, values in found.items() if name not in ("step_s", "beside_s")},
        "step_s": statistics.median(found["step_s"]),
        "step_beside_s": statistics.median(found["beside_s"]),
        "blocked_of_in_line": summary(ratios["blocked"]),
        "durable_of_bytes_by_rate": summary(ratios["durable"]),
        "durable_of_in_line": summary(ratios["beside"]),
        "writing_requests_of_one": writing,
    }


def restore(service: Service, repeats: int) -> dict[str, Any]:
    """The newest checkpoint into tensors, digests checked; and the same ranges of the same objects by the library."""
    import obstore
    from checkpoint import trained

    from headway.checkpoint.found import BLOCK_BYTES, READERS
    from headway.checkpoint.store import Store
    from headway.job import Checkpoint

    model, optimizer = trained(PARAMETERS)
    store = Store(storage("restored"), "a" * 64, Checkpoint())
    service.slow(0.0, None)
    committed = store.write(1, {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, {})
    assert committed is not None
    names = {f"restored/{committed.name}/{part}": facts["bytes"] for part, facts in committed.parts.items()}
    ranges = [
        (name, at, min(BLOCK_BYTES, size - at)) for name, size in names.items() for at in range(0, size, BLOCK_BYTES)
    ]
    peer = bare()

    def by_the_library() -> None:
        with ThreadPoolExecutor(READERS) as pool:
            for _ in pool.map(lambda each: obstore.get_range(peer, each[0], start=each[1], length=each[2]), ranges):
                pass

    figures: dict[str, Any] = {}
    for name, latency_s, rate in (("slow", LATENCY_S, RATE), ("far", LATENCY_S, None), ("near", 0.0, None)):
        service.slow(latency_s, rate)
        ours, theirs = [], []
        for _ in range(repeats):
            theirs.append(timed(by_the_library))
            ours.append(timed(committed.load))
        speeds = [b / a for a, b in zip(ours, theirs, strict=True)]
        limit = f", {rate / MB:.0f} MB/s" if rate else ""
        figures[name] = {
            "what": f"{committed.bytes / MB:.0f} MB, {latency_s * 1e3:.0f} ms a request{limit}",
            "ours_s": summary(ours), "library_s": summary(theirs), "speed_of_library": summary(speeds),
        }  # fmt: skip
    return figures


# -- several workers -------------------------------------------------------------------------------------------------


def ranks(service: Service, repeats: int) -> dict[str, Any]:
    """The same state, written by 1, 2 and 4 workers, each over a link of its own of 15 MB/s."""
    rate = 15e6
    service.slow(0.0, None)
    figures: dict[str, Any] = {"what": f"each worker's link: {LATENCY_S * 1e3:.0f} ms a request, {rate / MB:.0f} MB/s"}
    for size in (1, 2, 4):
        pipes = []
        for rank in range(size):
            pipe, there = _processes.Pipe()
            link = service.ask("link", LATENCY_S, rate)
            process = _processes.Process(target=_rank, args=(there, rank, size, link), daemon=True)
            process.start()
            pipes.append((pipe, process))
        for pipe, _ in pipes:
            assert pipe.recv() == "ready"
        seconds = []
        for number in range(repeats):
            for pipe, _ in pipes:
                pipe.send(f"attempt{number}")
            seconds.append(max(pipe.recv() for pipe, _ in pipes))
        for pipe, process in pipes:
            pipe.send(None)
            process.join(20.0)
        figures[f"{size}_workers_s"] = summary(seconds)
    figures["4_of_1"] = round(figures["1_workers_s"]["median"] / figures["4_workers_s"]["median"], 3)
    figures["2_of_1"] = round(figures["1_workers_s"]["median"] / figures["2_workers_s"]["median"], 3)
    return figures


def _rank(pipe: Any, rank: int, size: int, endpoint: str) -> None:
    """One worker; the first commits."""
    os.environ.update(environment(endpoint))
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    from checkpoint import trained

    from headway.checkpoint.copies import Copies
    from headway.checkpoint.store import Store
    from headway.checkpoint.writing import Share, Shares
    from headway.job import Checkpoint

    model, optimizer = trained(PARAMETERS)
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    store = Store(storage(f"ranks-{size}"), "a" * 64, Checkpoint(keep_last=1))
    copies, shares = Copies(), Shares()
    copies.take(parts)
    pipe.send("ready")
    step = 0
    while (attempt := pipe.recv()) is not None:
        step, begun = step + 1, time.monotonic()
        if rank == 0:
            assert store.write(step, copies.take(parts), {}, attempt=attempt, of=size) is not None
        elif shares.take(parts, Share(rank, size)):
            store.write_share(step, attempt, shares, lambda: True)
        pipe.send(time.monotonic() - begun if rank == 0 else 0.0)


# -- the list of runs ------------------------------------------------------------------------------------------------

JOB = {"name": "n", "task": "t.py:T", "data": {"train": "data"}, "lanes": 8, "lane_batch": 4, "steps": 400}


def brief(number: int) -> dict[str, Any]:
    """What a run's head says of it."""
    metrics = dict.fromkeys(("accuracy", "loss", "top5"), number / 7)
    told = {
        "state": "finished",
        "message": "",
        "steps": 400,
        "total_steps": 400,
        "loss": 0.1 + number,
        "metrics": metrics,
    }
    return {**told, "created": 1.7e9 + number, "last": 1.7e9 + number + 60}


def fill_folder(folder: Path) -> None:
    """1,000 runs that have ended."""
    from headway.job import parse
    from headway.runs import Place, create

    job = parse(JOB)
    for number in range(NUM_RUNS):
        run = create(Place.of(str(folder)), f"run-{number:04d}", job)
        run.write({**run.read(), "state": "finished", "total_steps": 400, "created": 1.7e9 + number, "ended": 1.7e9})
        steps = "".join(json.dumps({"step": step, "loss": 0.5, "rows": 32}) + "\n" for step in range(400))
        (run.path / "steps.jsonl").write_text(steps)
        (run.path / "metrics.jsonl").write_text(json.dumps({"step": 399, "values": brief(number)["metrics"]}) + "\n")


def fill_store() -> None:
    from headway.runs.remote import RemoteRun

    place = storage("runs")

    def make(number: int) -> None:
        RemoteRun(place, f"run-{number:04d}").create(brief(number))

    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(make, range(NUM_RUNS)):
            pass


def listing(service: Service, repeats: int) -> dict[str, Any]:
    """`headway runs`, and what of it is not the start of the command."""
    import obstore

    service.slow(0.0, None)
    fill_store()
    figures: dict[str, Any] = {"what": f"{NUM_RUNS:,} runs; in S3 with {LATENCY_S * 1e3:.0f} ms a request"}
    with tempfile.TemporaryDirectory() as scratch:
        fill_folder(Path(scratch) / "runs")
        places = {"folder": str(Path(scratch) / "runs"), "s3": f"s3://{BUCKET}/runs"}
        peer = bare()

        def by_the_library() -> None:
            found = obstore.list_with_delimiter(peer, "runs")["common_prefixes"]
            with ThreadPoolExecutor(64) as pool:
                heads = list(pool.map(lambda name: bytes(obstore.get(peer, f"{name}/head.json").bytes()), found))
            assert len(heads) == NUM_RUNS

        seconds: dict[str, list[float]] = {}
        for _ in range(repeats):
            for name, place in places.items():
                service.slow(rate=None)
                command = [sys.executable, "-m", "headway.cli.app", "runs", "--runs", place, "--json"]
                begun = time.monotonic()
                done = subprocess.run(command, capture_output=True, check=True, text=True)
                seconds.setdefault(f"{name}_command_s", []).append(time.monotonic() - begun)
                assert len(json.loads(done.stdout)["runs"]) == NUM_RUNS
                if name == "s3":
                    figures["requests"] = {k: v for k, v in service.counts().items() if k in ("GET", "HEAD", "PUT")}
                mine = [sys.executable, __file__, "--list", place]
                done = subprocess.run(mine, capture_output=True, check=True, text=True)
                seconds.setdefault(f"{name}_s", []).append(float(done.stdout))
            seconds.setdefault("s3_library_s", []).append(timed(by_the_library))
    return figures | {name: summary(values) for name, values in seconds.items()}


def list_runs(place: str) -> None:
    from headway.runs import Place, briefs

    there = Place.of(place)
    print(timed(lambda: briefs(there)))


# -- memory ----------------------------------------------------------------------------------------------------------


def memory(service: Service, repeats: int) -> dict[str, Any]:
    """Beside the state that is trained: the most that saving, and restoring, hold of a state of 2 GiB."""
    service.slow(0.0, None)
    found: dict[str, Any] = {"what": f"a state of {STATE_BYTES / MB:.0f} MB; peak of the process beside it"}
    for place in ("folder", "s3"):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
            at = f"{scratch}/checkpoints" if place == "folder" else f"s3://{BUCKET}/memory"
            for verb in ("save", "restore"):
                done = subprocess.run(
                    [sys.executable, __file__, "--memory", verb, at], check=True, capture_output=True, text=True
                )
                told = json.loads(done.stdout.splitlines()[-1])
                found[f"{place}_{verb}"] = told
    return found


def measure_memory(verb: str, at: str) -> None:
    """In a process of its own."""
    import torch

    from headway import config
    from headway.checkpoint.copies import Copies
    from headway.checkpoint.store import Store
    from headway.elastic.worker.footprint import status
    from headway.elastic.worker.memory import keep_freed
    from headway.job import Checkpoint
    from headway.storage.opener import open_storage

    keep_freed()  # as in a worker
    parts = 16
    root: Any = open_storage(at, config.load().store) if "://" in at else Path(at)
    store = Store(root, "a" * 64, Checkpoint())
    state: dict[str, Any] = {"session": {"step": 1}}
    if verb == "save":
        each = STATE_BYTES // parts // 4
        state["model"] = {f"part{number}": torch.full((each,), float(number)) for number in range(parts)}
    Path("/proc/self/clear_refs").write_text("5")  # what was needed up to here is no peak of what follows
    base, begun = status("VmRSS"), time.monotonic()
    assert base, "the system does not say"
    if verb == "save":
        committed = store.write(1, Copies().take(state), {})
        assert committed is not None
    else:
        found, loaded, _ = store.restore()
        assert found is not None
        assert float(loaded["model"]["part7"][5]) == 7.0
    peak = status("VmHWM")
    assert peak, "the system does not say"
    told = {"beside_of_state": round((peak - base) / STATE_BYTES, 4), "seconds": time.monotonic() - begun}
    print(json.dumps({**told, "base_mb": round(base / MB)}))


# -- requests --------------------------------------------------------------------------------------------------------


def requests(service: Service, repeats: int) -> dict[str, Any]:
    """What a run's records cost: some lines a second for a minute, as a busy run writes them, and none at all."""
    from headway.runs.mirror import Mirror
    from headway.runs.remote import RemoteRun

    figures: dict[str, Any] = {}
    for name, lines, minutes in (("busy", 20, 1.0), ("quiet", 0, 1.0)):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            folder.mkdir()
            (folder / "run.json").write_text(json.dumps({"run": name, "state": "running"}))
            lease = RemoteRun(storage("records"), name).create(brief(0))
            mirror = Mirror(folder, lease, brief=lambda: brief(1))
            assert mirror.flush(30.0)
            service.slow(rate=None)
            deadline, step = time.monotonic() + 60 * minutes, 0
            while time.monotonic() < deadline:
                if lines:
                    step += 1
                    with (folder / "steps.jsonl").open("a") as file:
                        file.write(
                            json.dumps({"step": step, "loss": 1 / step, "rows": 256, "time": time.time()}) + "\n"
                        )
                time.sleep(1 / lines if lines else 0.5)
            counts = service.counts()
            assert mirror.flush(30.0)
            assert mirror.close(30.0, release=True)
        writing = sum(counts.get(method, 0) for method in ("PUT", "POST", "DELETE"))
        figures[name] = {
            "lines_a_second": lines,
            "writing_requests_an_hour": round(60 * writing / minutes),
            "reading_requests_an_hour": round(60 * (counts.get("GET", 0) + counts.get("HEAD", 0)) / minutes),
        }
    return figures


# -- stops -----------------------------------------------------------------------------------------------------------


def stops(service: Service, repeats: int) -> dict[str, Any]:
    """What the tests of the commit protocol try, counted as they say it; any failure of theirs is one of this."""
    tests = ["tests/unit/test_run_stops.py", "tests/unit/test_run_kills.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    worlds = re.findall(r"seed \d+: (\{.*\}), (\d+) heads, epoch (\d+)", done.stdout)
    killed = re.search(r"seed \d+: (\d+) steps shipped, epoch (\d+)", done.stdout)
    assert killed is not None
    told = [ast.literal_eval(world[0]) for world in worlds]
    return {
        "stopped_for_ever_at_a_request": sum(each["stopped"] for each in told),
        "woke_when_another_led": sum(each["woke too late"] for each in told),
        "two_claimed_at_once": sum(each["two at once"] for each in told),
        "heads_written": sum(int(world[1]) for world in worlds),
        "unreadable": 0,
        "two_that_both_committed": 0,
        "killed_or_stopped_processes": int(killed[2]) - 1,
        "steps_of_theirs_that_were_acknowledged": int(killed[1]) + 1,
        "tests": tests,
    }


# -- all of it -------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Service, int], dict[str, Any]]] = {
    "checkpoint": checkpoint,
    "restore": restore,
    "ranks": ranks,
    "listing": listing,
    "memory": memory,
    "requests": requests,
    "stops": stops,
}


def measure(names: list[str], repeats: int) -> None:
    import torch

    torch.set_num_threads(1)
    figures = {name: part for name, part in kept("storage").items() if name in SECTIONS}
    for name in names:
        with Service() as service, tempfile.TemporaryDirectory() as home:
            os.environ.update(environment(service.endpoint), HEADWAY_CACHE=home, XDG_CONFIG_HOME=home)
            load = os.getloadavg()[0]
            figures[name] = {
                **SECTIONS[name](service, repeats),
                "load": round(load, 1),
                "date": time.strftime("%Y-%m-%d"),
            }
        keep("storage", {"what": "moto in a process of its own behind a proxy; see benchmarks/storage.py", **figures})
    print(f"this process held at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="by default all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--list", metavar="PLACE", help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, metavar=("VERB", "PLACE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        list_runs(options.list)
    elif options.memory:
        measure_memory(*options.memory)
    else:
        measure(options.sections or list(SECTIONS), options.repeats)


if __name__ == "__main__":
    main()
