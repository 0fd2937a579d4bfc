"""From Arrow to NumPy, and tensors through Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from headway.data.arrays import arrays
from headway.data.tensors import column
from headway.errors import BadData

PIXELS = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)


@pytest.mark.parametrize(
    "values",
    [np.arange(6), np.arange(6, dtype=np.uint8), np.linspace(0, 1, 6, dtype=np.float32), np.arange(6) % 2 == 0],
    ids=lambda values: str(values.dtype),
)
def test_plain_columns_in_pieces_are_writable_and_torch_takes_them_silently(values: np.ndarray) -> None:
    whole = pa.table({"x": values})
    pieces = pa.concat_tables([whole.slice(0, 2), whole.slice(2)])
    found = arrays(pieces)["x"]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    torch.from_numpy(found)[0] = 1  # a read-only array would warn, and warnings are errors
    assert whole["x"][0].as_py() == values[0]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float16"])
def test_tensors_survive_parquet_slices_and_takes(tmp_path: Path, dtype: str) -> None:
    values = PIXELS.astype(dtype)
    pq.write_table(pa.table({"image": column(values)}), tmp_path / "x.parquet", row_group_size=3)
    table = pq.read_table(tmp_path / "x.parquet")
    np.testing.assert_array_equal(arrays(table)["image"], values)
    np.testing.assert_array_equal(arrays(table.slice(1, 4))["image"], values[1:5])
    np.testing.assert_array_equal(arrays(table.take([5, 0, 3]))["image"], values[[5, 0, 3]])
    assert arrays(table.slice(0, 0))["image"].shape == (0, 4, 5)
    assert str(table.schema.field("image").type) == f"tensor<{np.dtype(dtype).name}>[4, 5]"


def test_arrows_own_tensors_and_lists() -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(18)), 3)
    found = arrays(pa.table({"tensor": tensors, "list": lists}).slice(2, 3))
    np.testing.assert_array_equal(found["tensor"], PIXELS[2:5])
    np.testing.assert_array_equal(found["list"], np.arange(18).reshape(6, 3)[2:5])


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        (pa.array(["a", "b"]), "column 'x' is string"),
        (pa.array([[1], [2, 3]]), "column 'x' is list"),
        (pa.array([1, None]), "column 'x' has 1 nulls"),
        (pa.array([0, 1], pa.timestamp("s")), "column 'x' is timestamp"),
        (pa.array([[1, None], [2, 3]], pa.list_(pa.int64(), 2)), "column 'x' has nulls in its lists"),
    ],
)
def test_what_is_no_number_is_refused_by_name(values: pa.Array, fact: str) -> None:
    with pytest.raises(BadData) as caught:
        arrays(pa.table({"good": [1, 2], "x": values}))
    assert fact in caught.value.fact
    assert "transform" in caught.value.remedy
    assert "data.columns" in caught.value.remedy
