"""`headway cluster` on AWS, against moto, with ssh that does nothing: up, what machines are told, down, failures."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit import aws

from headway.cluster import verbs
from headway.cluster.aws import cluster, policies
from headway.cluster.aws.market import Aws
from headway.cluster.file import LONGEST_NAME, parse
from headway.cluster.known import StillThere
from headway.cluster.markets import open_market
from headway.cluster.teardown import Left
from headway.errors import BadInput, HeadwayError
from headway.testing.ec2 import REGION, Ec2


@pytest.fixture(scope="module")
def service() -> Iterator[Ec2]:
    with Ec2() as ec2:
        yield ec2


@pytest.fixture
def ec2(service: Ec2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ec2:
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HEADWAY_CLUSTERS", str(tmp_path / "clusters"))
    monkeypatch.setattr("headway.cluster.aws.cluster.SETTLE_S", 0.0)
    monkeypatch.setattr("headway.cluster.aws.cluster.UNSURE_S", 0.0)
    service.allow()
    service.calls.clear()
    return service


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> aws.Programs:
    programs = aws.Programs(tmp_path / "bin", {})
    monkeypatch.setenv("PATH", programs.path)
    return programs


def all_there(ec2: Ec2, name: str) -> dict[str, Any]:
    """What the account has of a cluster, whoever made it."""
    client, iam, whose = ec2.client(), ec2.client("iam"), [{"Name": "tag:ray-cluster-name", "Values": [name]}]
    return {
        "machines": [machine.id for machine in Aws(name, REGION).machines()],
        "groups": client.describe_security_groups(Filters=whose)["SecurityGroups"],
        "keys": [
            pair for pair in client.describe_key_pairs()["KeyPairs"] if pair["KeyName"].startswith(f"headway-{name}-")
        ],
        "roles": [role for role in iam.list_roles()["Roles"] if role["RoleName"].startswith(f"headway-{name}-")],
        "profiles": [
            profile
            for profile in iam.list_instance_profiles()["InstanceProfiles"]
            if profile["InstanceProfileName"].startswith(f"headway-{name}-")
        ],
    }


NOTHING: dict[str, Any] = {"machines": [], "groups": [], "keys": [], "roles": [], "profiles": []}


def test_up_and_down(ec2: Ec2, programs: aws.Programs, tmp_path: Path) -> None:
    """One cluster from nothing to nothing; the head's first option is not to be had."""
    file = aws.file(ec2, "whole", tmp_path / "c.yaml")
    ec2.refuse("InsufficientInstanceCapacity", type="m7i.large")
    said: list[str] = []
    known = cluster.up(file, aws.made(file), said.append)

    assert any("refused: InsufficientInstanceCapacity" in line for line in said)
    seen = cluster.status(known)
    assert (seen.state, len(seen.nodes)) == ("up", 1)
    head = seen.nodes[0]
    assert (head.type, head.option) == ("head", f"m6i.large in {REGION}b")
    assert known.jobs == "http://127.0.0.1:8265"
    assert known.address == f"{head.ip}:6379"
    assert seen.ends_at == known.since + 8 * 3600

    way = cluster.ssh(known)
    assert way[-1] == f"ubuntu@{head.name}", "by AWS's sessions: no port is open there"
    assert any(each.startswith("ProxyCommand=aws ssm") for each in way)
    assert "StrictHostKeyChecking=accept-new" in way
    assert f'UserKnownHostsFile="{known.folder}/known_hosts"' in way
    assert f"HostKeyAlias={head.name}" in way

    # what it was launched with: its own group, where nobody else comes in, its own role, its own key
    (group,) = all_there(ec2, "whole")["groups"]
    (rule,) = group["IpPermissions"]
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group["GroupId"]]
    assert not rule.get("IpRanges")
    assert not rule.get("Ipv6Ranges")
    asked = ec2.named("RunInstances")[-1].parameters
    ours = f"headway-whole-{known.id[:8]}"
    assert asked["IamInstanceProfile.Name"] == f"{ours}-head"
    assert asked["SecurityGroupId.1"] == group["GroupId"]
    assert stat.S_IMODE((known.folder / "key.pem").stat().st_mode) == 0o600
    document = ec2.client("iam").get_role_policy(RoleName=f"{ours}-worker", PolicyName="headway")
    assert "s3:PutObject" in str(document["PolicyDocument"])
    assert "ec2:" not in str(document["PolicyDocument"]).replace("Service", "")

    # what was run there
    assert "ProxyCommand=aws ssm start-session --region" in programs.said
    assert f"ubuntu@{head.name}" in programs.said
    assert "--dashboard-host=127.0.0.1" in programs.said
    assert "RAY_health_check_timeout_ms=2000" in programs.said
    assert "RAY_AUTH_MODE=token" in programs.said
    assert "headway.cluster.agent unit --notices aws" in programs.said
    assert "headway.cluster.keeper" in programs.said
    assert "sudo shutdown -P +" in programs.said
    sent = [call for call in programs.calls if call[0] == "rsync"]
    assert any(".headway/package/headway" in " ".join(call) for call in sent)
    pins = (known.folder / "requirements.txt").read_text().split()
    assert "ray==2.60.0" in pins
    assert all("==" in line for line in pins)
    assert any(line.startswith("boto3==") for line in pins)

    # and what Ray's autoscaler gets
    tree = json.loads((known.folder / "ray.json").read_text())
    worker = tree["available_node_types"]["worker"]["node_config"]
    assert worker["IamInstanceProfile"] == {"Name": f"{ours}-worker"}
    assert [(one["type"], one["zone"]) for one in worker["headway"]["one_of"]] == [
        ("c7i.xlarge", f"{REGION}a"),
        *(("c6i.xlarge", zone) for zone in sorted(set(ec2.subnets.values()))),
    ]
    assert tree["provider"]["disable_node_updaters"] is False
    assert tree["provider"]["market"] == "aws"

    # which its own reader takes, and makes of it what a worker runs
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    del tree["head_node"]  # as Ray's launcher does for the head
    seen_by_ray = AutoscalingConfig(tree, skip_content_hash=True)
    lines = seen_by_ray.get_worker_setup_commands("worker")
    assert len(lines) == len(set(lines)) == 4
    assert not seen_by_ray.disable_node_updaters()
    assert [*seen_by_ray.get_node_type_configs()["worker"].resources.items()] == [("CPU", 4)]

    gone = cluster.down(known, said.append)
    assert gone.leftovers == []
    assert gone.kept == []
    assert gone.ended == [f"{head.name} (m6i.large in {REGION}b)"]
    assert all_there(ec2, "whole") == NOTHING
    assert cluster.status(known).state == "down"
    with pytest.raises(BadInput, match="has no head now"):
        cluster.ssh(known)
    assert cluster.down(known, said.append).ended == [], "down again is no error"


def test_nothing_is_left_of_an_up_that_fails(ec2: Ec2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = aws.Programs(tmp_path / "bin", {"rsync": "echo 'disk full' >&2; exit 11"})
    monkeypatch.setenv("PATH", programs.path)
    file = aws.file(ec2, "half", tmp_path / "c.yaml")
    with pytest.raises(HeadwayError, match="the head could not be set up"):
        cluster.up(file, aws.made(file), print)
    assert ec2.named("RunInstances"), "it got so far as to have a machine"
    assert all_there(ec2, "half") == NOTHING


def test_nothing_is_left_where_ec2_refuses(ec2: Ec2, programs: aws.Programs, tmp_path: Path) -> None:
    file = aws.file(ec2, "refused", tmp_path / "c.yaml")
    ec2.refuse("UnauthorizedOperation")
    with pytest.raises(HeadwayError, match=r"AWS will not: UnauthorizedOperation.*See the rights in"):
        cluster.up(file, aws.made(file), print)
    assert all_there(ec2, "refused") == NOTHING


def test_nothing_is_left_where_it_is_interrupted(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("headway.cluster.aws.launcher.run", interrupted)
    file = aws.file(ec2, "cut", tmp_path / "c.yaml")
    with pytest.raises(KeyboardInterrupt):
        cluster.up(file, aws.made(file), print)
    assert ec2.named("RunInstances")
    assert all_there(ec2, "cut") == NOTHING


def test_a_volume_that_outlives_its_machine_is_a_leak(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.cluster.aws.launcher.run", lambda *_, **__: None)
    file = aws.file(ec2, "leaky", tmp_path / "c.yaml")
    known = cluster.up(file, aws.made(file), print)
    tags = [{"Key": key, "Value": value} for key, value in Aws("leaky", REGION, known.id).marks.items()]
    spec = [{"ResourceType": "volume", "Tags": tags}]
    volume = ec2.client().create_volume(AvailabilityZone=f"{REGION}a", Size=1, TagSpecifications=spec)["VolumeId"]
    assert cluster.down(known, print).leftovers == [f"volume {volume}"]
    ec2.client().delete_volume(VolumeId=volume)


def test_iam_takes_the_longest_name() -> None:
    assert max(len(policies.role_of("n" * LONGEST_NAME, "0" * 16, part)) for part in ("head", "worker")) <= 64


def test_another_persons_cluster_of_the_same_name_is_left_alone(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one account: a second `up` and its end take nothing of the first: no key, no role, no group, no machine."""
    monkeypatch.setattr("headway.cluster.aws.launcher.run", lambda *_, **__: None)
    file = aws.file(ec2, "shared", tmp_path / "c.yaml")
    first = cluster.up(file, aws.made(file), print)
    before = all_there(ec2, "shared")
    monkeypatch.setenv("HEADWAY_CLUSTERS", str(tmp_path / "another's"))
    second = cluster.up(file, aws.made(file), print)
    assert second.id != first.id
    assert {kind: len(found) for kind, found in all_there(ec2, "shared").items()} == {
        kind: 2 * len(found) for kind, found in before.items()
    }
    assert cluster.down(second, print).kept == []
    assert all_there(ec2, "shared") == before
    monkeypatch.setenv("HEADWAY_CLUSTERS", str(tmp_path / "clusters"))
    cluster.down(first, print)
    assert all_there(ec2, "shared") == NOTHING


def test_what_is_missing_here_is_named_before_anything_is_bought(
    ec2: Ec2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = aws.Programs(tmp_path / "bin", {})
    (programs.folder / "session-manager-plugin").unlink()
    monkeypatch.setenv("PATH", str(programs.folder))
    file = aws.file(ec2, "poor", tmp_path / "c.yaml")
    with pytest.raises(BadInput, match=r"session-manager-plugin is not here.*Install AWS's session-manager-plugin"):
        cluster.up(file, aws.made(file), print)
    assert not ec2.named("RunInstances")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConnectionError("the answer was lost")])
def test_a_head_that_ec2_may_list_late_is_looked_for_long(
    error: BaseException, ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that makes it was cut short: nobody knows whether there is one."""
    file, settled = aws.file(ec2, f"late-{type(error).__name__.lower()}", tmp_path / "c.yaml"), list[float]()
    monkeypatch.setattr("headway.cluster.aws.cluster.UNSURE_S", 60.0)

    def taken(market: Aws, settle_s: float, **_: Any) -> Left:
        settled.append(settle_s)
        return Left()

    def cut(**_: Any) -> None:
        raise error

    monkeypatch.setattr("headway.cluster.aws.cluster.tear_down", taken)
    client = Aws("any", REGION)._ec2(attempts=1)
    monkeypatch.setattr(client, "run_instances", cut)
    monkeypatch.setattr(Aws, "_ec2", lambda self, attempts=5: client)
    with pytest.raises((KeyboardInterrupt, HeadwayError)):
        cluster.up(file, aws.made(file), print)
    assert settled == [60.0]


def test_a_machine_that_is_never_set_up_has_an_end(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and worker alike, from the moment they are bought."""
    monkeypatch.setattr("headway.cluster.aws.launcher.run", lambda *_, **__: None)
    file = aws.file(ec2, "ending", tmp_path / "c.yaml")
    known = cluster.up(file, aws.made(file), print)
    tree = json.loads((known.folder / "ray.json").read_text())
    config = dict(tree["available_node_types"]["worker"]["node_config"])
    config.pop("headway")
    option = file.workers["worker"].one_of[0].option
    open_market(tree["provider"], "ending").launch(option, {"ray-node-type": "worker"}, config, known.id)
    scripts = [base64.b64decode(call.parameters["UserData"]).decode() for call in ec2.named("RunInstances")]
    assert len(scripts) == 2
    for script in scripts:
        stub = tmp_path / "shutdown"
        stub.write_text('#!/bin/sh\necho "$@"\n')
        stub.chmod(0o700)
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=path)
        assert done.stdout == "-P +1\n", "its time was over long ago"
        later = script.replace(f"{known.since + 8 * 3600:.0f}", "$(( $(date +%s) + 630 ))")
        done = subprocess.run(["sh", "-c", later], capture_output=True, text=True, check=True, env=path)
        assert done.stdout == "-P +11\n"
    cluster.down(known, print)


def test_what_cannot_be_taken_back_stays_known(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EC2 will not end the machine of an `up` that failed: it is named, and `down` ends it later."""

    def fails(*_: Any, **__: Any) -> None:
        raise HeadwayError("the head could not be set up")

    monkeypatch.setattr("headway.cluster.aws.launcher.run", fails)
    monkeypatch.setattr("headway.cluster.aws.cluster.PATIENCE_S", 0.0)
    ec2.refuse("UnauthorizedOperation", call="TerminateInstances")
    file = aws.file(ec2, "stuck", tmp_path / "c.yaml")
    with pytest.raises(StillThere, match=r"of cluster stuck something is still there: .*UnauthorizedOperation"):
        verbs.up(file.path, None, print)
    ec2.allow()
    monkeypatch.setattr("headway.cluster.aws.cluster.PATIENCE_S", 60.0)
    assert len(verbs.down("stuck", print).ended) == 1
    assert all_there(ec2, "stuck") == NOTHING


def test_one_that_is_interrupted_twice_stays_known(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control-C, and again while the machine is taken back: it runs and is paid, so it is not forgotten."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    file = aws.file(ec2, "twice", tmp_path / "c.yaml")
    with monkeypatch.context() as patched:
        patched.setattr("headway.cluster.aws.launcher.run", interrupted)
        patched.setattr("headway.cluster.aws.cluster.tear_down", interrupted)
        with pytest.raises(StillThere, match=r"of cluster twice something may be there: .*KeyboardInterrupt"):
            verbs.up(file.path, None, print)
    assert len(verbs.down("twice", print).ended) == 1
    assert all_there(ec2, "twice") == NOTHING


def test_a_changed_file_is_followed_unless_it_needs_another_head(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[bool] = []
    monkeypatch.setattr("headway.cluster.aws.launcher.run", lambda *_, restart=True: ran.append(restart))
    file = aws.file(ec2, "changing", tmp_path / "c.yaml")
    known = cluster.up(file, aws.made(file), print)
    text = file.path.read_text()
    assert cluster.apply(file, known, print) == []
    more = parse(file.path, text.replace("max_workers: 2", "max_workers: 3"))
    assert "max_workers changed" in cluster.apply(more, known, print)
    assert ran == [True, False], "Ray is not started anew, and what is the same is left alone"
    before = (known.folder / "ray.json").read_text()
    with pytest.raises(BadInput, match="asks for another head"):
        cluster.apply(parse(file.path, text.replace("type: m6i.large", "type: m5.large")), known, print)
    assert (known.folder / "ray.json").read_text() == before
    cluster.down(known, print)


def test_a_change_that_fails_is_a_change_the_next_time(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails, ran = [False], list[bool]()

    def run(*_: Any, restart: bool = True) -> None:
        if fails[0]:
            raise HeadwayError("the head cannot be reached")
        ran.append(restart)

    monkeypatch.setattr("headway.cluster.aws.launcher.run", run)
    file = aws.file(ec2, "failing", tmp_path / "c.yaml")
    known = cluster.up(file, aws.made(file), print)
    more = parse(file.path, file.path.read_text().replace("max_workers: 2", "max_workers: 3"))
    fails[0] = True
    with pytest.raises(HeadwayError, match="cannot be reached"):
        cluster.apply(more, known, print)
    fails[0] = False
    assert "max_workers changed" in cluster.apply(more, known, print)
    assert ran == [True, False]
    cluster.down(known, print)


def test_machines_that_run_are_told_of_another_end(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would shut itself down at the time of the first `up`, under the run."""
    monkeypatch.setattr("headway.cluster.aws.launcher.run", lambda *_, **__: None)
    file = aws.file(ec2, "longer", tmp_path / "c.yaml")
    known = cluster.up(file, aws.made(file), print)
    (head,) = Aws("longer", REGION, known.id).machines()
    text = file.path.read_text()
    longer = parse(file.path, text.replace("stop_after_hours: 8", "stop_after_hours: 20"))
    assert "stop_after_hours changed, on the machines that run too" in cluster.apply(longer, known, print)
    assert f"ubuntu@{head.id}" in programs.said
    assert f"sudo shutdown -P +$(( ({known.since + 20 * 3600:.0f} - " in programs.said
    (programs.folder / "ssh").write_text("#!/bin/sh\nexit 255\n")
    said = cluster.apply(parse(file.path, text.replace("stop_after_hours: 8, ", "")), known, print)
    assert any(line.startswith(f"{head.id} still ends when it was told before") for line in said)
    cluster.down(known, print)


def test_roles_that_an_administrator_made_are_used(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.cluster.aws.launcher.run", lambda *_, **__: None)
    ec2.client("iam").create_instance_profile(InstanceProfileName="theirs")
    path = tmp_path / "c.yaml"
    path.write_text(
        aws.text(ec2, "given").replace("node_config: {", "node_config: {IamInstanceProfile: {Name: theirs}, ")
    )
    known = cluster.up(parse(path, path.read_text()), aws.made(parse(path, path.read_text())), print)
    assert ec2.named("RunInstances")[-1].parameters["IamInstanceProfile.Name"] == "theirs"
    assert all_there(ec2, "given")["roles"] == []
    assert not ec2.named("CreateRole")
    assert cluster.down(known, print).kept == []
    assert ec2.client("iam").get_instance_profile(InstanceProfileName="theirs")


def test_what_costs_nothing_and_will_not_go_is_named(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.cluster.aws.launcher.run", lambda *_, **__: None)
    monkeypatch.setattr("headway.cluster.aws.account.GROUP_S", 0.0)
    file = aws.file(ec2, "held", tmp_path / "c.yaml")
    known = cluster.up(file, aws.made(file), print)
    ec2.refuse("DependencyViolation", call="DeleteSecurityGroup", times=1)
    done = cluster.down(known, print)
    assert done.leftovers == []
    assert [left.split()[:2] for left in done.kept] == [["security", "group"]]
    assert cluster.down(known, print).kept == []


def test_the_head_cannot_be_drained_and_a_stranger_is_not_there(
    ec2: Ec2, programs: aws.Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.cluster.aws.launcher.run", lambda *_, **__: None)
    file = aws.file(ec2, "drained", tmp_path / "c.yaml")
    known = cluster.up(file, aws.made(file), print)
    market = Aws("drained", REGION, known.id)
    head = market.machines()[0].id
    config = json.loads((known.folder / "ray.json").read_text())["available_node_types"]["worker"]["node_config"]
    config.pop("headway")
    worker = market.launch(file.workers["worker"].one_of[0].option, {"ray-node-type": "worker"}, config, "one").id
    with pytest.raises(BadInput, match="is the head"):
        cluster.drain(known, head, 30, print)
    with pytest.raises(BadInput, match="no machine 'i-none'"):
        cluster.drain(known, "i-none", 30, print)
    assert "is drained" in cluster.drain(known, worker, 30, print)
    assert f"ubuntu@{worker}" in programs.said
    assert "headway.cluster.agent drain --deadline 30s" in programs.said
    with pytest.raises(BadInput, match="grows by what its jobs ask for"):
        cluster.add(known, 1, None, print)
    assert len(cluster.down(known, print).ended) == 2
    assert all_there(ec2, "drained") == NOTHING
