"""A Ray to run on: the one that this process has, an existing cluster, or one of this process's own."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway import certificates
from headway.driver import embedded, handshake, rayjob, signals
from headway.errors import BadInput, HeadwayError, RunFailed

KNOCK_S = 10.0
ANSWER_S = 15.0
"""How long a head may take to answer one question."""
_TOKEN = (
    "Give it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token hold the token (on a machine of the cluster, "
    "`ray get-auth-token` prints it)."
)


@dataclass(frozen=True)
class Where:
    """Where a run goes.

    Args:
        address: None for a Ray of this process's own, "auto", or HOST:PORT.
        said: how it was named, for errors; "" where nothing was said.
    """

    address: str | None
    said: str


def where(address: str | None, environ: Mapping[str, str] = os.environ) -> Where:
    """What an address means: itself, else RAY_ADDRESS, else local.

    Raises:
        BadInput: it is an address of another kind.
    """
    said = "" if address is None else f"--address {_redacted(address)}"
    if address in (None, "auto") and environ.get("RAY_ADDRESS"):
        address = environ["RAY_ADDRESS"]
        said = f"RAY_ADDRESS={_redacted(address)}"
    if address is None or address == "local":
        return Where(None, said)
    if address == "auto":
        return Where("auto", said)
    if address.startswith("ray://"):
        reason = "that is a port for Ray's client, and a run is led by a process of the cluster itself"
        remedy = (
            "`headway submit JOB --address http://HEAD:8265`, or give HOST:PORT of its head on one of its machines."
        )
        raise BadInput(said, reason, remedy)
    if "://" in address:
        reason = "that is where Ray takes jobs and shows its dashboard"
        there = f"--address {_redacted(address)}"
        remedy = f"`headway submit JOB {there}` (`headway resume RUN {there}`), or give HOST:PORT of its head."
        raise BadInput(said, reason, f"{remedy} --address local trains on this machine.")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadInput(
            said,
            "it is no HOST:PORT",
            "Give local, auto, or HOST:PORT, as 10.0.0.1:6379; in-process, from Python, is --local here.",
        )
    return Where(address, said)


def admit(address: str | None) -> None:
    """Refuse an address of another kind, before anything is made; see `where`. One that has a Ray needs none."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        where(address)


def _redacted(address: str) -> str:
    return re.sub(r"//[^@/]*@", "//***@", address)


@contextmanager
def ray_for(
    address: str | None,
    cpus: int,
    store_bytes: int,
    *,
    working_dir: Path | None = None,
    metadata: Mapping[str, str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[bool]:
    """A Ray to run on. Only what was started or connected here is ended. Gives whether it was started here.

    Args:
        address: "local" for a Ray of this process's own, "auto" or HOST:PORT for an existing cluster; None for the one
            that RAY_ADDRESS names, else local.
        cpus: that a Ray of this process's own may give out.
        store_bytes: of its object store.
        working_dir: folder that a cluster's processes are given, and begin in.
        metadata: shown by Ray beside this driver.
        tell: takes what the user should know; standard error when not given.

    Raises:
        BadInput: no cluster answers at the address, or it does not take us.
        RunFailed: Ray could not be started here.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # each printed line would be in a worker's log twice
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield False
        return
    goes = where(address)
    for note in certificates.check(time.time()):
        (tell or _say)(f"note: {note}")
    _hush()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    options["job_config"] = ray.job_config.JobConfig(metadata=dict(metadata or {}))
    with _undone_if_it_fails(), signals.kept():
        if goes.address is None:
            _start(cpus, store_bytes, tell or _say, options)
        else:
            _join(goes, working_dir, options)
            if rayjob.inside() and metadata:
                rayjob.describe(metadata)
    try:
        yield goes.address is None
    except ray.exceptions.RuntimeEnvSetupError as error:
        raise _no_environment(error) from None
    finally:
        ray.shutdown()


@contextmanager
def _undone_if_it_fails() -> Iterator[None]:
    import ray

    try:
        yield
    except BaseException:  # raised again: whatever it was, what was begun is not left behind
        with suppress(Exception):  # half a connection: whatever its end comes to, the first error counts
            ray.shutdown()
        raise


def _start(cpus: int, store_bytes: int, tell: Callable[[str], None], options: dict[str, Any]) -> None:
    _, note = embedded.temporary()
    if note:
        tell(f"note: {note}")
    try:
        embedded.start(cpus, store_bytes, **options)
    except HeadwayError:
        raise
    except Exception as error:  # Ray's own, of many kinds
        raise RunFailed("Ray could not be started on this machine", _first(error), "See `headway doctor`.") from None


def shipped() -> dict[str, Any]:
    """The runtime environment of a job on a cluster: this Headway, whatever is installed there."""
    ours = Path(__file__).parents[1]
    if rayjob.brought(ours):  # with the job, whose other processes have it too
        return {}
    return {"py_modules": [str(ours)]}


def _join(goes: Where, working_dir: Path | None, options: dict[str, Any]) -> None:
    import ray

    address = find(goes) if goes.address == "auto" else str(goes.address)
    said = goes.said if goes.address != "auto" else f"{goes.said} ({address})"
    knock(address, said)
    ours = shipped()
    ours |= {"working_dir": str(working_dir)} if working_dir else {}
    of_job = rayjob.inside() and address == os.environ.get("RAY_ADDRESS")
    environment = rayjob.merged(ours, rayjob.runtime_env()) if of_job else ours
    with rayjob.overridden() if of_job else rayjob.hidden():
        try:
            context = ray.init(address=address, runtime_env=environment, **options)
        except Exception as error:  # Ray's own, of many kinds
            raise refused(said, error) from None
    if context.dashboard_url:  # else nobody would see it, and it costs a process
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _hush() -> None:
    """Ray prints what befalls the cluster on standard output, which belongs to the report; we tell it in our words."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None


def find(goes: Where) -> str:
    """The cluster on this machine that "auto" means: the one that was started last, if it answers, else any.

    Raises:
        BadInput: there is none.
    """
    from ray._private import services
    from ray._private.utils import read_ray_address

    noted = read_ray_address()
    for address in dict.fromkeys([*([noted] if noted else []), *sorted(services.find_gcs_addresses())]):
        if _listens(address) is None:
            return str(address)
    last = f"; the last one that was started, at {noted}, does not answer" if noted else ""
    raise BadInput(
        goes.said,
        f"no Ray runs on this machine, and RAY_ADDRESS names none{last}",
        "Give HOST:PORT of a cluster's head, or --address local to run on this machine.",
    )


def knock(address: str, said: str) -> None:
    """Ask the head at an address whether it would have us; Ray itself would try for minutes, and not say why.

    Raises:
        BadInput: nobody listens, it is no head of a cluster, it wants another token or certificate, or does not answer.
    """
    error = _listens(address)
    if error is not None:
        raise _no_cluster(said, str(error)) from None
    code, words = _answer(address)
    if code == "UNAUTHENTICATED" and _use_token():
        code, words = _answer(address)
    if code == "OK":
        return
    if code == "UNAUTHENTICATED":
        raise _no_entry(said)
    if code == "DEADLINE_EXCEEDED":
        reason = f"a connection was taken there, and no answer came within {ANSWER_S:.0f} s"
        raise BadInput(said, reason, "Check that the cluster's head is well, and that no firewall is between.")
    apart = handshake.why(address, said)
    if apart is not None:
        raise apart
    if code == "UNIMPLEMENTED" or "http" in words.lower():
        reason = "what answers there is not the head of a Ray cluster"
        remedy = "Give the port that `ray start --head` told, 6379 where nothing else was said."
        raise BadInput(said, reason, f"{remedy} (8265 is the dashboard's, 10001 that of Ray's client.)")
    raise _no_cluster(said, words)


def _listens(address: str) -> Exception | None:
    """None if somebody takes connections at HOST:PORT, else why not."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except (OSError, OverflowError, ValueError) as error:
        return error
    return None


def _answer(address: str) -> tuple[str, str]:
    """The name of gRPC's status, and its words, of the first question that Ray asks a head itself."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    channel = init_grpc_channel(address, [("grpc.enable_http_proxy", 0)])
    try:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        question = gcs_service_pb2.GetClusterIdRequest()  # type: ignore[attr-defined]
        stub.GetClusterId(question, timeout=ANSWER_S)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    finally:
        channel.close()
    return "OK", ""


def _use_token() -> bool:
    """Send the token that this user has, though nothing says that tokens are in use. False if there is none."""
    if "RAY_AUTH_MODE" in os.environ:
        return False
    from ray._private.authentication import authentication_token_setup as setup

    return bool(setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False))


def _no_entry(said: str) -> BadInput:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode and mode.lower() != "token":
        return BadInput(said, f"the cluster wants a token, and RAY_AUTH_MODE={mode} sends none", "Unset RAY_AUTH_MODE.")
    source = _token_source()
    if source:
        reason = f"the cluster wants a token, and the one of {source} is not its"
        return BadInput(said, reason, _TOKEN.replace("Give it", "Give the cluster's"))
    return BadInput(said, "the cluster wants a token, and there is none here", _TOKEN)


def _token_source() -> str:
    """Where Ray takes this user's token from; "" if there is none."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named:
        return f"RAY_AUTH_TOKEN_PATH={named}" if Path(named).is_file() else ""
    return "~/.ray/auth_token" if (Path.home() / ".ray" / "auth_token").is_file() else ""


def refused(said: str, error: BaseException) -> BadInput:
    """Why Ray did not connect, out of all that it wraps around the cause."""
    from ray.exceptions import AuthenticationError, RuntimeEnvSetupError

    chain = [*_chain(error)]
    texts = [str(one) for one in chain]
    if any(isinstance(one, AuthenticationError) for one in chain) or any("Unauthenticated" in t for t in texts):
        return _no_entry(said)
    other = next((text for text in texts if "Version mismatch" in text), None)
    if other is not None:
        return _other_versions(said, other)
    setup = next((one for one in chain if isinstance(one, RuntimeEnvSetupError)), None)
    if setup is not None:
        return _no_environment(setup)
    last = chain[-1]
    if isinstance(last, TimeoutError) or "timed out" in str(last).lower() or "Deadline" in str(last):
        reason = f"the cluster did not answer in time ({_first(last)})"
        return BadInput(said, reason, "Check that its head is well, and that no firewall is between.")
    if any("package" in text.lower() or "runtime_env" in text for text in texts):
        reason = f"the task's code could not be handed to the cluster ({_first(last)})"
        return BadInput(said, reason, "Mend that, or put the task into a folder of its own.")
    return _no_cluster(said, _first(last))


def _other_versions(said: str, text: str) -> BadInput:
    """Ray's own words of both versions, as one sentence."""
    found = re.findall(r"(Ray|Python):\s*(\S+)", text)
    if len(found) != 4:
        return BadInput(said, " ".join(text.split()), "Use the cluster's versions of Ray and Python here.")
    theirs, ours = dict(found[:2]), dict(found[2:])
    unlike = [name for name in ("Ray", "Python") if theirs[name] != ours[name]]
    reason = "; ".join(f"the cluster runs {name} {theirs[name]}, and this is {name} {ours[name]}" for name in unlike)
    install = " and ".join(f"{name} {theirs[name]}" for name in unlike)
    return BadInput(said, reason, f"Start it from an environment with {install}, or on a machine of the cluster.")


def _no_environment(error: BaseException) -> BadInput:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    plain = [line for line in lines if not line.startswith(("File ", "Traceback", "^", "~"))]
    reason = plain[-1] if plain else type(error).__name__
    remedy = "Mend the runtime environment (of the Ray job, or the cluster's), then try again."
    return BadInput("the cluster could not make the runtime environment of the run's processes", reason, remedy)


def _no_cluster(said: str, words: str) -> BadInput:
    reason = f"no Ray cluster answers there ({(words.splitlines() or ['no reason given'])[0]})"
    return BadInput(said, reason, "Check the address, or --address local to run on this machine.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
