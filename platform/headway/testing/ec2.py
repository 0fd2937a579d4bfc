"""EC2 on loopback that refuses, throttles and loses answers on purpose: moto's server with a door that can be shut.

with Ec2() as ec2:
    ec2.refuse("InsufficientInstanceCapacity", type="m7i.xlarge", zone="eu-central-1a")
    subprocess.run([...], env={**os.environ, **ec2.environment})

Needs `moto[ec2,iam,server]`. It answers for every service of AWS that moto knows; only `RunInstances` can be refused by
type and zone, every other call by its name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

REGION = "eu-central-1"
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{code}</Code><Message>{message}</Message>'
    "</Error></Errors><RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
)


@dataclass
class Refusal:
    """What is refused, and how often.

    Args:
        code: EC2's.
        message: in its words.
        call: which calls: like "RunInstances"; "" for all.
        type: only machines of this type; "" for all.
        zone: only there; "" for all.
        spot: only spot machines, or only others; None for both.
        times: so often; None for as long as it stands here.
        lost: the call is done, and its answer is what is lost.
        status: of HTTP.
    """

    code: str
    message: str = "refused on purpose"
    call: str = "RunInstances"
    type: str = ""
    zone: str = ""
    spot: bool | None = None
    times: int | None = None
    lost: bool = False
    status: str = "400 Bad Request"


@dataclass(frozen=True)
class Call:
    """A call as it arrived: its name, its parameters, and the code that answered it ("" where it was done)."""

    name: str
    parameters: dict[str, str] = field(default_factory=dict)
    code: str = ""


class Ec2:
    """The service; use it as a context manager. `calls` holds what arrived."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.calls: list[Call] = []
        self._lock, self._one_at_a_time = threading.Lock(), threading.Lock()
        self._made: dict[str, tuple[str, list[tuple[str, str]], bytes]] = {}
        self._subnets: dict[str, str] = {}
        self._image = ""

    @property
    def subnets(self) -> dict[str, str]:
        """The zone of each subnet that is there, by its id."""
        return dict(self._subnets)

    def refuse(self, code: str, **where: Any) -> Refusal:
        """Refuse from now on; see `Refusal`. Returns what `allow` takes."""
        refusal = Refusal(code, **where)
        with self._lock:
            self.refusals.append(refusal)
        return refusal

    def allow(self, refusal: Refusal | None = None) -> None:
        """Take back one refusal, or all."""
        with self._lock:
            self.refusals = [] if refusal is None else [one for one in self.refusals if one is not refusal]

    def named(self, name: str) -> list[Call]:
        """Calls of one name."""
        with self._lock:
            return [call for call in self.calls if call.name == name]

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which any process comes here and nowhere else."""
        return {
            "AWS_ACCESS_KEY_ID": "headway",
            "AWS_SECRET_ACCESS_KEY": "headway",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_MAX_ATTEMPTS": "2",
        }

    def client(self, service: str = "ec2") -> Any:
        """A client of boto3 for what a test does by hand. Its calls are refused like all."""
        import boto3

        keys = {"aws_access_key_id": "headway", "aws_secret_access_key": "headway"}
        return boto3.client(service, region_name=REGION, endpoint_url=self.endpoint, **keys)

    def image(self) -> str:
        """An image that is there."""
        if not self._image:
            self._image = str(self.client().describe_images(MaxResults=5)["Images"][0]["ImageId"])
        return self._image

    def start(self) -> Self:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        _quiet()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="ec2", daemon=True)
        self._serving.start()
        for subnet in self.client().describe_subnets()["Subnets"]:
            self._subnets[subnet["SubnetId"]] = subnet["AvailabilityZone"]
        return self

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._serving.join()

    def _answer(self, environ: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        asked = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        refusal = self._refusal(asked) if "Action" in asked else None
        with self._lock:
            self.calls.append(Call(asked.get("Action", ""), asked, refusal.code if refusal else ""))
        if refusal is None or refusal.lost:
            status, headers, body = self._done(environ, asked)
            if refusal is None:
                begin(status, headers)
                return [body]
        answer = _ERROR.format(code=refusal.code, message=refusal.message).encode()
        begin(refusal.status, [("Content-Type", "text/xml"), ("Content-Length", str(len(answer)))])
        return [answer]

    def _done(self, environ: dict[str, Any], asked: dict[str, str]) -> tuple[str, list[tuple[str, str]], bytes]:
        """Moto's answer. As EC2, and unlike moto, a token with which machines were made gives the same ones again."""
        token = asked.get("ClientToken", "") if asked.get("Action") == "RunInstances" else ""
        with self._one_at_a_time if token else nullcontext():
            if token in self._made:
                return self._made[token]
            said: list[Any] = []
            body = b"".join(self._app(environ, lambda status, headers, _=None: said.extend((status, headers))))
            if token and said[0].startswith("200"):
                self._made[token] = (said[0], said[1], body)
            return said[0], said[1], body

    def _refusal(self, asked: dict[str, str]) -> Refusal | None:
        zone = asked.get("Placement.AvailabilityZone") or self._subnets.get(asked.get("SubnetId", ""), "")
        spot = asked.get("InstanceMarketOptions.MarketType") == "spot"
        with self._lock:
            for refusal in self.refusals:
                meant = refusal.call in ("", asked["Action"])
                kind = refusal.type in ("", asked.get("InstanceType")) and refusal.zone in ("", zone)
                if meant and kind and refusal.spot in (None, spot):
                    if refusal.times is not None:
                        refusal.times -= 1
                        if refusal.times <= 0:
                            self.refusals.remove(refusal)
                    return refusal
        return None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _quiet() -> None:
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
