"""Object stores under faults: the right bytes or a plain error, never a wrong byte, never a wait without end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from headway.core.retry import Policy
from headway.data.store.folder import Folder
from headway.data.store.opener import open_store
from headway.data.store.patient import Remote
from headway.data.store.protocol import Store
from headway.data.store.raw import ArrowStore, open_raw
from headway.errors import BadData, BadInput
from headway.job import Store as Options
from headway.testing.s3 import S3, Faults

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()
QUICK = {"first_pause_s": 0.01, "longest_pause_s": 0.1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "train").mkdir(parents=True)
    (folder / "a.bin").write_bytes(CONTENT)
    (folder / "train" / "b.bin").write_bytes(b"hello")
    return folder


Connect = Callable[..., Remote]


@pytest.fixture
def connect(s3: S3, folder: Path) -> Iterator[Connect]:
    """A store of the folder's files behind the service, with the policy given."""
    url, opened = s3.put("bucket", "set", folder), []

    def connect(**policy: object) -> Remote:
        settings = {**QUICK, "timeout_s": 5.0, **policy}
        raw = open_raw(url, Options(endpoint=s3.endpoint, timeout_s=settings["timeout_s"]))
        opened.append(Remote(raw, Policy(**settings), seed=1))  # type: ignore[arg-type]
        return opened[-1]

    yield connect
    for store in opened:
        store.close()


@pytest.fixture(params=["folder", "file", "s3", "memory"])
def store(request: pytest.FixtureRequest, folder: Path) -> Iterator[Store]:
    """The same files in every kind of place that can be had here."""
    options = Options()
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        place, options = s3.put("bucket", "set", folder), Options(endpoint=s3.endpoint)
    elif request.param == "memory":
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.put(str(folder), "/bucket/set", recursive=True)
        place = "memory://bucket/set"
    else:
        place = str(folder) if request.param == "folder" else folder.as_uri()
    with closing(open_store(place, options)) as store:
        yield store
    if request.param == "memory":
        memory.rm("/bucket", recursive=True)


def test_every_kind_of_place_gives_the_same(store: Store, tmp_path: Path) -> None:
    assert store.list() == ["a.bin", "train/b.bin"]
    assert store.read("a.bin") == CONTENT
    assert store.read("a.bin", 1000, 2_000_000) == CONTENT[1000:2_001_000]
    assert store.read("train/b.bin", 2) == b"llo"
    assert store.size("a.bin") == len(CONTENT)
    assert store.exists("train/b.bin")
    assert not store.exists("train")
    assert not store.exists("nothing")
    for absent in (lambda: store.read("nothing"), lambda: store.read("nothing", 0, 5), lambda: store.size("nothing")):
        with pytest.raises(FileNotFoundError):
            absent()
    store.write("new/c.bin", b"from memory")
    (tmp_path / "d").write_bytes(CONTENT)
    store.write("d.bin", tmp_path / "d")
    assert store.read("new/c.bin") == b"from memory"
    assert store.read("d.bin") == CONTENT
    assert store.list() == ["a.bin", "d.bin", "new/c.bin", "train/b.bin"]


def test_a_file_that_is_too_short_is_bad_data_at_once(store: Store) -> None:
    with pytest.raises(BadData, match=r"train/b\.bin is truncated: it has 5 bytes, 6 are needed"):
        store.read("train/b.bin", 0, 6)
    if isinstance(store, Remote):
        assert store.counts.retries == 0


def test_a_body_that_ends_early_without_an_error_is_asked_for_again() -> None:
    class System:
        opened = 0

        def open_input_file(self, path: str) -> object:
            self.opened += 1
            return Answers(CONTENT[:1000], short=self.opened == 1)

    class Answers:
        def __init__(self, content: bytes, short: bool) -> None:
            self._content, self._short = content, short

        def read_at(self, length: int, offset: int) -> bytes:
            return self._content[offset : offset + (length // 2 if self._short else length)]

        def size(self) -> int:
            return len(self._content)

    system = System()
    raw = ArrowStore("s3://bucket/set", system, "bucket/set", folders=False)  # type: ignore[arg-type]
    with closing(Remote(raw, Policy(**QUICK))) as store:
        assert store.read("a.bin", 10, 100) == CONTENT[10:110]
    assert (system.opened, store.counts.retries) == (2, 1)


FAULTS = {
    "busy": Faults(busy=0.3, seed=1),
    "reset": Faults(reset=0.3, seed=2),
    "cut": Faults(cut=0.3, seed=3),
    "hang": Faults(hang=0.1, seed=4),
    "all": Faults(latency_s=0.005, busy=0.1, reset=0.1, cut=0.1, hang=0.05, slow=0.1, slow_s=0.2, seed=5),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_right_bytes_under_every_fault(name: str, connect: Connect, s3: S3) -> None:
    store = connect(timeout_s=1.0, retries=20)
    s3.faults = FAULTS[name]
    for number in range(60):
        offset = 40_000 * number
        assert store.read("a.bin", offset, 100_000) == CONTENT[offset : offset + 100_000]
    assert store.read("a.bin") == CONTENT
    for kind in ("busy", "reset", "cut", "hang", "slow"):
        assert (s3.counts[kind] > 0) == (getattr(FAULTS[name], kind) > 0)
    assert store.counts.retries > 0
    assert store.counts.bytes == 60 * 100_000 + len(CONTENT)


def test_every_retry_is_ours_and_counted(connect: Connect, s3: S3) -> None:
    store = connect(retries=3, hedge=False)
    s3.faults = Faults(busy=1.0)
    with pytest.raises(BadData) as caught:
        store.read("a.bin", 0, 10)
    assert (s3.counts["busy"], store.counts.requests, store.counts.retries) == (4, 4, 3)
    message = str(caught.value)
    assert message.startswith("s3://bucket/set/a.bin cannot be read: 4 requests in ")
    assert "503" in message
    assert "data.store.retries" in message


def test_a_store_that_hangs_is_given_up_in_time(connect: Connect, s3: S3) -> None:
    store = connect(retries=1, timeout_s=0.5)
    s3.faults = Faults(hang=1.0)
    begin = time.monotonic()
    with pytest.raises(BadData, match=r"2 requests in \d+\.\d s, the last one: no answer within 0\.5 s"):
        store.size("a.bin")
    assert 1.0 <= time.monotonic() - begin < 25.0
    assert store.counts.timeouts == 2


def test_closing_frees_whoever_waits(connect: Connect, s3: S3) -> None:
    store, said = connect(retries=100, timeout_s=60), []
    s3.faults = Faults(hang=1.0)

    def ask() -> None:
        try:
            store.read("a.bin")
        except BadData as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 10
    while not s3.counts["hang"]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    store.close()
    thread.join(10)
    assert not thread.is_alive()
    assert "it has been closed" in said[0]


def test_hedging_cuts_the_tail_at_few_extra_requests(connect: Connect, s3: S3) -> None:
    store, late = connect(timeout_s=30.0), 0
    s3.faults = Faults(latency_s=0.01)
    for _ in range(32):  # so that it knows what is usual
        store.read("a.bin", 0, 1000)
    s3.faults = Faults(latency_s=0.01, slow=0.04, slow_s=5.0, seed=41)  # no two slow ones near each other
    for _ in range(100):
        begin = time.monotonic()
        assert store.read("a.bin", 5, 1000) == CONTENT[5:1005]
        late += time.monotonic() - begin >= 5.0
    assert s3.counts["slow"] >= 4
    assert late <= 1
    assert 0 < store.counts.hedges_won <= store.counts.hedges <= 0.1 * store.counts.requests + 4


def test_refused_keys_are_not_tried_again_and_not_shown() -> None:
    class Refusing(Folder):
        asked = 0

        def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            self.asked += 1
            raise OSError("AWS Error INVALID_ACCESS_KEY_ID: HTTP status 403 for ?X-Amz-Signature=abc123&sig=def456")

    raw = Refusing(Path("somewhere"))
    raw.url = "s3://bucket/set"
    with closing(Remote(raw, Policy(retries=5, **QUICK))) as store, pytest.raises(BadInput) as caught:
        store.read("a.bin")
    assert raw.asked == 1
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert "abc123" not in str(caught.value)
    assert "def456" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://me:secret@bucket/set", r"s3://bucket/set is given with more than a path.*environment"),
        ("s3://bucket/set?secret_key=secret", "with more than a path"),
        ("s3:///set", "names no bucket"),
        ("nonsense://bucket/set", "nothing here speaks nonsense://"),
        ("az://container/set", "names a container but no account"),
    ],
)
def test_urls_that_cannot_be_used(url: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(BadInput, match=message) as caught:
        open_store(url)
    assert ":secret" not in str(caught.value)
    assert "=secret" not in str(caught.value)


def test_a_scheme_whose_client_is_not_installed_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import known_implementations

    known = {"class": "no_such_client.System", "err": "Install no-such-client to speak to it"}
    monkeypatch.setitem(known_implementations, "strange", known)
    with pytest.raises(BadInput, match=r"strange:// is not installed. Install no-such-client to speak to it\."):
        open_store("strange://bucket/set")


def test_clients_of_the_other_clouds_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "someone")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "a2V5")
    for url in ("gs://bucket/set", "az://container/set"):
        raw = open_raw(url, Options(anonymous=True, endpoint="http://127.0.0.1:9"))
        assert isinstance(raw, ArrowStore)
        assert raw.url == url


def test_an_endpoint_that_is_no_url() -> None:
    with pytest.raises(BadInput, match=r"data\.store\.endpoint='localhost:9000'"):
        open_store("s3://bucket/set", Options(endpoint="localhost:9000"))
