"""What EC2's error codes mean to who wanted a machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headway.cluster.market import CAPACITY, FORBIDDEN, QUOTA, THROTTLED, UNKNOWN, Refused

KINDS = {
    CAPACITY: (
        "IdempotentInstanceTerminated",  # it was made, its answer was lost, and it was taken away meanwhile
        "InsufficientAddressCapacity",
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
    ),
    QUOTA: (
        "AddressLimitExceeded",
        "InstanceLimitExceeded",
        "LimitExceeded",
        "MaxSpotFleetRequestCountExceeded",
        "MaxSpotInstanceCountExceeded",
        "NetworkInterfaceLimitExceeded",
        "VcpuLimitExceeded",
        "VolumeLimitExceeded",
    ),
    THROTTLED: (
        "EC2ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    ),
    FORBIDDEN: (
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "Blocked",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "OperationNotPermitted",
        "OptInRequired",
        "PendingVerification",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    ),
    UNKNOWN: (
        "DeleteConflict",
        "DependencyViolation",
        "EntityAlreadyExists",
        "InvalidAMIID.Malformed",
        "InvalidAMIID.NotFound",
        "InvalidAMIID.Unavailable",
        "InvalidAvailabilityZone",
        "InvalidBlockDeviceMapping",
        "InvalidGroup.NotFound",
        "InvalidInstanceType",
        "InvalidKeyPair.NotFound",
        "InvalidParameter",
        "InvalidParameterCombination",
        "InvalidParameterValue",
        "InvalidSecurityGroupID.NotFound",
        "InvalidSubnet",
        "InvalidSubnetID.NotFound",
        "MalformedPolicyDocument",
        "MissingParameter",
        "NoSuchEntity",
        "ParameterNotFound",
        "UnknownParameter",
        "Unsupported",
        "UnsupportedOperation",
        "ValidationError",
    ),
}
"""Codes of EC2, IAM and SSM by what they mean (their references, "Error codes"). All others are faults of the service:
it may have done what was asked, or not."""
_KIND = {code: kind for kind, codes in KINDS.items() for code in codes}


def kind_of(code: str) -> str | None:
    """What an error code means: a kind of refusal, or None where EC2 failed and refused nothing."""
    if code in _KIND:
        return _KIND[code]
    family = code.partition(".")[0]
    return UNKNOWN if family.startswith("Invalid") or code.endswith((".NotFound", ".Malformed")) else None


@contextmanager
def told() -> Iterator[None]:
    """Around a call of boto3: its errors as a market tells them.

    Raises:
        Refused: EC2 answered, and will not.
        OSError: no answer, or one of which it is not known whether anything was done.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
        TokenRetrievalError,
    )

    try:
        yield
    except ClientError as error:
        code, message = _said(error)
        kind = kind_of(code)
        if kind is None:
            raise ConnectionError(f"EC2 failed: {code}: {message}") from error
        raise Refused(kind, f"{code}: {message}", _retry_s(error)) from error
    except (
        NoCredentialsError,
        PartialCredentialsError,
        CredentialRetrievalError,
        ProfileNotFound,
        TokenRetrievalError,
    ) as error:
        raise Refused(FORBIDDEN, f"no keys for AWS: {error}") from error
    except BotoCoreError as error:
        raise ConnectionError(f"EC2 cannot be reached: {error}") from error


def code_of(error: BaseException) -> str:
    """EC2's code in a refusal or an error of boto3; "" where there is none."""
    from botocore.exceptions import ClientError

    cause = error if isinstance(error, ClientError) else error.__cause__
    return _said(cause)[0] if isinstance(cause, ClientError) else ""


def _said(error: object) -> tuple[str, str]:
    said = getattr(error, "response", {}).get("Error", {})
    return str(said.get("Code") or "unknown error"), str(said.get("Message") or "EC2 says no more")


def _retry_s(error: object) -> float | None:
    """Seconds of its Retry-After, where there is one."""
    headers = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, TypeError, ValueError):
        return None
