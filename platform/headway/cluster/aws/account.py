"""What a cluster needs in an AWS account before its first machine: a network, a group, a key, two roles. They are its
own, all of them tagged, all of them removed by `down`.

Ray's launcher would share one role among all clusters of an account (full access to EC2 and S3), and open port 22 to
the world. Here the head may make and end machines of its own cluster only, the workers reach the bucket and nothing
else, and no port is open to anybody: `up` comes in by a session of AWS (SSM), the machines reach each other.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headway.cluster.aws import policies
from headway.cluster.aws.clients import client
from headway.cluster.aws.market import CLUSTER, ID, Left
from headway.cluster.aws.refusals import code_of, told
from headway.cluster.market import Refused
from headway.errors import BadInput

RESOLVE = "resolve:ssm:"
"""Before an image's name among AWS's public parameters: it is looked up once, so that all machines have the same."""
GONE = ("InvalidGroup.NotFound", "InvalidKeyPair.NotFound", "NoSuchEntity")
GROUP_S = 20.0
"""For so long machines that have ended may still hold their security group."""
ROLES_S = 30.0
"""After so long a new role is known everywhere in AWS; before, a machine may be refused for it."""


@dataclass(frozen=True)
class Found:
    """What machines are launched with.

    Args:
        account: the account's number.
        subnets: ids.
        zones: of the subnets, by their ids.
        group: the cluster's security group.
        key: the key pair's name.
        profiles: instance profiles' names of the `head` and the `worker`, where the file names none.
    """

    account: str
    subnets: Sequence[str]
    zones: Mapping[str, str]
    group: str
    key: str
    profiles: Mapping[str, str]


class Account:
    """An AWS account, for one cluster in one region.

    Args:
        cluster: its name.
        region: like "eu-central-1".
        id: of the cluster. Names and tags of all that is made have it, since IAM knows no regions, and another person
            may have a cluster of the same name: what is theirs is neither used nor removed.
    """

    def __init__(self, cluster: str, region: str, id: str) -> None:
        self.cluster, self.region, self.id = cluster, region, id
        self.name = policies.name_of(cluster, id)
        marks = {CLUSTER: cluster, ID: id}
        self.tags = [{"Key": key, "Value": value} for key, value in marks.items()]
        self._whose = [{"Name": f"tag:{key}", "Values": [value]} for key, value in marks.items()]
        self._clients: dict[str, Any] = {}

    def whose(self) -> str:
        """The account's number: whether there are keys, and AWS takes them. Raises Refused, OSError."""
        with told():
            return str(self._client("sts").get_caller_identity()["Account"])

    def image(self, name: str) -> str:
        """The id of an image: `name` itself, or what AWS has below `resolve:ssm:NAME`. Raises Refused, OSError."""
        if not name.startswith(RESOLVE):
            return name
        with told():
            found = self._client("ssm").get_parameter(Name=name.removeprefix(RESOLVE))
        return str(found["Parameter"]["Value"])

    def network(self, wanted: Sequence[str]) -> dict[str, str]:
        """Zones by the subnets of a cluster: those that the file names, else those of the account's default network.

        Raises:
            BadInput: there are none.
            Refused, OSError: see `market`.
        """
        with told():
            ec2 = self._client("ec2")
            if wanted:
                subnets = ec2.describe_subnets(SubnetIds=list(wanted))["Subnets"]
            else:
                default = [{"Name": "default-for-az", "Values": ["true"]}]
                subnets = ec2.describe_subnets(Filters=default)["Subnets"]
        if not subnets:
            remedy = "Name subnets: node_config.SubnetIds of a node type."
            raise BadInput(f"no default network in {self.region}", "so it is not known where machines belong", remedy)
        if len({subnet["VpcId"] for subnet in subnets}) > 1:
            raise BadInput("SubnetIds name several VPCs", "a cluster's machines must reach each other")
        return {subnet["SubnetId"]: subnet["AvailabilityZone"] for subnet in subnets}

    def group(self, subnet: str, rules: Sequence[Mapping[str, Any]]) -> str:
        """The cluster's own security group, made if need be: machines reach each other, and nobody reaches them.

        Args:
            subnet: in the network where it belongs.
            rules: of the file, `provider.security_group.IpPermissions`: who else may come in.
        """
        ec2 = self._client("ec2")
        with told():
            network = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
            inside = [*self._whose, {"Name": "vpc-id", "Values": [network]}]
            there = ec2.describe_security_groups(Filters=inside)["SecurityGroups"]
            if there:
                return str(there[0]["GroupId"])
            spec = [{"ResourceType": "security-group", "Tags": self.tags}]
            made = ec2.create_security_group(
                GroupName=self.name, Description="Machines of one Ray cluster", VpcId=network, TagSpecifications=spec
            )["GroupId"]
            among = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": made}]}
            ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=[among, *rules])
        return str(made)

    def key(self, file: Path) -> str:
        """The cluster's own key pair: its name. What is secret of it is in a file, which only its user may read.

        Raises:
            BadInput: EC2 has it, and the file is gone.
            Refused, OSError: see `market`; or the disk says no.
        """
        name, ec2 = self.name, self._client("ec2")
        if file.exists():
            return name
        spec = [{"ResourceType": "key-pair", "Tags": self.tags}]
        try:
            with told():
                pair = ec2.create_key_pair(KeyName=name, KeyType="ed25519", TagSpecifications=spec)
        except Refused as refused:
            if code_of(refused) != "InvalidKeyPair.Duplicate":
                raise
            remedy = f"`headway cluster down {self.cluster}` removes it, or use another name."
            raise BadInput(f"EC2 has a key pair {name}", f"and {file} is not here", remedy) from refused
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
            out.write(pair["KeyMaterial"])
        return name

    def roles(self, documents: Mapping[str, policies.Policy], say: Callable[[str], None]) -> dict[str, str]:
        """An instance profile for each part of the cluster ("head", "worker"), made if need be: their names."""
        names = {part: policies.role_of(self.cluster, self.id, part) for part in documents}
        made = [self._role(names[part], document) for part, document in documents.items()]
        if any(made):
            say(f"made the roles {', '.join(names.values())}")
        return names

    def forget(self) -> list[Left]:
        """Remove the group, the key and the roles; returns what would not go. None of it costs anything.

        Raises:
            OSError: AWS cannot be reached.
        """
        ec2, left = self._client("ec2"), list[Left]()
        with told():
            groups = [one["GroupId"] for one in ec2.describe_security_groups(Filters=self._whose)["SecurityGroups"]]
            keys = [pair["KeyName"] for pair in ec2.describe_key_pairs(Filters=self._whose)["KeyPairs"]]
        stay = [group for group in groups if not _gone_soon(partial(ec2.delete_security_group, GroupId=group))]
        left += [Left("security group", group, costs=False) for group in stay]
        stay = [key for key in keys if not _gone(partial(ec2.delete_key_pair, KeyName=key))]
        left += [Left("key pair", key, costs=False) for key in stay]
        for part in ("head", "worker"):
            role = policies.role_of(self.cluster, self.id, part)
            if not self._forget_role(role):
                left.append(Left("role", role, costs=False))
        return left

    def _role(self, name: str, document: policies.Policy) -> bool:
        """Whether it was made. What it may do is said anew each time."""
        iam, new = self._client("iam"), False
        with told():
            try:
                iam.get_role(RoleName=name)
            except iam.exceptions.NoSuchEntityException:
                trust = json.dumps(policies.trust())
                iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=self.tags)
                new = True
            iam.put_role_policy(RoleName=name, PolicyName="headway", PolicyDocument=json.dumps(document))
            try:
                profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
            except iam.exceptions.NoSuchEntityException:
                profile = iam.create_instance_profile(InstanceProfileName=name, Tags=self.tags)["InstanceProfile"]
                new = True
            if not profile.get("Roles"):
                iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return new

    def _forget_role(self, name: str) -> bool:
        iam = self._client("iam")
        steps = (
            lambda: iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name),
            lambda: iam.delete_instance_profile(InstanceProfileName=name),
            lambda: iam.delete_role_policy(RoleName=name, PolicyName="headway"),
            lambda: iam.delete_role(RoleName=name),
        )
        gone = [_gone(step) for step in steps]  # each of them, whatever becomes of another
        return all(gone)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = client(service, self.region)
        return self._clients[service]


def patiently(act: Callable[[], Any], say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Any:
    """Do what needs a role that was just made: until AWS knows it everywhere it says that there is none."""
    deadline = clock() + ROLES_S
    said = False
    while True:
        try:
            return act()
        except Refused as refused:
            if "iamInstanceProfile" not in refused.reason.replace("IamInstanceProfile", "iamInstanceProfile"):
                raise
            if clock() >= deadline:
                raise
            if not said:
                say("waiting until AWS knows the new role everywhere")
            said = True
            time.sleep(2.0)


def _gone(remove: Callable[[], Any]) -> bool:
    """Whether something is not there any more."""
    try:
        with told():
            remove()
    except Refused as refused:
        return code_of(refused) in GONE
    return True


def _gone_soon(remove: Callable[[], Any]) -> bool:
    """The same of what is still in use, for as long as machines that have ended take to let go of it."""
    deadline = time.monotonic() + GROUP_S
    while not _gone(remove):
        if time.monotonic() >= deadline:
            return False
        time.sleep(3.0)
    return True
