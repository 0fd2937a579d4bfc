"""Buckets that fail on purpose: lost answers, refusals, keys that expire, bodies that end early, a full bucket."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import until

from headway.errors import BadInput
from headway.storage.clients import keys_of
from headway.storage.commit import commit, nonce
from headway.storage.conditions import conditional, demand_conditions
from headway.storage.folder import FolderStorage
from headway.storage.objects import PART, PARTS_AT_ONCE, Objects
from headway.storage.opener import clean_url, is_url, local_folder, open_storage
from headway.storage.options import Options
from headway.storage.protocol import ABSENT, Buffer, Conflict, OutOfReach, Storage
from headway.testing.s3 import S3, Faults

KINDS = ("lost", "reset", "busy", "cut", "conflict")


@pytest.fixture
def bucket(s3: S3) -> S3:
    s3.make_bucket("bucket")
    return s3


def opened(s3: S3, retries: int = 2, timeout_s: float = 5.0, **options: object) -> Storage:
    given = {"endpoint": s3.endpoint, "retries": retries, "timeout_s": timeout_s, **options}
    return open_storage("s3://bucket/runs", Options.model_validate(given))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    from headway.core.retry import Policy

    monkeypatch.setattr(Policy, "pause_s", lambda self, retry, draw: 0.0)


# The lost answer.


def test_a_write_whose_answer_is_lost_meets_itself(bucket: S3) -> None:
    storage = opened(bucket)
    bucket.faults = Faults(at={0: "lost"})
    with pytest.raises(Conflict):
        storage.put("head", b"mine", ABSENT)
    assert storage.get("head") == b"mine"
    assert [(each.method, each.fault) for each in bucket.seen] == [("PUT", "lost"), ("PUT", ""), ("GET", "")]
    version = storage.look("head")[1]
    bucket.faults = Faults(at={0: "lost"})
    with pytest.raises(Conflict):
        storage.put("head", b"mine again", version)
    assert storage.get("head") == b"mine again"


@pytest.mark.parametrize("swap", [False, True], ids=["create", "swap"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_commit_survives_a_fault_at_each_request(bucket: S3, swap: bool, retries: int) -> None:
    """Faults of each kind at each of the first requests: nobody else writes, so none may end in a conflict."""
    storage, asked = opened(bucket, retries), 0
    faults = [{at: kind} for at in range(6) for kind in KINDS]
    faults += [{0: "lost", at: kind} for at in range(1, 6) for kind in KINDS]
    faults += [{0: "lost", 1: first, 2: second, 3: "reset"} for first, second in itertools.product(KINDS, KINDS)]
    for number, each in enumerate(faults):
        name, content = f"head-{number}", nonce().encode()
        condition = storage.put(name, b"before") if swap else ABSENT
        bucket.faults = Faults(at=each)
        for _ in range(6):
            try:
                version = commit(storage, name, content, condition)
                break
            except OutOfReach:
                continue
        else:
            raise AssertionError(f"never committed, with {each}")
        asked += len(bucket.seen)
        bucket.faults = Faults()
        assert storage.look(name) == (content, version), each
    assert asked > 2 * len(faults), "the faults befell somebody"


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_who_commit_through_faults_one_has_it(bucket: S3, kind: str) -> None:
    """Whoever is told that it succeeded has written what is there; nobody else is told so."""
    storages = [opened(bucket, retries=1), opened(bucket, retries=1)]
    for number, (first, second) in enumerate(itertools.product(range(4), range(4))):
        name = f"head-{number}"
        bucket.faults = Faults(at={first: kind, second: "lost"})
        contents = [nonce().encode(), nonce().encode()]
        told: list[bool | None] = [None, None]

        def both(who: int, name: str = name, contents: list[bytes] = contents, told: list[bool | None] = told) -> None:
            while told[who] is None:
                try:
                    commit(storages[who], name, contents[who], ABSENT)
                    told[who] = True
                except Conflict:
                    told[who] = False
                except OutOfReach:
                    continue

        threads = [threading.Thread(target=both, args=(who,)) for who in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30.0)
        bucket.faults = Faults()
        assert sorted(map(bool, told)) == [False, True], (first, second)
        assert storages[0].get(name) == contents[told.index(True)]


def test_mine_may_be_told_by_a_part_of_it(bucket: S3) -> None:
    storage = opened(bucket)
    bucket.faults = Faults(at={0: "lost"})
    assert commit(storage, "a", b"nonce 1", ABSENT, mine=lambda found: found.startswith(b"nonce 1"))
    with pytest.raises(Conflict):
        commit(storage, "a", b"nonce 2", ABSENT, mine=lambda found: found.startswith(b"nonce 2"))


# Patience.


@pytest.mark.parametrize("kind", ["busy", "reset", "cut", "lost"])
def test_each_request_is_tried_again(bucket: S3, kind: str) -> None:
    storage = opened(bucket)
    storage.put("a/b", bytes(100_000))
    for ask in (
        lambda: storage.get("a/b"),
        lambda: storage.read("a/b", 10, 80_000),
        lambda: storage.list(),
        lambda: storage.folders(),
        lambda: storage.put("c", b"x"),
        lambda: storage.delete(["c"]),
    ):
        bucket.faults = Faults(at={0: kind, 1: kind})
        ask()
        assert len(bucket.seen) == 3 or kind == "cut"


@pytest.mark.parametrize("kind", ["busy", "reset", "lost"])
def test_patience_ends_and_says_why(bucket: S3, kind: str) -> None:
    storage = opened(bucket)
    bucket.faults = Faults(**{kind: 1.0})  # type: ignore[arg-type]
    with pytest.raises(OutOfReach, match=r"s3://bucket/runs/a cannot be read: 3 requests in .* the last one") as caught:
        storage.get("a")
    assert bucket.counts["GET"] == 3
    assert isinstance(caught.value, OSError)


def test_a_body_that_ends_early_is_never_taken_for_the_whole(bucket: S3) -> None:
    storage = opened(bucket, retries=0)
    storage.put("a", bytes(100_000))
    bucket.faults = Faults(cut=1.0)
    for ask in (lambda: storage.get("a"), lambda: storage.read("a", 0, 100_000)):
        with pytest.raises(OutOfReach):
            ask()


def test_what_hangs_is_given_up(bucket: S3) -> None:
    storage = opened(bucket, retries=1, timeout_s=0.3)
    bucket.faults = Faults(hang=1.0)
    begin = time.monotonic()
    with pytest.raises(OutOfReach, match="2 requests"):
        storage.put("a", b"x")
    with pytest.raises(OutOfReach, match="2 requests"):
        storage.get("a")
    assert time.monotonic() - begin < 10.0
    bucket.faults = Faults()


def test_a_body_may_take_longer_than_a_request(bucket: S3) -> None:
    """Some seconds for half a megabyte, which is given up after two without a byte only."""
    storage = opened(bucket, retries=0, timeout_s=2.0)
    storage.put("a", bytes(500_000))
    bucket.faults = Faults(rate=200_000)
    assert len(storage.read("a", 0, 500_000)) == 500_000


def test_what_is_sent_has_as_much_time_as_it_is_large(bucket: S3) -> None:
    storage = opened(bucket, retries=0, timeout_s=1.0)
    bucket.faults = Faults(rate=10_000_000)
    storage.put("a", bytes(16 << 20))
    assert len(bucket.seen) == 1


def test_a_process_that_was_forked_off_is_told_so(bucket: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would hang: the library's threads are not there."""
    storage = opened(bucket)
    monkeypatch.setattr("os.getpid", lambda: 1)
    with pytest.raises(RuntimeError, match="before a fork"):
        storage.get("a")


def test_a_part_may_be_closed_and_the_place_used_on(bucket: S3) -> None:
    storage = opened(bucket)
    part = storage.at("run")
    part.close()
    storage.put("a", b"x")
    part.put("b", b"x")
    storage.close()
    with pytest.raises(OutOfReach, match="it has been closed"):
        part.get("b")


def test_closing_ends_the_pauses(bucket: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    from headway.core.retry import Policy

    monkeypatch.setattr(Policy, "pause_s", lambda self, retry, draw: 60.0)
    storage = opened(bucket)
    bucket.faults = Faults(busy=1.0)
    told: list[BaseException] = []

    def ask() -> None:
        try:
            storage.get("a")
        except OutOfReach as error:
            told.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 10.0
    while not bucket.counts["GET"] and time.monotonic() < deadline:
        time.sleep(0.01)
    storage.close()
    thread.join(10.0)
    assert len(told) == 1


# What is of no use to try again, and what is.


def test_a_bucket_that_is_not_there(s3: S3) -> None:
    storage = open_storage("s3://nobody-has-it/runs", Options(endpoint=s3.endpoint, retries=5))
    for ask in (
        lambda: storage.get("a"),
        lambda: storage.read("a", 0, 1),
        lambda: storage.put("a", b"x"),
        lambda: storage.put("a", b"x", ABSENT),
        lambda: storage.put("a", b"x", "tag"),
        lambda: storage.list(),
        lambda: storage.folders(),
        lambda: storage.delete(["a"]),
        lambda: storage.upload("a", iter([bytes(2 * PART)])),
    ):
        s3.faults = Faults()
        with pytest.raises(BadInput, match=r"the bucket s3://nobody-has-it does not exist"):
            ask()
        assert len(s3.seen) <= 2


def test_no_right(bucket: S3) -> None:
    storage = opened(bucket)
    storage.put("a", b"x")
    bucket.faults = Faults(denied=("PUT", "POST"))
    for ask in (lambda: storage.put("b", b"x", ABSENT), lambda: storage.delete(["a"])):
        with pytest.raises(BadInput, match=r"s3://bucket/runs/. cannot be (written|removed): AccessDenied \(403\)"):
            ask()
    assert storage.get("a") == b"x"
    with pytest.raises(BadInput, match="AccessDenied"):
        storage.upload("c", iter([bytes(2 * PART)]))
    bucket.faults = Faults(denied=("GET",))
    for ask in (lambda: storage.get("a"), lambda: storage.list(), lambda: storage.read("a", 0, 1)):
        with pytest.raises(BadInput, match=r"AccessDenied \(403\): Access Denied\. Check the rights, and AWS_"):
            ask()
    assert bucket.counts["GET"] == 3


def test_no_right_to_remove(bucket: S3) -> None:
    """S3 answers 200, and in the body that each was refused."""
    storage = opened(bucket)
    for name in ("a", "b"):
        storage.put(name, b"x")
    bucket.faults = Faults(kept=True)
    with pytest.raises(BadInput, match=r"s3://bucket/runs/a cannot be removed: AccessDenied: No. Check the rights"):
        storage.delete(["a", "b"])
    assert [found.name for found in storage.list()] == ["a", "b"]


def test_a_bucket_in_another_region(bucket: S3) -> None:
    storage = opened(bucket)
    for ask in (lambda: storage.get("a"), lambda: storage.put("a", b"x"), lambda: storage.list()):
        bucket.faults = Faults(at={0: "elsewhere"})
        with pytest.raises(BadInput, match=r"incorrectly configured region\. Check the name, store.region"):
            ask()
        assert len(bucket.seen) == 1


def test_who_does_not_answer_is_said_with_the_reason(s3: S3) -> None:
    with socket.socket() as closed, socket.socket() as silent:
        closed.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for server, said in ((closed, "Connection refused"), (silent, "no answer in time")):
            given = Options(endpoint=f"http://127.0.0.1:{server.getsockname()[1]}", retries=1, timeout_s=0.3)
            with pytest.raises(OutOfReach, match=f"2 requests in .*{said}"):
                open_storage("s3://bucket/runs", given).get("a")


def test_a_full_bucket_may_have_room_later(bucket: S3) -> None:
    storage = opened(bucket)
    bucket.faults = Faults(full=True)
    with pytest.raises(OutOfReach, match=r"the bucket or its account is full: InsufficientStorage \(507\)"):
        storage.put("a", b"x")
    with pytest.raises(OutOfReach, match="full"):
        storage.upload("b", iter([bytes(2 * PART)]))
    bucket.faults = Faults()
    assert storage.list() == []
    storage.put("a", b"x")


def test_names_are_not_taken_for_answers(bucket: S3) -> None:
    """A run may be called after an error."""
    storage = opened(bucket, retries=0).at("quota-NoSuchBucket-ExpiredToken-169.254.169.254")
    with pytest.raises(FileNotFoundError):
        storage.get("quota")
    bucket.faults = Faults(busy=1.0)
    with pytest.raises(OutOfReach, match=r"SlowDown \(503\)"):
        storage.put("quota", b"x")


def test_a_conflict_that_asks_to_try_again_is_tried_again(bucket: S3) -> None:
    storage = opened(bucket)
    bucket.faults = Faults(at={0: "conflict", 1: "conflict"})
    first = storage.put("a", b"1", ABSENT)
    bucket.faults = Faults(at={0: "conflict"})
    storage.put("a", b"2", first)
    bucket.faults = Faults(at=dict.fromkeys(range(9), "conflict"))
    with pytest.raises(OutOfReach, match="ConditionalRequestConflict"):
        storage.put("b", b"1", ABSENT)


# Conditions.


def test_a_place_that_ignores_conditions_is_found(bucket: S3, tmp_path: Path) -> None:
    storage = opened(bucket)
    assert conditional(storage)
    assert conditional(FolderStorage(tmp_path / "runs"))
    demand_conditions(storage)
    for at in range(6):
        bucket.faults = Faults(at={at: "lost"})
        assert conditional(storage), "an answer is lost"
    bucket.faults = Faults(conditional=False)
    assert not conditional(storage)
    with pytest.raises(BadInput, match=r"s3://bucket/runs has no conditional writes"):
        demand_conditions(storage)
    bucket.faults = Faults()
    assert storage.list() == []


# Keys.


def credentials(path: Path, key: str, profile: str = "default") -> None:
    path.write_text(f"[{profile}]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")


def test_keys_that_are_renewed_while_it_runs(bucket: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    credentials(tmp_path / "credentials", "first")
    storage = opened(bucket)
    storage.put("a", b"1")
    bucket.expired = {"first"}
    try:
        with pytest.raises(BadInput, match=r"ExpiredToken \(400\): The provided token has expired"):
            storage.put("a", b"2")
        credentials(tmp_path / "credentials", "second")
        storage.put("a", b"3")
        assert storage.at("x").list() == []
        assert storage.get("a") == b"3"
        bucket.expired = {"first", "second"}
        with pytest.raises(BadInput):
            storage.get("a")
        with pytest.raises(BadInput):
            storage.upload("big", iter([bytes(2 * PART)]))
        credentials(tmp_path / "credentials", "third")
        assert storage.upload("big", iter([bytes(2 * PART)])) == 2 * PART
    finally:
        bucket.expired = set()


def test_where_keys_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    assert keys_of("s3") == {}
    credentials(path, "of the file", "mine")
    assert keys_of("s3") == {}
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert keys_of("s3") == {"access_key_id": "of the file", "secret_access_key": "secret"}
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "token")
    assert keys_of("s3") == {}, "obstore renews these itself"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    assert keys_of("s3")["session_token"] == "t"
    path.write_text("no such thing")
    assert keys_of("s3")["access_key_id"] == "of the environment"


def test_no_keys_at_all(bucket: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # the machine has no role: nobody answers
    with pytest.raises(BadInput, match=r"there are no keys.*AWS_ACCESS_KEY_ID"):
        opened(bucket).get("a")


# Encryption, and what is said in the requests.


def test_encryption_arrives_in_the_request(bucket: S3) -> None:
    given = {"sse": "aws:kms", "kms_key": "key-1", "bucket_key": True, "acl": "bucket-owner-full-control"}
    storage = opened(bucket, **given)
    bucket.faults = Faults()
    storage.put("a", b"x", ABSENT)
    storage.upload("b", iter([bytes(2 * PART)]))
    storage.get("a")
    wanted = {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
        "x-amz-server-side-encryption-bucket-key-enabled": "true",
        "x-amz-acl": "bucket-owner-full-control",
    }
    begun = [each for each in bucket.seen if "?uploads" in each.path]
    for request in (bucket.seen[0], *begun):
        assert {name: request.headers.get(name) for name in wanted} == wanted
        signed = re.search(r"SignedHeaders=([^,]+)", request.headers["authorization"])
        assert signed is not None
        assert set(wanted) <= set(signed[1].split(";"))
    assert len(begun) == 1
    assert not set(wanted) & set(bucket.seen[-1].headers)
    bucket.faults = Faults()
    opened(bucket, sse="AES256").put("c", b"x")
    assert bucket.seen[0].headers["x-amz-server-side-encryption"] == "AES256"
    assert not {"x-amz-acl", "x-amz-server-side-encryption-aws-kms-key-id"} & set(bucket.seen[0].headers)


def test_nothing_is_signed_where_that_is_wanted(bucket: S3) -> None:
    bucket.faults = Faults(denied=("GET",))
    with pytest.raises(BadInput):
        opened(bucket, anonymous=True).get("a")
    assert "authorization" not in bucket.seen[0].headers


# Large objects.


def parts(count: int, fail: BaseException | None = None) -> Iterator[Buffer]:
    for number in range(count):
        yield bytes([number]) * PART
    if fail is not None:
        raise fail


def open_uploads(s3: S3) -> int:
    return s3.direct("GET", "/bucket?uploads").count(b"<Upload>")


@pytest.mark.parametrize("kind", ["busy", "reset", "lost", "cut"])
def test_an_upload_survives_a_fault_at_each_request(bucket: S3, kind: str) -> None:
    """The multipart's beginning, its parts, and its end, whose lost answer is an upload that is not there any more."""
    storage = opened(bucket)
    for at in range(5):
        bucket.faults = Faults(at={at: kind})
        name = f"big-{at}"
        assert storage.upload(name, parts(3)) == 3 * PART
        assert len(bucket.seen) > at
        bucket.faults = Faults()
        content = storage.read(name, 0, 3 * PART)
        assert [content[number * PART] for number in range(3)] == [0, 1, 2]


def test_an_upload_that_fails_is_nowhere(bucket: S3) -> None:
    storage = opened(bucket, retries=0)
    for at in range(5):
        bucket.faults = Faults(at={at: "busy"})
        with pytest.raises(OutOfReach):
            storage.upload("big", parts(3))
        bucket.faults = Faults()
        assert storage.list() == []
        until(lambda: open_uploads(bucket) == 0, f"it is broken off, after request {at} failed")
    with pytest.raises(KeyError):
        storage.upload("big", parts(3, KeyError("of the caller")))
    assert storage.list() == []
    until(lambda: open_uploads(bucket) == 0, "it is broken off")


def test_someone_elses_object_is_not_taken_for_ones_own(bucket: S3) -> None:
    storage = opened(bucket, retries=0)
    storage.upload("big", parts(3))
    bucket.faults = Faults(at={4: "busy"})  # the last request
    with pytest.raises(OutOfReach):
        storage.upload("big", parts(3))


def test_parts_are_sent_at_once_and_few_are_held(bucket: S3) -> None:
    storage, given = opened(bucket), 0
    ahead: list[int] = []

    def slow() -> Iterator[Buffer]:
        nonlocal given
        for number in range(20):
            given += 1
            ahead.append(given - bucket.counts["PUT"])
            yield bytes([number]) * PART

    bucket.faults = Faults(latency_s=0.2)
    assert storage.upload("big", slow()) == 20 * PART
    assert 3 <= bucket.most_at_once <= PARTS_AT_ONCE
    assert max(ahead) <= 2 * PARTS_AT_ONCE


# Places.


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://", "names no bucket"),
        ("s3:///runs", "names no bucket"),
        ("s3://key:secret@bucket/runs", "s3://bucket/runs is given with more than a path"),
        ("az://box/runs?sig=secret", "az://box/runs is given with more than a path"),
        ("hdfs://host/runs", "nothing here speaks hdfs://"),
        ("file://host/runs", "names a machine"),
    ],
)
def test_places_that_are_none(place: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        open_storage(place)
    assert "secret" not in str(caught.value)


def test_places(tmp_path: Path) -> None:
    assert clean_url("s3a://bucket//a/b/") == "s3://bucket/a/b"
    assert clean_url("gcs://bucket") == "gs://bucket"
    assert is_url("s3://x")
    assert not is_url("file:///x")
    assert not is_url(tmp_path)
    assert local_folder("file:///a%20b") == Path("/a b")
    storage = open_storage(f"file://{tmp_path}/runs")
    assert isinstance(storage, FolderStorage)
    storage.put("a", b"x")
    assert (tmp_path / "runs" / "a").read_bytes() == b"x"


def test_opening_asks_nothing(bucket: S3) -> None:
    bucket.faults = Faults()
    storage = opened(bucket).at("one").at("two")
    assert isinstance(storage, Objects)
    assert storage.url == "s3://bucket/runs/one/two"
    assert not bucket.seen


def test_an_account_that_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadInput, match=r"az://box cannot be opened: it names a container but no account"):
        open_storage("az://box/runs")


def test_without_obstore_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(BadInput, match="Run `pip install obstore`"):
        open_storage("s3://bucket/runs")


def test_the_service_does_one_change_at_a_time() -> None:
    """What is broken off with parts under way is broken off: the service walks through them, and they are changing."""
    s3 = S3()
    for method, path in [("PUT", "/b/k?partNumber=1&uploadId=x"), ("DELETE", "/b/k?uploadId=x"), ("GET", "/b?uploads")]:
        assert s3.alone(method, path) is s3.one_at_a_time
    assert s3.alone("GET", "/b/k") is not s3.one_at_a_time
