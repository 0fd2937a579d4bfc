"""How places in the cloud are spoken to; what a user's config file says under `store:`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Options(BaseModel):
    """Settings of one object store. Keys come from the environment and the clouds' own files, and are never in here."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    endpoint: str | None = None
    """URL of a service that is not the cloud's own, like http://host:9000."""
    region: str | None = None
    """Of the bucket; Amazon is asked for it when not given."""
    anonymous: bool = False
    """Sign nothing."""
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    """Encryption by S3 of all that is written; the bucket's own when not given."""
    kms_key: str | None = None
    """The key that aws:kms encrypts with; the account's own when not given."""
    bucket_key: bool | None = None
    """Whether S3 makes one data key for the bucket; the bucket's own setting when not given."""
    acl: str | None = None
    """Canned ACL of all that is written in S3, like bucket-owner-full-control."""
    retries: Annotated[int, Field(ge=0, le=1000)] = 8
    """How often a request is tried again, with growing, random pauses."""
    timeout_s: Annotated[float, Field(ge=0.01, le=86400)] = 20.0
    """Seconds after which a request is given up; for a large body, seconds without a byte of it."""

    @field_validator("retries", "timeout_s", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any) -> Any:
        if isinstance(value, bool):  # pydantic takes true for 1
            raise ValueError(f"is {str(value).lower()}, which is no value for it")
        return value

    @field_validator("endpoint")
    @classmethod
    def _a_url(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        if "@" in parts.netloc or parts.query:
            raise ValueError("holds a name or a key, which would be kept in records: keys belong into the environment")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("is no URL: write it like http://host:9000")
        return endpoint.rstrip("/")

    @model_validator(mode="after")
    def _keys_for_what_encrypts(self) -> Self:
        if (self.kms_key is not None or self.bucket_key is not None) and self.sse not in ("aws:kms", "aws:kms:dsse"):
            raise ValueError("kms_key and bucket_key are for sse: aws:kms")
        return self
