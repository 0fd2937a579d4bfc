"""What is well with a cluster, judged from what its machines say: every fact with its reason and its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import pytest

from headway.core import health
from headway.core.health import GIB, Finding, Machine, Trial

HEAD = Machine(
    "10.0.0.1 (head)",
    head=True,
    python="3.11.9",
    ray="2.60.0",
    packages={"torch": "2.13.0", "mlflow": "3.17.2"},
    disks={"Ray's files (/tmp)": (50 * GIB, 100 * GIB)},
    shared_memory=4 * GIB,
    memory=16 * GIB,
    ray_cpus=4.0,
)
OTHER = replace(HEAD, name="10.0.0.2", head=False)
WANTED: dict[str, Callable[[str], bool]] = {"torch": lambda found: found.startswith("2.13."), "mlflow": lambda _: True}
ADDRESS = "10.0.0.1:6379"


def judged(*machines: Machine) -> list[Finding]:
    return list(health.judged(machines, WANTED, ADDRESS))


def bad(found: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level != "ok"]


def test_a_cluster_that_is_well_has_a_line_for_each_thing() -> None:
    found = judged(HEAD, OTHER)
    assert bad(found) == []
    names = [
        "machines",
        "ray",
        "python",
        "packages",
        "clock",
        "disk",
        "shared memory",
        "memory",
        "cpus",
        "gpus",
        "address file",
    ]
    assert [finding.name for finding in found] == names
    assert all(finding.where == ("10.0.0.1 (head)", "10.0.0.2") for finding in found)


@pytest.mark.parametrize(
    ("change", "name", "level", "words"),
    [
        ({"ray": "2.59.0"}, "ray", "fail", "2.59.0"),
        ({"python": "3.12.1"}, "python", "fail", "3.12"),
        ({"packages": {"torch": None, "mlflow": "3"}}, "packages", "fail", "torch is not installed"),
        ({"packages": {"torch": "2.12.1", "mlflow": "3"}}, "packages", "fail", "torch is 2.12.1"),
        ({"packages": {"mlflow": "3"}}, "packages", "fail", "torch is not installed"),
        ({"ahead_s": -30.0}, "clock", "warn", "30.0 s behind the head's"),
        ({"ahead_s": 400.0}, "clock", "fail", "400.0 s before the head's"),
        (
            {"disks": {"Ray's files (/tmp)": (GIB // 4, 100 * GIB)}},
            "disk",
            "fail",
            "0.2 GiB of 100 free for Ray's",
        ),
        ({"disks": {"Ray's files (/tmp)": (20 * GIB, 1000 * GIB)}}, "disk", "fail", "20.0 GiB of 1000 free"),
        ({"disks": {"Headway's cache (/)": (2 * GIB, 10 * GIB)}}, "disk", "warn", "2.0 GiB of 10 free for Headway's"),
        ({"shared_memory": 64 << 20}, "shared memory", "warn", "0.1 GiB"),
        ({"shared_memory": None}, "shared memory", "warn", "0.0 GiB"),
        ({"memory": GIB}, "memory", "warn", "1.0 GiB"),
        ({"gpus": ("H100",)}, "gpus", "warn", "Ray gives out 0 GPUs, and the system shows 1"),
        ({"ray_gpus": 2.0, "gpus": None}, "gpus", "warn", "Ray gives out 2, and there is no nvidia-smi"),
        ({"ray_gpus": 2.0, "gpus": ("H100",)}, "gpus", "fail", "Ray gives out 2 GPUs, and the system shows 1"),
        ({"clusters": (("/tmp/ray/c", "10.9.9.9:6379", False),)}, "address file", "warn", "where nobody listens"),
        ({"clusters": (("/tmp/ray/c", "10.9.9.9:6379", True),)}, "address file", "warn", "another cluster"),
        ({"readable": ("/home/a/.ray/auth_token",)}, "token", "warn", "can be read by other users"),
        ({"certificate": "tls.crt has expired: yesterday"}, "certificate", "fail", "has expired"),
        ({"expires": "tls.crt expires in 3 days"}, "certificate", "warn", "in 3 days"),
        ({"error": "no answer within 40 s"}, "machines", "fail", "no answer within 40 s"),
    ],
)
def test_what_is_wrong_with_one_machine_is_said_of_that_machine(
    change: dict[str, Any], name: str, level: str, words: str
) -> None:
    (finding,) = bad(judged(HEAD, replace(OTHER, **change)))
    assert (finding.name, finding.level, finding.where) == (name, level, ("10.0.0.2",))
    assert words in finding.found
    assert finding.reason
    assert finding.remedy


def test_what_is_like_the_heads_is_not_odd_however_many_others_there_are() -> None:
    odd = replace(OTHER, ray="2.59.0")
    found = bad(judged(HEAD, odd, replace(odd, name="10.0.0.3")))
    assert [finding.where for finding in found] == [("10.0.0.2",), ("10.0.0.3",)]


def test_a_cluster_of_which_nothing_is_heard_is_judged_by_that_alone() -> None:
    found = judged(replace(HEAD, error="gone"), replace(OTHER, error="gone"))
    assert [(finding.name, finding.level) for finding in found] == [("machines", "fail")] * 2


def test_a_cluster_that_has_no_room_for_a_worker_is_warned_of() -> None:
    (found,) = bad(judged(replace(HEAD, ray_cpus=0.0)))
    assert (found.name, found.level) == ("cpus", "warn")
    assert [each.found for each in judged(HEAD, OTHER) if each.name == "cpus"] == ["Ray gives out 8"]
    assert [each.where for each in judged(replace(HEAD, ray_cpus=0.0), OTHER) if each.name == "cpus"] == [("10.0.0.2",)]


def test_gpus_that_are_given_out_are_named() -> None:
    found = judged(HEAD, replace(OTHER, gpus=("H100", "H100"), ray_gpus=2.0))
    assert [(each.found, each.where) for each in found if each.name == "gpus"] == [("H100, H100", ("10.0.0.2",))]


@pytest.mark.parametrize("noted", ["10.0.0.1:6379", "127.0.0.1:6379"])
def test_an_address_file_of_this_very_cluster_is_well(noted: str) -> None:
    noting = (("/tmp/ray/c", noted, True),)
    assert bad(judged(replace(HEAD, clusters=noting))) == []
    elsewhere = bad(judged(HEAD, replace(OTHER, clusters=noting)))
    assert bool(elsewhere) is noted.startswith("127."), "that means another one on another machine"


def test_a_machine_comes_as_it_was_sent() -> None:
    whole = replace(OTHER, clusters=(("/c", "a:1", True),), gpus=("A",), ahead_s=0.5)
    tree = {**asdict(whole), "clusters": [["/c", "a:1", True]], "of another version": 1}
    found = Machine.of(tree)
    assert asdict(found) == {**asdict(whole), "gpus": ("A",)}


@pytest.mark.parametrize(
    ("ahead_s", "unsure_s", "level"),
    [(4.0, 0.0, "ok"), (6.0, 0.0, "warn"), (-6.0, 0.0, "warn"), (6.0, 2.0, "ok"), (301.0, 0.5, "fail")],
)
def test_a_clock_is_only_held_to_what_is_known_of_it(ahead_s: float, unsure_s: float, level: str) -> None:
    assert health.clock(ahead_s, "mine", "", unsure_s).level == level


@pytest.mark.parametrize(
    ("period", "timeout", "threshold", "level", "words"),
    [
        (3000, 10000, 5, "warn", "after 15 s, one that falls silent after 65 s"),
        (1000, 2000, 3, "ok", "after 3 s, one that falls silent after 9 s"),
        (10000, 30000, 10, "warn", "400 s"),
        (100, 2000, 3, "warn", "0 s"),
        (3000, 200, 5, "warn", "16 s"),
    ],
)
def test_rays_patience_with_a_machine_is_told_in_seconds(
    period: float, timeout: float, threshold: float, level: str, words: str
) -> None:
    settings = {"period_ms": period, "timeout_ms": timeout, "failure_threshold": threshold}
    found = health.health_checks(settings, "head")
    assert found.level == level
    assert words in found.found
    assert found.reason
    assert bool(found.remedy) is (level != "ok")


def test_a_place_must_be_the_same_for_all() -> None:
    same = [Trial(name, 0.1, ("a", "b")) for name in ("a", "b")]
    (found,) = health.places("s3://b/runs", same)
    assert (found.level, found.where) == ("ok", ("a", "b"))
    apart = list(health.places("/srv/runs", [Trial("a", 0.1, ("a",)), Trial("b", 0.1, ("b",))]))
    assert [(each.level, each.where) for each in apart] == [("fail", ("a",)), ("fail", ("b",))]
    assert "does not show what b wrote" in apart[0].found
    assert "another folder under the same path" in apart[0].reason


def test_who_cannot_write_is_named_and_the_others_are_well() -> None:
    trials = [Trial("a", 0.2, ("a",)), Trial("b", None, fact="s3://b cannot be written", reason="403", remedy="Keys.")]
    found = list(health.places("s3://b/runs", trials))
    assert [(each.level, each.where) for each in found] == [("fail", ("b",)), ("ok", ("a",))]
    assert (found[0].found, found[0].reason, found[0].remedy) == ("s3://b cannot be written", "403", "Keys.")
