"""obstore's clients, one for each kind of request, and where their keys come from."""

from __future__ import annotations

import configparser
import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from headway.errors import BadInput
from headway.storage.answers import said
from headway.storage.options import Options
from headway.storage.protocol import OutOfReach

Kind = Literal["ask", "read", "upload"]
"""What is asked and written; read; or sent in parts, which obstore tries again itself."""

AZURE = "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN"
KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
    "az": AZURE,
}
_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_regions: dict[str, str] = {}


def keys_of(scheme: str) -> dict[str, Any]:
    """Keys as the clouds' own tools find them, in obstore's names; nothing where obstore finds and renews them itself.

    That is so for roles of machines, containers and web identities, for Google's files and for Azure's identities.
    """
    environment = os.environ
    if scheme == "az":
        found = {
            "account_key": environment.get("AZURE_STORAGE_KEY") or environment.get("AZURE_STORAGE_ACCOUNT_KEY"),
            "sas_key": environment.get("AZURE_STORAGE_SAS_TOKEN"),
        }
        return {name: value for name, value in found.items() if value}
    if scheme != "s3":
        return {}
    if environment.get("AWS_ACCESS_KEY_ID"):
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return _s3_keys(*(environment.get(name, "") for name in names))
    if any(environment.get(name) for name in ("AWS_WEB_IDENTITY_TOKEN_FILE", *_CONTAINER)):
        return {}
    parser = configparser.RawConfigParser()
    try:
        parser.read(Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser())
        section = parser[environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"]
    except (KeyError, OSError, RuntimeError, configparser.Error):  # nor may the user have a home
        return {}
    return _s3_keys(
        *(section.get(f"aws_{name}", "") for name in ("access_key_id", "secret_access_key", "session_token"))
    )


def _s3_keys(name: str, secret: str, token: str) -> dict[str, Any]:
    found = {"access_key_id": name, "secret_access_key": secret, "session_token": token}
    return {key: value for key, value in found.items() if value} if name and secret else {}


def client_for(scheme: str, bucket: str, options: Options, keys: dict[str, Any], kind: Kind, times: int) -> Any:
    """A client.

    Args:
        scheme: of the cloud.
        bucket: that it is for.
        options: as the user gave them.
        keys: as `keys_of` gave them.
        kind: of the requests.
        times: so many times as long as usual may a request take.

    Raises:
        BadInput: something is wrong with the settings.
        OutOfReach: the bucket's region cannot be had.
    """
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    patience = timedelta(seconds=options.timeout_s)
    client: Any = {"connect_timeout": timedelta(seconds=min(5.0, options.timeout_s)), "timeout": times * patience}
    if kind == "read":
        client |= {"timeout": 30 * patience, "read_timeout": patience}
    elif kind == "upload":
        client |= {"timeout": 6 * patience}
    retry: Any = {
        "max_retries": options.retries if kind == "upload" else 0,
        "retry_timeout": timedelta(seconds=60 * options.timeout_s),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10), "base": 2},
    }
    settings: dict[str, Any] = dict(keys)
    if options.anonymous:
        settings = {"skip_signature": True}
    endpoint = options.endpoint or _usual_endpoint(scheme)
    if endpoint:
        client["allow_http"] = endpoint.startswith("http://")
        settings["base_url" if scheme == "gs" else "endpoint"] = endpoint
    try:
        if scheme == "s3":
            settings["region"] = _region(bucket, options, endpoint)
            settings |= _encryption(options)
            if options.acl and kind != "read":
                client["default_headers"] = {"x-amz-acl": options.acl}
            return S3Store(bucket, client_options=client, retry_config=retry, **settings)
        if scheme == "gs":
            return GCSStore(bucket, client_options=client, retry_config=retry, **settings)
        account = os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        if not account:
            raise BadInput(f"az://{bucket} cannot be opened", "it names a container but no account", f"Set {AZURE}.")
        return AzureStore(bucket, account_name=account, client_options=client, retry_config=retry, **settings)
    except (BaseError, ValueError) as error:
        raise BadInput(f"{scheme}://{bucket} cannot be opened", said(str(error)), f"Check {KEYS[scheme]}.") from None


def _usual_endpoint(scheme: str) -> str | None:
    """What the cloud's own tools take from the environment."""
    names = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "az": ("AZURE_STORAGE_ENDPOINT",), "gs": ()}[scheme]
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _encryption(options: Options) -> dict[str, Any]:
    given = {
        "server_side_encryption": options.sse,
        "sse_kms_key_id": options.kms_key,
        "sse_bucket_key_enabled": options.bucket_key,
    }
    return {name: value for name, value in given.items() if value is not None}


def _region(bucket: str, options: Options, endpoint: str | None) -> str:
    """Where a bucket is: as given, or as Amazon says when it is asked, once per process."""
    given = options.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if given or endpoint:
        return given or "us-east-1"
    if bucket not in _regions:
        from pyarrow.fs import resolve_s3_region

        try:
            _regions[bucket] = resolve_s3_region(bucket)
        except OSError as error:
            fact, remedy = f"the region of the bucket {bucket} cannot be found", "Check its name, or give store.region."
            kind = BadInput if "not found" in str(error) else OutOfReach
            raise kind(fact, said(str(error)), remedy) from None
    return _regions[bucket]
