"""What stores' answers mean: the words of Google and Azure, which no service here says."""

from __future__ import annotations

import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError, PreconditionError

from headway.storage.answers import Verdict, judge, said


def answer(status: str, body: str, name: str = "runs/a") -> str:
    asked = f"Error performing PUT https://host/bucket/{name} in 1.2ms"
    return f"Generic S3 error: {asked} - Server returned non-2xx status code: {status}: {body}\n\nDebug source:\n..."


def xml(code: str, message: str = "No") -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (GenericError(answer("503 Service Unavailable", xml("SlowDown"))), Verdict.PASSING),
        (GenericError(answer("500 Internal Server Error", "")), Verdict.PASSING),
        (GenericError("Generic S3 error: HTTP error: request or response body error"), Verdict.PASSING),
        (PermissionDeniedError(answer("403 Forbidden", xml("rateLimitExceeded"))), Verdict.PASSING),
        (AlreadyExistsError(answer("409 Conflict", xml("ConditionalRequestConflict"))), Verdict.PASSING),
        (AlreadyExistsError(answer("409 Conflict", xml("BlobAlreadyExists"))), Verdict.CONFLICT),
        (PreconditionError(answer("412 Precondition Failed", xml("ConditionNotMet"))), Verdict.CONFLICT),
        (PreconditionError(answer("404 Not Found", xml("NoSuchBucket"))), Verdict.NO_BUCKET),
        (FileNotFoundError(answer("404 Not Found", xml("ContainerNotFound"))), Verdict.NO_BUCKET),
        (FileNotFoundError(answer("404 Not Found", xml("BlobNotFound"))), Verdict.ABSENT),
        (PermissionDeniedError(answer("403 Forbidden", xml("QuotaExceeded"))), Verdict.FULL),
        (GenericError(answer("507 Insufficient Storage", "")), Verdict.FULL),
        (GenericError(answer("400 Bad Request", xml("ExpiredToken"))), Verdict.REFUSED),
        (PermissionDeniedError(answer("403 Forbidden", "<html>no</html>")), Verdict.REFUSED),
        (GenericError(answer("400 Bad Request", xml("InvalidRequest"))), Verdict.LASTING),
        (GenericError(answer("503 Service Unavailable", xml("Busy"), "quota-NoSuchBucket")), Verdict.PASSING),
    ],
    ids=str,
)
def test_verdicts(error: Exception, verdict: Verdict) -> None:
    assert judge(error) is verdict


def test_no_key_is_told() -> None:
    text = "Generic MicrosoftAzure error: Error performing GET https://host/box?sig=abc%2B&comp=list in 1ms - no"
    assert "abc" not in said(text)
    assert said(answer("403 Forbidden", xml("AuthenticationFailed", "signature=abc is wrong"))).endswith(
        "=... is wrong"
    )
