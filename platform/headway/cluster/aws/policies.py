"""What a cluster's machines, and whoever starts it, may do in an account: no more than they need.

    python -m headway.cluster.aws.policies cluster/aws/spot.yaml --account 123456789012

prints them for a cluster's file, as JSON: those of its head and its workers, which `headway cluster up` gives them, and
the one that the person needs who calls it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from headway.cluster.aws.market import CLUSTER

Policy = dict[str, Any]
SSM = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)
"""What a machine needs to be reached by a session of AWS, with no port open to anybody."""
_LAUNCHING = ("subnet", "security-group", "key-pair", "network-interface", "volume", "spot-instances-request")
_LOOKING = (
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVolumes",
    "ec2:DescribeVpcs",
)


def name_of(cluster: str, id: str) -> str:
    """What a cluster's key pair and group are called: another of its name, in whatever region, has others."""
    return f"headway-{cluster}-{id[:8]}"


def role_of(cluster: str, id: str, part: str) -> str:
    """The name of the role, and of its instance profile, of a cluster's `head` or `worker`. IAM takes 64 characters."""
    return f"{name_of(cluster, id)}-{part}"


def trust() -> Policy:
    """Who may take such a role: machines of EC2."""
    principal = {"Service": "ec2.amazonaws.com"}
    return _policy([{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}])


def head(cluster: str, region: str, account: str, runs: str | None, reads: Sequence[str] = (), id: str = "*") -> Policy:
    """The head makes and ends machines that carry its cluster's tag, and gives them the workers' role; nothing else.

    Args:
        cluster: its name.
        region: like "eu-central-1".
        account: its number.
        runs: where runs are kept; only a bucket of S3 needs rights.
        reads: buckets, or places in them, that are read.
        id: of this cluster; that of any of its name if left out.
    """
    worker = f"arn:aws:iam::{account}:role/{role_of(cluster, id, 'worker')}"
    return _policy([*_machines(cluster, region, account), _pass(worker), _session(), *_storage(runs, reads)])


def worker(runs: str | None, reads: Sequence[str] = ()) -> Policy:
    """A worker has its runs and its data, and can be reached by a session."""
    return _policy([_session(), *_storage(runs, reads)])


def person(cluster: str, region: str, account: str) -> Policy:
    """Whoever calls `headway cluster up`, `status` and `down`."""
    ours = f"arn:aws:iam::{account}"
    role = f"{ours}:role/{role_of(cluster, '*', '*')}"
    here = {"StringEquals": {"aws:RequestedRegion": region}}
    return _policy(
        [
            *_machines(cluster, region, account),
            _pass(role),
            _allow(
                (
                    *("ec2:CreateSecurityGroup", "ec2:DeleteSecurityGroup", "ec2:AuthorizeSecurityGroupIngress"),
                    *("ec2:CreateKeyPair", "ec2:DeleteKeyPair"),
                ),
                "*",
                here,
            ),
            _allow(
                (
                    *("iam:CreateRole", "iam:DeleteRole", "iam:GetRole", "iam:TagRole"),
                    *("iam:PutRolePolicy", "iam:DeleteRolePolicy"),
                    *("iam:CreateInstanceProfile", "iam:DeleteInstanceProfile", "iam:GetInstanceProfile"),
                    *("iam:AddRoleToInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile"),
                ),
                [role, f"{ours}:instance-profile/{role_of(cluster, '*', '*')}"],
            ),
            _allow(("ssm:GetParameter", "ssm:GetParameters"), f"arn:aws:ssm:{region}::parameter/aws/service/*"),
            _allow(
                ("ssm:StartSession",),
                f"arn:aws:ec2:{region}:{account}:instance/*",
                {"StringEquals": {f"ssm:resourceTag/{CLUSTER}": cluster}},
            ),
            _allow(("ssm:StartSession",), f"arn:aws:ssm:{region}::document/AWS-StartSSHSession"),
            _allow(("ssm:TerminateSession", "ssm:ResumeSession"), "arn:aws:ssm:*:*:session/${aws:username}-*"),
        ]
    )


def _machines(cluster: str, region: str, account: str) -> list[Policy]:
    """To make machines with the cluster's tag, to end those that have it, and to look."""
    ours = f"arn:aws:ec2:{region}:{account}"
    tagged = {"StringEquals": {f"aws:RequestTag/{CLUSTER}": cluster}}
    theirs = {"StringEquals": {f"aws:ResourceTag/{CLUSTER}": cluster}}
    making = {"StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateSecurityGroup", "CreateKeyPair"]}}
    return [
        _allow(_LOOKING, "*"),
        _allow(("ec2:RunInstances",), f"{ours}:instance/*", tagged),
        _allow(
            ("ec2:RunInstances",),
            [*(f"{ours}:{kind}/*" for kind in _LAUNCHING), f"arn:aws:ec2:{region}::image/*"],
        ),
        _allow(("ec2:CreateTags",), f"{ours}:*/*", making),
        _allow(("ec2:CreateTags",), f"{ours}:instance/*", theirs),
        _allow(("ec2:TerminateInstances",), f"{ours}:instance/*", theirs),
    ]


def _pass(role: str) -> Policy:
    return _allow(("iam:PassRole",), role, {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}})


def _session() -> Policy:
    return _allow(SSM, "*")


def _storage(runs: str | None, reads: Sequence[str]) -> list[Policy]:
    found = []
    for place, writes in [(runs or "", True), *((place, False) for place in reads)]:
        parts = urlsplit(place)
        if parts.scheme not in ("s3", "s3a"):
            continue
        bucket, inside = f"arn:aws:s3:::{parts.netloc}", parts.path.strip("/")
        within = {"StringLike": {"s3:prefix": [inside, f"{inside}/*"]}} if inside else None
        actions = ("s3:GetObject", *(("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload") if writes else ()))
        found.append(_allow(("s3:ListBucket",), bucket, within))
        found.append(_allow(actions, f"{bucket}/{inside}/*" if inside else f"{bucket}/*"))
    return found


def _allow(actions: Sequence[str], resource: Any, condition: Policy | None = None) -> Policy:
    said = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return said | ({"Condition": condition} if condition else {})


def _policy(statements: Sequence[Policy]) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _main(arguments: Sequence[str]) -> None:
    import argparse

    from headway.cluster.file import load

    parser = argparse.ArgumentParser(prog="python -m headway.cluster.aws.policies", description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--account", required=True)
    given = parser.parse_args(arguments)
    file = load(given.file)
    region, said = str(file.tree["provider"]["region"]), file.headway
    said_all = {
        "person": person(file.name, region, given.account),
        "head": head(file.name, region, given.account, said.runs, said.reads),
        "worker": worker(said.runs, said.reads),
        "trust": trust(),
    }
    print(json.dumps(said_all, indent=2))


if __name__ == "__main__":
    _main(sys.argv[1:])
