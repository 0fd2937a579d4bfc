"""Clients of AWS's services."""

from __future__ import annotations

import functools
from typing import Any

from headway.cluster.aws.refusals import told
from headway.errors import BadInput


def client(service: str, region: str, attempts: int = 5) -> Any:
    """A client of a service, with the keys of this process's user or machine.

    Args:
        service: like "ec2".
        region: like "eu-central-1".
        attempts: so often a call is tried where the service is busy or away.

    Raises:
        Refused: there is no such region, or a profile is named that is not there.
        OSError: see `told`.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    retries: Any = {"mode": "standard", "total_max_attempts": attempts}
    with told():
        core = botocore.session.get_session()
        core.register_component("data_loader", _loader())
        session = boto3.Session(botocore_session=core, region_name=region)
        return session.client(service, config=Config(connect_timeout=10, read_timeout=30, retries=retries))


@functools.cache
def _loader() -> Any:
    """What reads the descriptions of services, which takes half a second for the first client of each."""
    from botocore.loaders import Loader

    return Loader()


def needed() -> None:
    """See that boto3 is there.

    Raises:
        BadInput: it is not; how it comes.
    """
    try:
        import boto3  # noqa: F401
    except ImportError:
        remedy = "Install it: pip install 'headway[aws]'."
        raise BadInput("a cluster on AWS needs boto3", "it is not installed here", remedy) from None
