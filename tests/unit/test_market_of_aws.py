"""AWS's market keeps the contract of all markets: Headway's own, on a double of EC2."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from headway.cluster.aws.market import Aws
from headway.cluster.market import Option
from headway.testing.ec2 import REGION, Ec2
from headway.testing.market import MarketContract, Stall


@pytest.fixture(scope="module")
def service() -> Iterator[Ec2]:
    with Ec2() as service:
        yield service


class TestAws(MarketContract):
    @pytest.fixture
    def stall(self, service: Ec2, monkeypatch: pytest.MonkeyPatch) -> Stall:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        name = f"c-{uuid.uuid4().hex[:12]}"
        config = {"ImageId": service.image(), "SubnetIds": list(service.subnets)}
        spot = Option("m7i.large", f"{REGION}a", spot=True)
        tags = {"ray-node-type": "worker", "ray-user-node-type": "worker"}
        # The double refuses no type of machine; what EC2 says of one is in test_aws_market.py.
        return Stall(lambda: Aws(name, REGION), spot, tags, config, lambda: Aws(f"{name}-2", REGION), missing=None)

    def test_asked_twice_with_the_same_name_there_is_one(self, stall: Stall) -> None:
        """Here of one process: EC2 knows a client's token, its double does not."""
        market, once = stall.open(), uuid.uuid4().hex
        assert stall.buy(market, once).id == stall.buy(market, once).id
        assert len(list(market.machines())) == 1
