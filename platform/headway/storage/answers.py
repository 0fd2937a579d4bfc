"""What a store's answers mean, from the words in which its client tells them."""

from __future__ import annotations

import re
from enum import Enum


class Verdict(Enum):
    """What is to be done about an answer that is an error."""

    ABSENT = "there is no such object"
    CONFLICT = "the condition of the write does not hold"
    NO_BUCKET = "the bucket does not exist"
    FULL = "the bucket, or its account, is full"
    REFUSED = "the keys are not good, or there is no right to it"
    NO_KEYS = "there are no keys, and the machine's role cannot be had"
    LASTING = "it will be the same when it is tried again"
    PASSING = "it may be another when it is tried again"


_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.S)
_KEPT = re.compile(r"DeleteObjects request failed for key .*: (.*) \(code: (\w+)\)")
"""One of several that were to be removed was not, though the answer's status is 200."""
_SECRET = re.compile(r"(?i)\b(sig|signature|x-amz-[a-z-]+|token|secret|key)=[^\s&'\"]+")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|ContainerBeingDeleted|bucket does not exist", re.I)
_FULL = re.compile(r"quota|InsufficientStorage|StorageFull|^507\b", re.I)
_AGAIN = re.compile(r"ConditionalRequestConflict|OperationAborted")
"""A condition that could not be looked at, as somebody else was writing."""
_SLOW = re.compile(r"rateLimitExceeded|SlowDown|RequestTimeout\b|TooManyRequests")
_REFUSED = re.compile(
    r"AccessDenied|AuthorizationPermissionMismatch|ExpiredToken|InvalidToken|TokenRefreshRequired|InvalidAccessKeyId"
    r"|SignatureDoesNotMatch|InvalidClientTokenId|UnrecognizedClient|AuthenticationFailed|InvalidAuthenticationInfo"
    r"|NoAuthenticationInformation|RequestExpired"
)
_ROLE = re.compile(r"performing (GET|PUT) \S+(/latest/(api/token|meta-data/)|/computeMetadata/|/metadata/identity/)")
"""Where the machine's role is asked for, which is done when there are no keys."""
_ELSEWHERE = re.compile(r"Received redirect without LOCATION")
_BEYOND = re.compile(r"Wanted range starting at [0-9]+, but object was only")
_WHY = re.compile(r'(?:message|error): "([^"]+)"')
_ASKED = re.compile(r"performing [A-Z]+ (https?://[^/\s]+)")
_LATE = re.compile(r"\bTimedOut\b|kind: Timeout")
_LASTING = {300, 301, 302, 307, 400, 404, 405, 411, 413, 501}


def judge(error: Exception) -> Verdict:
    """What an error of obstore's means."""
    kind, text = type(error).__name__, str(error)
    words, status = _words(text), status_of(text)
    if _NO_BUCKET.search(words):
        return Verdict.NO_BUCKET
    if isinstance(error, FileNotFoundError):
        return Verdict.ABSENT
    if _AGAIN.search(words) or _SLOW.search(words):
        return Verdict.PASSING
    if kind in ("AlreadyExistsError", "PreconditionError"):
        return Verdict.CONFLICT
    if _FULL.search(words):
        return Verdict.FULL
    if _ROLE.search(text):
        return Verdict.NO_KEYS
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or status in (401, 403) or _REFUSED.search(words):
        return Verdict.REFUSED
    if status in _LASTING or _ELSEWHERE.search(text):
        return Verdict.LASTING
    return Verdict.PASSING


def beyond(error: Exception) -> bool:
    """Whether bytes behind the end of an object were asked for."""
    return status_of(str(error)) == 416 or _BEYOND.search(str(error)) is not None


def status_of(text: str) -> int | None:
    """The HTTP status, where there was an answer."""
    found = _STATUS.search(text)
    return int(found[1]) if found else None


def said(text: str) -> str:
    """What a store said, in one line and without keys."""
    kept = _KEPT.search(text)
    if kept:
        return f"{kept[2]}: {kept[1]}"
    code, message, status = _CODE.search(text), _MESSAGE.search(text), status_of(text)
    if code:
        line = f"{code[1]} ({status}): {message[1].strip()}" if message else f"{code[1]} ({status})"
        return _SECRET.sub(r"\1=...", line.splitlines()[0].rstrip("."))
    line = re.sub(r"^(\w+: )?Generic \w+ error: ", "", (text.strip() or "no answer").splitlines()[0])
    asked, why = _ASKED.search(line), _WHY.search(text)
    what = line.rpartition(" - ")[2] if asked else line
    if "HTTP error" in what and _LATE.search(text):
        what = "no answer in time"
    elif "HTTP error" in what and why:
        what = why[1]
    line = f"{asked[1]}: {what}" if asked else what
    return _SECRET.sub(r"\1=...", line)


def _words(text: str) -> str:
    """What a store answered, without what was asked of it: a run may have any name."""
    kept = _KEPT.search(text)
    if kept:
        return f"{kept[2]} {kept[1]}"
    code, message = _CODE.search(text), _MESSAGE.search(text)
    body = text.partition("status code: ")[2].partition("\n\nDebug source")[0]
    return f"{body[:3]} {code[1]} {message[1] if message else ''}" if code else body
