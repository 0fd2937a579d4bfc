"""Lane streams: the rows of a lane at a step, read from the shards where the order says they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headway.core.order import Order, Rows, Window
from headway.data.manifest import Manifest
from headway.errors import BadData


class RowGroups:
    """Row groups of a dataset as Arrow tables, the latest few kept.

    Args:
        folder: of the dataset.
        manifest: of the dataset.
        columns: to read, or None for all.
        keep: row groups kept in memory.
    """

    def __init__(self, folder: Path, manifest: Manifest, columns: list[str] | None, keep: int) -> None:
        self._folder, self._manifest, self._columns, self._keep = folder, manifest, columns, keep
        self._tables: OrderedDict[int, Future[pa.Table]] = OrderedDict()
        self._footers: dict[str, pq.FileMetaData] = {}
        self._lock = threading.Lock()

    def read(self, group: int) -> pa.Table:
        """The row group's rows, read once however many lanes and threads ask for it while it is kept.

        Raises:
            BadData: naming the shard and the row group.
        """
        with self._lock:
            future = self._tables.get(group)
            mine = future is None
            if future is None:
                future = self._tables[group] = Future()
                while len(self._tables) > self._keep:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(group)
        if mine:
            try:
                future.set_result(self._load(group))
            except BaseException as error:  # whoever waits for this row group must hear of it
                future.set_exception(error)
        return future.result()

    def _load(self, group: int) -> pa.Table:
        shard, index = self._manifest.locate(group)
        path = self._folder / shard.path
        try:
            # A ParquetFile is not for several threads at once: each read opens its own, with the footer parsed before.
            with pq.ParquetFile(path, metadata=self._footers.get(shard.path)) as file:
                table = file.read_row_group(index, columns=self._columns, use_threads=False)
                self._footers[shard.path] = file.metadata
        except (OSError, pa.ArrowException, IndexError) as error:
            raise BadData(
                f"row group {index} of {path} cannot be read",
                (str(error) or type(error).__name__).splitlines()[0],
                "Run `headway data check` on it.",
            ) from error
        if table.num_rows != shard.row_groups[index].rows:
            raise BadData(
                f"row group {index} of {path} has {table.num_rows} rows",
                f"its manifest says {shard.row_groups[index].rows}",
                "Prepare the dataset again.",
            )
        return table


class Lane:
    """One lane's walk; the current window's rows in memory, the next window's on the way.

    Args:
        order: of the dataset.
        lane: which.
        read: gives a row group's table.
        ahead: reads the next window meanwhile.
    """

    def __init__(self, order: Order, lane: int, read: Callable[[int], pa.Table], ahead: ThreadPoolExecutor) -> None:
        self._order, self._lane, self._read, self._ahead = order, lane, read, ahead
        self._windows: dict[tuple[int, int], Future[tuple[pa.Table, Rows, Rows]]] = {}

    def rows(self, epoch: int, start: int, stop: int) -> tuple[pa.Table, Rows]:
        """Rows [start, stop) of the lane's walk through an epoch, and their sample ids, shape [stop - start]."""
        tables, ids = [], []
        windows = self._order.windows(epoch, self._lane)
        for window in windows:
            low, high = max(start, window.first), min(stop, window.first + window.rows)
            if low < high:
                table, order, names = self._open(epoch, window)
                chosen = order[low - window.first : high - window.first]
                tables.append(table.take(pa.array(chosen)))
                ids.append(names[chosen])
                self._look_ahead(epoch, window, windows)
        if not tables:
            raise ValueError(f"rows [{start}, {stop}) lie outside lane {self._lane}")
        return (tables[0], ids[0]) if len(tables) == 1 else (pa.concat_tables(tables), np.concatenate(ids))

    def _open(self, epoch: int, window: Window) -> tuple[pa.Table, Rows, Rows]:
        place = (epoch, window.index)
        future = self._windows.get(place)
        if future is None:
            built = self._build(epoch, window)
            future = self._windows[place] = Future()
            future.set_result(built)
        return future.result()

    def _look_ahead(self, epoch: int, window: Window, windows: tuple[Window, ...]) -> None:
        if window.index + 1 < len(windows):
            then, coming = epoch, windows[window.index + 1]
        elif self._order.shuffle:
            then, coming = epoch + 1, self._order.windows(epoch + 1, self._lane)[0]
        else:  # evaluation walks the same epoch again
            then, coming = epoch, windows[0]
        here, next_place = (epoch, window.index), (then, coming.index)
        if next_place not in self._windows:
            self._windows = {p: f for p, f in self._windows.items() if p == here}
            self._windows[next_place] = self._ahead.submit(self._build, then, coming)

    def _build(self, epoch: int, window: Window) -> tuple[pa.Table, Rows, Rows]:
        tables = [self._read(p.group).slice(p.start, p.stop - p.start) for p in window.pieces]
        table = pa.concat_tables(tables).combine_chunks()
        return table, self._order.window_order(epoch, self._lane, window), self._order.ids(window)


class Streams:
    """The lanes of one dataset that a worker carries.

    Args:
        folder: of the dataset.
        manifest: of the dataset.
        order: of its rows.
        columns: to read, or None for all.
    """

    def __init__(self, folder: Path, manifest: Manifest, order: Order, columns: list[str] | None) -> None:
        self.order = order
        self._groups = RowGroups(folder, manifest, columns, keep=max(4, order.window))
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._lanes: dict[int, Lane] = {}

    def rows(self, epoch: int, step: int, lane: int) -> tuple[pa.Table, Rows]:
        """The rows that a lane takes at a step of an epoch, and their sample ids."""
        start = step * self.order.lane_batch
        return self.stretch(epoch, lane, start, start + self.order.sizes(step)[lane])

    def stretch(self, epoch: int, lane: int, start: int, stop: int) -> tuple[pa.Table, Rows]:
        """Rows [start, stop) of a lane's walk through an epoch, and their sample ids."""
        if lane not in self._lanes:
            self._lanes[lane] = Lane(self.order, lane, self._groups.read, self._ahead)
        return self._lanes[lane].rows(epoch, start, stop)

    def close(self) -> None:
        self._ahead.shutdown(wait=True, cancel_futures=True)
        self._lanes.clear()
