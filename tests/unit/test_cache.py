"""Row groups of an object store on this node's disk: right whatever happens, brought once, needed-last goes first."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.waiting import until

from headway.data import manifest as manifests
from headway.data.read.groups import Groups
from headway.data.store import cache
from headway.data.store.cache import CachedFiles, open_files
from headway.data.store.files import Files, LocalFiles
from headway.data.store.shelf import Shelf, usual_folder
from headway.errors import BadData, BadInput, RunFailed
from headway.job import Cache, Data, Store
from headway.testing.s3 import S3, Faults

SHARDS = ((200, 300, 100, 250), (150, 300, 200, 50), (400, 100))
GROUPS = sum(len(shard) for shard in SHARDS)
WHOLE = 1 << 30


@pytest.fixture
def dataset(make_dataset: Callable[..., Path], tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "set", *SHARDS)


@pytest.fixture
def url(s3: S3, dataset: Path) -> str:
    return s3.put("bucket", "set", dataset)


Open = Callable[..., CachedFiles]


@pytest.fixture
def cached(s3: S3, url: str, tmp_path: Path) -> Iterator[Open]:
    """A reader as a worker opens it; a second one is another worker of the node."""
    opened: list[Files] = []

    def cached(limit: int = WHOLE, ahead: int = WHOLE, check_digests: bool = True, **store: object) -> CachedFiles:
        options = Store(endpoint=s3.endpoint, **{"timeout_s": 2.0, **store})
        folder = Cache(folder=str(tmp_path / "cache"), bytes=limit)
        data = Data(train=url, store=options, cache=folder, prefetch=ahead, check_digests=check_digests)
        opened.append(open_files(url, manifests.load(url, options=options), data))
        assert isinstance(opened[-1], CachedFiles)
        return opened[-1]

    yield cached
    for files in opened:
        files.close()


def rows(files: Files, group: int) -> list[int]:
    """Read a row group's ids as a reader does that has not seen the shard yet."""
    checked = isinstance(files, CachedFiles) and files._check
    table = Groups(files, check_digests=not checked).load(group).table
    assert table is not None
    found: list[int] = table["id"].to_pylist()
    return found


def expected(manifest: manifests.Manifest, group: int) -> list[int]:
    first = sum(manifest.groups[:group])
    return list(range(first, first + manifest.groups[group]))


def size(files: CachedFiles, group: int) -> int:
    shard, index = files.manifest.locate(group)
    return shard.row_groups[index].bytes + shard.bytes - shard.footer_offset


def walk(files: Files, seed: int = 0) -> None:
    """One epoch in an order of its own, all of it right."""
    order = random.Random(seed).sample(range(GROUPS), GROUPS)
    files.expect(order)
    for group in order:
        assert rows(files, group) == expected(files.manifest, group)


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache").glob("*/*.parquet"))


def test_the_second_epoch_asks_the_store_for_nothing(cached: Open, s3: S3) -> None:
    files = cached()
    walk(files)
    assert (files.counts.fetched, files.counts.hits) == (GROUPS, 0)
    s3.faults = Faults(busy=1.0)
    walk(files, seed=1)
    assert (files.counts.fetched, files.counts.hits) == (GROUPS, GROUPS)
    assert not s3.counts


def test_what_was_read_before_a_thread_ahead_came_to_it_is_not_brought_again(cached: Open, s3: S3) -> None:
    files = cached()
    walk(files)
    before = files.counts.fetched, files.counts.hits
    files._bring(0, wanted=False)
    assert (files.counts.fetched, files.counts.hits) == before
    assert 0 not in files._held


def test_a_later_run_finds_what_an_earlier_one_kept(cached: Open, s3: S3, tmp_path: Path) -> None:
    first = cached()
    walk(first)
    first.close()
    second = cached()
    s3.faults = Faults()
    walk(second)
    assert second.counts.hits == GROUPS
    assert not s3.counts
    assert len(kept(tmp_path)) == GROUPS


def test_files_are_the_shards_with_holes(cached: Open, dataset: Path) -> None:
    files = cached()
    for group in range(GROUPS):
        shard, index = files.manifest.locate(group)
        span, whole = shard.row_groups[index], (dataset / shard.path).read_bytes()
        content = files.path(group).read_bytes()
        assert len(content) == shard.bytes
        assert content[span.offset : span.offset + span.bytes] == whole[span.offset : span.offset + span.bytes]
        assert content[shard.footer_offset :] == whole[shard.footer_offset :]
        files.release(group)


def test_expected_row_groups_come_before_they_are_asked_for(cached: Open, s3: S3) -> None:
    files = cached()
    files.expect([3, 1, 8])
    until(lambda: {3, 1, 8} <= set(files._held))
    s3.faults = Faults(busy=1.0)
    for group in (3, 1, 8):
        assert rows(files, group) == expected(files.manifest, group)
    assert files.counts.waits == 0


def test_no_more_is_brought_ahead_than_allowed(cached: Open) -> None:
    files = cached()
    ahead = size(files, 0) + size(files, 1)
    files.close()
    files = cached(ahead=ahead)
    files.expect([0, 1, 2, 3])
    until(lambda: files.counts.fetched == 2)
    assert rows(files, 0) == expected(files.manifest, 0)  # and now, not before, the next may come
    until(lambda: files.counts.fetched == 3)
    assert set(files._held) <= {1, 2}


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.0001])
def test_right_when_it_does_not_fit(share: float, cached: Open, tmp_path: Path) -> None:
    whole = cached()
    limit = max(1, int(share * sum(size(whole, group) for group in range(GROUPS))))
    whole.close()
    files = cached(limit=limit)
    for epoch in range(3):
        walk(files, seed=epoch)
        files.expect([])
        assert sum(path.stat().st_size and int(path.stem.split("-")[1]) for path in kept(tmp_path)) <= limit
    assert not list((tmp_path / "cache").glob("*/*.once"))
    if share > 0.5:
        assert files.counts.hits > 0
    if share < 0.01:
        assert files.counts.unkept == files.counts.fetched == 3 * GROUPS


def test_what_is_needed_last_goes_and_what_is_in_use_stays(cached: Open, tmp_path: Path) -> None:
    probe = cached()
    limit = sum(size(probe, group) for group in (0, 1, 3)) + 10
    assert size(probe, 2) < min(size(probe, group) for group in (0, 1, 3))  # so that one has to go for it
    probe.close()
    files, other = cached(limit=limit, ahead=1), cached(limit=limit, ahead=1)
    for group in (0, 1, 3):
        rows(files, group)
    used = files.path(0)
    other.expect([2, 1, 2])
    until(lambda: other.counts.fetched == 1)
    assert {int(path.name[:8]) for path in kept(tmp_path)} == {0, 1, 2}  # 0 is in use, 1 is needed by the other
    assert used.exists()
    files.release(0)


def test_two_workers_bring_each_row_group_once(cached: Open, s3: S3) -> None:
    workers = [cached(), cached()]
    s3.faults = Faults(latency_s=0.02)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(walk, workers))
    assert sum(files.counts.fetched for files in workers) == GROUPS


def test_many_threads_may_ask_for_the_same(cached: Open) -> None:
    files = cached()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: rows(files, i % 3), range(60)))
    assert all(found[i] == expected(files.manifest, i % 3) for i in range(60))
    assert files.counts.fetched == 3


@pytest.mark.parametrize("check_digests", [True, False])
@pytest.mark.parametrize("damage", ["flip", "footer", "cut", "empty"])
def test_a_damaged_file_is_noticed_and_brought_again(
    damage: str, check_digests: bool, cached: Open, tmp_path: Path
) -> None:
    """By who reads it, or by the cache where the job does not want it read so."""
    files = cached(check_digests=check_digests)
    walk(files)
    files.expect([])
    shard, index = files.manifest.locate(5)
    path = next(path for path in kept(tmp_path) if path.name.startswith("00000005-"))
    content = bytearray(path.read_bytes())
    if damage in ("flip", "footer"):
        content[shard.row_groups[index].offset + 7 if damage == "flip" else shard.footer_offset + 7] ^= 1
    path.write_bytes({"cut": content[:-1], "empty": b""}.get(damage, content))
    walk(files)
    assert (files.counts.damaged, files.counts.fetched) == (1, GROUPS + 1)
    walk(files)
    assert files.counts.fetched == GROUPS + 1


def test_a_damaged_file_goes_when_its_last_reader_lets_go_and_is_given_to_nobody_meanwhile(cached: Open) -> None:
    files = cached()
    first = files.path(5)
    assert files.path(5) == first
    assert files.release(5, sound=False)
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(files.path, 5)
        with pytest.raises(TimeoutError):
            third.result(0.2)
        assert first.samefile(files._shelf.kept(5, files._sizes[5]))
        assert not files.release(5)
        third.result(20)
    assert not files.release(5)
    assert (files.counts.damaged, files.counts.fetched) == (1, 2)
    assert rows(files, 5) == expected(files.manifest, 5)


def test_a_damaged_copy_that_cannot_be_removed_is_said_to_all(cached: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk under the cache was found faulty and may only be read now."""

    def give_back(*file: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    files = cached()
    files.path(5)
    files.path(5)
    monkeypatch.setattr(files._shelf, "give_back", give_back)
    files.release(5, sound=False)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(files.path, 5)
        with pytest.raises(BadInput, match="Read-only file system"):
            files.release(5, sound=False)
        waiting.result(20)
    files.release(5)


def test_what_says_nothing_of_the_copy_does_not_condemn_it(cached: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    files = cached()
    assert rows(files, 5) == expected(files.manifest, 5)

    def out_of_memory(self: Groups, *of: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Groups, "_bytes", out_of_memory)
        with pytest.raises(MemoryError):
            rows(files, 5)
    assert rows(files, 5) == expected(files.manifest, 5)
    assert (files.counts.damaged, files.counts.fetched) == (0, 1)


def test_a_copy_that_stays_bad_is_bad_data(cached: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk under the cache gives back other bytes than were written, whatever is written."""
    files = cached()
    files.path(5)
    kept = files._shelf.kept(5, files._sizes[5])
    files.release(5)
    written = cache._written

    def broken(path: Path, size: int, pieces: list[tuple[int, bytes]]) -> int:
        return written(path, size, [(offset, bytes(len(content))) for offset, content in pieces])

    monkeypatch.setattr(cache, "_written", broken)
    kept.write_bytes(bytes(kept.stat().st_size))
    with pytest.raises(BadData, match="footer differs"):
        rows(files, 5)
    assert files.counts.damaged == 4


def test_a_shard_that_is_altered_in_the_store_is_named(cached: Open, s3: S3, dataset: Path) -> None:
    files = cached(retries=0)
    shard, index = files.manifest.locate(5)
    content = bytearray((dataset / shard.path).read_bytes())
    content[shard.row_groups[index].offset] ^= 1
    s3.direct("PUT", f"/bucket/set/{shard.path}", bytes(content))
    with pytest.raises(BadData, match=r"row group 1 of s3://bucket/set/shard-00001\.parquet has been altered"):
        files.path(5)
    assert files.counts.altered == 3
    s3.direct("DELETE", f"/bucket/set/{files.manifest.shards[2].path}")
    with pytest.raises(BadData, match=r"s3://bucket/set/shard-00002\.parquet is missing"):
        files.path(8)
    assert rows(files, 0) == expected(files.manifest, 0)
    assert not list(files._shelf.place.glob("*.part"))


def test_the_right_rows_under_every_fault(cached: Open, s3: S3) -> None:
    files = cached(timeout_s=1.0, retries=20)
    s3.faults = Faults(latency_s=0.01, busy=0.1, reset=0.1, cut=0.1, hang=0.03, slow=0.1, slow_s=0.3, seed=7)
    walk(files)
    walk(files, seed=1)
    assert files.counts.hits == GROUPS


def test_a_store_out_of_reach_is_no_bad_data(cached: Open, s3: S3) -> None:
    files = cached(retries=1)
    s3.faults = Faults(busy=1.0)
    files.expect([0])
    with pytest.raises(
        RunFailed, match=r"row group 0 of s3://bucket/set/shard-00000.parquet cannot be had.*2 requests"
    ):
        files.path(0)


def test_a_folder_that_cannot_be_used_is_named(url: str, s3: S3, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    options = Store(endpoint=s3.endpoint)
    data = Data(train=url, store=options, cache=Cache(folder=str(tmp_path / "file")))
    with pytest.raises(BadInput, match=r"data\.cache\.folder=.*file cannot be used: File exists"):
        open_files(url, manifests.load(url, options=options), data)


def test_a_full_disk_is_said(cached: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = cached()
    monkeypatch.setattr("headway.data.store.cache._written", full)
    with pytest.raises(
        BadInput, match=r"data\.cache\.folder=.* cannot be written: the disk is full.*data\.cache\.bytes"
    ):
        files.path(0)
    assert files._shelf.held() == 0


def test_closing_does_not_wait_for_what_another_worker_brings(cached: Open, s3: S3) -> None:
    other, files = cached(), cached()
    with other._shelf.sole(0, 1.0, lambda: False):
        files.expect([0])
        until(lambda: bool(files._flights))
        begin = time.monotonic()
        files.close()
        assert time.monotonic() - begin < files._patience_s / 2


def test_the_usual_folder_is_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = usual_folder()
    assert folder.parent == tmp_path
    folder.mkdir()
    assert usual_folder() == folder
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    taken = folder.rename(tmp_path / f"headway-cache-{other}")
    with pytest.raises(BadInput, match=f"{taken} cannot be used: it belongs to another user"):
        usual_folder()


def test_a_folder_of_this_machine_needs_no_cache(dataset: Path) -> None:
    files = open_files(dataset, manifests.load(dataset), Data(train=str(dataset)))
    assert isinstance(files, LocalFiles)
    walk(files)


def test_what_is_not_ours_in_the_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    theirs = [
        folder / "other" / "00000000-5.parquet",
        folder / ("a" * 32) / "shard-00000.parquet",
        folder / "note.part",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    shelf = Shelf(folder, 100, "b" * 64)
    shelf.join()
    assert shelf.held() == 0
    assert shelf.make_room(0, 90, 0.0) is not None
    assert shelf.make_room(1, 90, 0.0) is None
    shelf.leave()
    assert all(path.read_text() == "theirs" for path in theirs)


READER = """
import random, sys
from headway.data import manifest as manifests
from headway.data.store.cache import open_files
from headway.job import Cache, Data, Store
import pyarrow.parquet as pq

url, endpoint, folder, limit, seed = sys.argv[1:]
options = Store(endpoint=endpoint)
manifest = manifests.load(url, options=options)
data = Data(train=url, store=options, cache=Cache(folder=folder, bytes=int(limit)))
files = open_files(url, manifest, data)
print("ready", flush=True)
number = 0
while True:
    order = random.Random(int(seed) + number).sample(range(len(manifest.groups)), len(manifest.groups))
    files.expect(order)
    for group in order:
        with pq.ParquetFile(files.path(group), memory_map=True) as file:
            assert file.read_row_group(manifest.locate(group)[1]).num_rows == manifest.groups[group]
        files.release(group)
    number += 1
"""


@pytest.mark.timeout(120)
def test_readers_that_are_killed_leave_a_usable_cache(cached: Open, s3: S3, url: str, tmp_path: Path) -> None:
    probe = cached()
    limit = sum(size(probe, group) for group in range(GROUPS)) // 2
    probe.close()
    s3.faults = Faults(latency_s=0.003)
    moments, readers = random.Random(11), []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", READER, url, s3.endpoint, str(tmp_path / "cache"), str(limit)]
    try:
        for seed in range(5):
            reader = subprocess.Popen([*command, str(seed)], env=environment, stdout=subprocess.PIPE, text=True)
            readers.append(reader)
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            if seed:  # always two at once but for the ends
                seen = sum(s3.counts.values())
                enough = seen + moments.randrange(5, 40)
                until(lambda enough=enough: sum(s3.counts.values()) >= enough)  # type: ignore[misc]
                assert readers[seed - 1].poll() is None  # it had no trouble before
                os.kill(readers[seed - 1].pid, signal.SIGKILL)
                readers[seed - 1].wait()
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    files = cached(limit=limit)
    assert len(list((tmp_path / "cache" / "members").glob("*.lock"))) == 1
    assert not [p for p in files._shelf.place.iterdir() if p.name.endswith((".part", ".once"))]
    assert files._shelf.held() <= limit
    walk(files)
    assert files.counts.damaged == 0


def test_a_reader_that_is_stopped_does_not_stop_the_others(cached: Open, s3: S3) -> None:
    stopped, files = cached(), cached()
    files._patience_s = 0.3
    kept_at = stopped._shelf.kept(0, size(files, 0))
    with stopped._shelf.sole(0, 1.0, kept_at.exists):  # it holds the lock and does not go on
        assert rows(files, 0) == expected(files.manifest, 0)


def test_manifests_of_urls_are_checked_like_folders(url: str, s3: S3, dataset: Path) -> None:
    options = Store(endpoint=s3.endpoint, retries=0)
    manifest = manifests.load(url, options=options)
    assert manifest == manifests.load(dataset)
    assert manifests.load(url, 1, options) == manifest
    manifests.verify(url, manifest, options)
    with pytest.raises(BadData, match="s3://bucket/set has no version 2"):
        manifests.load(url, 2, options)
    with pytest.raises(BadData, match=r"s3://bucket/other is not a dataset: it has no manifest\.json"):
        manifests.load("s3://bucket/other", options=options)
    shard = manifest.shards[1]
    content = bytearray((dataset / shard.path).read_bytes())
    content[10] ^= 1
    s3.direct("PUT", f"/bucket/set/{shard.path}", bytes(content))
    manifests.quick_check(url, manifest, options)
    with pytest.raises(BadData, match=r"s3://bucket/set/shard-00001\.parquet has been altered"):
        manifests.verify(url, manifest, options)
    s3.direct("PUT", f"/bucket/set/{shard.path}", bytes(content[:-5]))
    with pytest.raises(BadData, match=r"shard-00001\.parquet is truncated"):
        manifests.quick_check(url, manifest, options)
    s3.direct("DELETE", f"/bucket/set/{shard.path}")
    with pytest.raises(BadData, match=r"shard-00001\.parquet is missing"):
        manifests.quick_check(url, manifest, options)


def test_data_check_takes_urls(url: str, s3: S3, dataset: Path) -> None:
    from typer.testing import CliRunner

    from headway.cli.data import app

    checked = CliRunner().invoke(app, ["check", url, "--endpoint", s3.endpoint])
    assert checked.exit_code == 0
    assert "s3://bucket/set: good." in checked.stdout
    both = s3.put("bucket", "both/train", dataset).removesuffix("/train")
    checked = CliRunner().invoke(app, ["check", both, "--endpoint", s3.endpoint])
    assert "s3://bucket/both/train: good." in checked.stdout


def test_a_cache_that_somebody_empties_harms_no_run(cached: Open, dataset: Path, tmp_path: Path) -> None:
    files = cached()
    files.expect(range(GROUPS))
    paths = {group: files.path(group) for group in range(GROUPS)}
    for kept in (tmp_path / "cache").glob("*/*"):
        if kept.is_file():
            kept.unlink()
    for group, path in paths.items():
        shard, index = files.manifest.locate(group)
        place = shard.row_groups[index]
        there = (dataset / shard.path).read_bytes()[place.offset : place.offset + place.bytes]
        with path.open("rb") as file:
            file.seek(place.offset)
            assert file.read(place.bytes) == there
        files.release(group)


def test_only_the_file_that_was_damaged_is_given_back(cached: Open) -> None:
    files = cached()
    files.path(0)
    shelf = files._shelf
    kept = shelf.kept(0, files._sizes[0])
    with kept.open("rb") as old:
        kept.unlink()
        kept.write_bytes(b"a new one")
        shelf.give_back(kept, files._sizes[0], old.fileno())
    assert kept.read_bytes() == b"a new one"
    files.release(0)
