"""Ray's job API as it is asked: what is there, what is not, and what could not be asked."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway.errors import BadInput
from headway.jobs.api import call, tokens
from headway.jobs.api.client import Failed, NoEntry, RayJobs, Unreachable
from headway.testing.rayjobs import DoubleJob, RayJobsDouble


def hangs(job: DoubleJob) -> None:
    job.print("on it")
    job.stop_asked.wait(30)


@pytest.fixture
def ray() -> Iterator[RayJobsDouble]:
    with RayJobsDouble(hangs) as found:
        yield found


def api_of(ray: RayJobsDouble, **more: Any) -> RayJobs:
    return RayJobs(ray.address, **{"patience_s": 5.0, "answer_s": 5.0, **more})


def test_a_jobs_life(ray: RayJobsDouble) -> None:
    api = api_of(ray)
    assert api.jobs() == []
    assert api.job("a") is None
    assert api.logs("a") is None
    api.submit("a", "true", {}, {"headway_run": "r", "headway_by": "anna"})
    until(lambda: "on it" in (api.logs("a") or ""))
    found = api.job("a")
    assert found is not None
    assert (found.status, found.alive, found.run, found.by, found.runs) == ("RUNNING", True, "r", "anna", "")
    assert [each.id for each in api.jobs()] == ["a"]
    assert api.delete("a") is False, "it runs"
    assert api.stop("a") is True
    until(lambda: (job := api.job("a")) is not None and not job.alive)
    assert api.delete("a") is True
    assert api.job("a") is None
    assert api.delete("a") is True, "it is not there, which is what was asked for"
    assert api.stop("a") is False


def test_jobs_of_others_and_drivers_without_a_submission_are_told_apart(
    ray: RayJobsDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = api_of(ray)
    api.submit("echo", "true", {}, {})
    assert [job.run for job in api.jobs()] == [""]
    drivers = [{"type": "DRIVER", "submission_id": None, "job_id": "01000000", "status": "RUNNING"}]
    monkeypatch.setattr(RayJobs, "get", lambda *_, **__: drivers)
    assert api.jobs() == []


def test_a_question_is_asked_again_until_it_is_answered(ray: RayJobsDouble) -> None:
    for how in ("refused", "lost", "cut", "500", "503"):
        ray.fail("GET", "/api/jobs/", how)
    assert api_of(ray).jobs() == []
    assert len(ray.asked) == 6


def test_out_of_reach_is_not_absent(ray: RayJobsDouble) -> None:
    api = api_of(ray, patience_s=0.3)
    ray.is_down = True
    with pytest.raises(Unreachable, match="could not be asked"):
        api.job("a")
    ray.is_down = False
    assert api.job("a") is None


def test_an_answer_that_takes_too_long_is_none(ray: RayJobsDouble) -> None:
    ray.fail("GET", "/api/version", "slow", times=9)
    with pytest.raises(Unreachable, match="no answer comes in time"):
        api_of(ray, answer_s=0.1, patience_s=0.3).version()


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"refused.*dashboard"):
            RayJobs(address, patience_s=0.2).admit()


def test_a_submission_is_asked_for_once_only(ray: RayJobsDouble) -> None:
    """Whoever asks again must know whether it was taken."""
    api = api_of(ray)
    ray.fail("POST", "/api/jobs/", "lost")
    with pytest.raises(Failed):
        api.submit("a", "true", {}, {})
    assert ray.taken == ["a"]
    with pytest.raises(Failed, match="already exists"):
        api.submit("a", "true", {}, {})
    assert ray.taken == ["a"]
    with pytest.raises(BadInput, match="must be strings"):
        api.submit("b", "true", {}, {"number": 1})  # type: ignore[dict-item]


def test_packages_are_there_or_not(ray: RayJobsDouble) -> None:
    api = api_of(ray)
    uri = "gcs://_ray_pkg_0123.zip"
    assert not api.has_package(uri)
    api.put_package(uri, b"PK")
    assert api.has_package(uri)
    assert ray.packages == {uri: b"PK"}


def test_a_cluster_lets_in_who_has_its_token() -> None:
    with RayJobsDouble(hangs, token="one") as ray:
        assert RayJobs(ray.address, "one").admit().ray == "2.60.0"
        assert RayJobs(ray.address, "one").guarded()
        with pytest.raises(NoEntry, match=r"none was found here\. RAY_AUTH_TOKEN"):
            RayJobs(ray.address).admit()
        with pytest.raises(NoEntry, match="not this cluster's") as caught:
            RayJobs(ray.address, "two").admit()
    assert "two" not in str(caught.value)
    assert "two" not in repr(RayJobs("http://h", "two"))


def test_a_cluster_without_tokens_takes_one_all_the_same(ray: RayJobsDouble) -> None:
    assert RayJobs(ray.address, "one").admit().ray == "2.60.0"
    assert not RayJobs(ray.address).guarded()


def test_another_ray_is_refused() -> None:
    with RayJobsDouble(hangs, version="2.9.3") as ray, pytest.raises(BadInput, match=r"Ray 2\.9\.3.*Ray 2\.60"):
        RayJobs(ray.address).admit()
    with RayJobsDouble(hangs, version="2.60.7") as ray:
        RayJobs(ray.address).admit()


def test_what_is_no_ray_is_refused(ray: RayJobsDouble) -> None:
    ray.fail("GET", "/api/version", "html")
    with pytest.raises(BadInput, match="is not a Ray cluster's job API"):
        api_of(ray).admit()
    with pytest.raises(BadInput, match=r"is not a Ray cluster's job API.*404"):
        RayJobs(f"{ray.address}/elsewhere").admit()


def test_who_speaks_no_http_is_no_ray() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        import threading

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"\0\1 not http\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(Unreachable, match=r"no HTTP|reset|closed"):
            RayJobs(f"http://127.0.0.1:{server.getsockname()[1]}", patience_s=0.2).admit()
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, "http://127.0.0.1:8265"),
        ({"RAY_API_SERVER_ADDRESS": "http://h:1"}, "http://h:1"),
        ({"RAY_API_SERVER_ADDRESS": "http://h:1", "RAY_ADDRESS": "http://k:2"}, "http://h:1"),
        ({"RAY_ADDRESS": "https://k/ray/"}, "https://k/ray"),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, "http://127.0.0.1:8265"),
    ],
)
def test_where_a_cluster_is(environ: dict[str, str], found: str) -> None:
    assert call.where(None, environ) == found
    assert call.where("http://said:3/", environ) == "http://said:3"


@pytest.mark.parametrize(
    "address",
    [
        *("auto", "10.0.0.1:6379", "ray://h:10001", "http://", "http://h:x", "http://h:99999", "http://h?a=b", ""),
        *(
            "http://[::1",
            "http://a..b:8265",
            f"http://{'a' * 64}:1",
            "http://h:1/a b",
            "http://h\n:1",
            "http://h:1/\u00e4",
        ),
    ],
)
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match=r"(?s)--address.*http://HOST:8265"):
        call.where(address, {})


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(BadInput, match=r"\*\*\*@h") as caught:
        call.where("http://anna:pass@h:1", {})
    assert "pass@" not in str(caught.value)


def test_a_token_is_found_where_rays_tools_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tokens.find({}) is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("third\n")
    (tmp_path / "file").write_text(" second\n")
    assert tokens.find({}) == "third"
    assert tokens.find({"RAY_AUTH_TOKEN_PATH": "~/file"}) == "second"
    assert tokens.find({"RAY_AUTH_TOKEN_PATH": "~/file", "RAY_AUTH_TOKEN": "first"}) == "first"


@pytest.mark.parametrize("content", [None, "", "two words", "line\nline", "ümlaut"])
def test_a_token_that_is_none_is_refused_and_not_shown(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match="RAY_AUTH_TOKEN_PATH") as caught:
        tokens.find({"RAY_AUTH_TOKEN_PATH": str(path)})
    assert not content or content.split()[0] not in str(caught.value)


def test_a_proxy_does_not_stand_before_this_machine(ray: RayJobsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert api_of(ray).version().ray == "2.60.0"


def test_a_proxy_is_asked_for_what_is_elsewhere(ray: RayJobsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", ray.address.replace("http://", "http://anna:p%40ss@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert RayJobs("http://cluster.invalid:8265").version().ray == "2.60.0"
    scheme, _, words = ray.headers["Proxy-Authorization"].partition(" ")
    assert (scheme, base64.b64decode(words)) == ("Basic", b"anna:p@ss")


def test_rays_words_on_a_job_are_a_line(ray: RayJobsDouble) -> None:
    """Of an entry point that failed, they are thousands of characters of its log."""
    api = api_of(ray)
    api.submit("a", "true", {}, {})
    ray.jobs["a"].print("a long log")
    ray.jobs["a"].end(3)
    found = api.job("a")
    assert found is not None
    assert found.message == "Job entrypoint command failed with exit code 3"
    assert "a long log" in found.detail
    assert "a long log" not in repr(found)


def test_a_head_that_is_half_up_is_asked_again(ray: RayJobsDouble) -> None:
    """Its dashboard answers before what takes jobs does."""
    ray.fail("POST", "/api/jobs/", "404")
    with pytest.raises(Failed, match="404"):
        api_of(ray).submit("a", "true", {}, {})
