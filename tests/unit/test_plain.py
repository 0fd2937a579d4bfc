"""Values between workers keep their types, and are data whatever a peer sends."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import BadInput
from headway.strategies import plain

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
keys = st.integers() | st.text() | st.tuples(st.integers(), st.text()) | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.integers())
    ),
    max_leaves=20,
)


def same(found: Any, sent: Any) -> bool:
    if type(found) is not type(sent):
        return False
    if isinstance(sent, dict):
        pairs = zip(found.items(), sent.items(), strict=True)
        return len(found) == len(sent) and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(sent, list | tuple):
        return len(found) == len(sent) and all(map(same, found, sent))
    if isinstance(sent, float):
        return math.copysign(1, found) == math.copysign(1, sent) and found == sent
    return bool(found == sent)


@given(values)
def test_2_21_a_value_arrives_as_it_was(value: Any) -> None:
    assert same(plain.unpack(plain.pack(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.1),
        np.int64(-3),
        np.bool_(True),
        np.datetime64("2026-11-25"),
        np.str_("é"),
        torch.float16,
        torch.device("cpu"),
    ],
    ids=repr,
)
def test_2_21_scalars_and_types_of_numpy_and_torch(value: Any) -> None:
    found = plain.unpack(plain.pack(value))
    assert found == value
    assert type(found) is type(value)


def test_2_21_arrays_sizes_and_what_is_no_number() -> None:
    sent = [
        np.arange(6, dtype="<u2").reshape(2, 3).T,
        torch.Size([2, 3]),
        math.nan,
        -math.inf,
        OrderedDict(a=1),
        np.zeros((0, 3)),
    ]
    array, size, nan, inf, plain_dict, empty = plain.unpack(plain.pack(sent))
    assert (array.dtype, array.tolist()) == (sent[0].dtype, sent[0].tolist())
    assert array.flags.writeable
    assert type(size) is torch.Size
    assert math.isnan(nan)
    assert inf == -math.inf
    assert plain_dict == {"a": 1}
    assert empty.shape == (0, 3)


def test_2_21_numpys_random_state_travels() -> None:
    state = np.random.default_rng(1).bit_generator.state
    assert plain.unpack(plain.pack(state)) == state
    legacy = np.random.RandomState(3).get_state()
    other = np.random.RandomState(4)
    other.set_state(plain.unpack(plain.pack(legacy)))
    assert other.rand() == np.random.RandomState(3).rand()


class Mine:
    """An object of the user's own."""


@pytest.mark.parametrize("value", [Mine(), print, {"a": [Mine]}, np.array([Mine()], dtype=object)], ids=type)
def test_2_21_objects_are_refused_by_name(value: Any) -> None:
    with pytest.raises(BadInput, match="cannot be given to other workers"):
        plain.pack(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04N.",
        b'{"pickle":"gASVCg=="}',
        b"{}",
        b'{"tuple":[1],"list":[]}',
        b'{"tuple":3}',
        b'{"dict":[[1]]}',
        b'{"dict":[[[1],2]]}',
        b'{"dtype":"load"}',
        b'{"dtype":["float16"]}',
        b'{"device":"kitchen"}',
        b'{"array":["|O",[1],"AAAAAAAAAAA="]}',
        b'{"array":["<f4",[7],"AAAA"]}',
        b'{"scalar":["<f4",""]}',
        b'{"bytes":"*"}',
        b'{"complex":[1,2,3]}',
        b"[" * 100_000,
    ],
    ids=lambda data: data[:24].decode("latin1"),
)
def test_2_21_what_is_no_value_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        plain.unpack(data)
