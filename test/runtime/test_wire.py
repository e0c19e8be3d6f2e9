"""Messages of policy servers: openpi-client's bytes, and what a stranger may write."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

msgpack = pytest.importorskip("msgpack", reason="msgpack (requirements/remote.txt) is not installed")

from vla_ros.core.errors import InputError
from vla_ros.runtime.remote.wire import pack, unpack

# What `msgpack_numpy.packb` of openpi-client 0.1.2 makes of OBSERVATION.
OBSERVATION = {
    "observation/state": np.arange(3, dtype=np.float32),
    "observation/image": np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
    "prompt": "go",
    "n": np.float32(0.5),
    "images": {"cam_high": np.array([[True]])},
}
WRITTEN = bytes.fromhex(
    "85b16f62736572766174696f6e2f737461746584c40b5f5f6e6461727261795f5fc3c40464617461c40c000000000000803f0000"
    "0040c4056474797065a33c6634c40573686170659103b16f62736572766174696f6e2f696d61676584c40b5f5f6e646172726179"
    "5f5fc3c40464617461c406000102030405c4056474797065a37c7531c405736861706593010203a670726f6d7074a2676fa16e83"
    "c40d5f5f6e7067656e657269635f5fc3c40464617461cb3fe0000000000000c4056474797065a33c6634a6696d6167657381a863"
    "616d5f6869676884c40b5f5f6e6461727261795f5fc3c40464617461c40101c4056474797065a37c6231c4057368617065920101"
)
DTYPES = arrays.boolean_dtypes() | arrays.integer_dtypes(endianness="?") | arrays.unsigned_integer_dtypes(
    endianness="?") | arrays.floating_dtypes(sizes=(16, 32, 64), endianness="?")  # fmt: skip


def array(**changes) -> bytes:
    row = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}
    return msgpack.packb({"a": row | {name.encode(): value for name, value in changes.items()}})


def test_bytes_are_those_of_openpi_client():
    assert pack(OBSERVATION) == WRITTEN
    read = unpack(WRITTEN)
    assert read["prompt"] == "go" and read["n"] == 0.5 and read["n"].dtype == np.float32
    for value, expected in ((read["images"]["cam_high"], OBSERVATION["images"]["cam_high"]),
                            *((read[key], OBSERVATION[key]) for key in ("observation/state", "observation/image"))):
        np.testing.assert_array_equal(value, expected)
        assert value.dtype == expected.dtype and value.flags.writeable


@given(DTYPES.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))))
def test_every_array_of_numbers_comes_back(value):
    back = unpack(pack({"a": value}))["a"]
    np.testing.assert_array_equal(back, value)
    assert back.shape == value.shape and back.dtype == value.dtype.newbyteorder("=")


@pytest.mark.parametrize("value", [
    np.array([object()]), np.array(["text"]), np.array([1j]), np.array([(1, 2)], dtype="i4,i4"), {1, 2}, object(),
    np.datetime64("now"),
])  # fmt: skip
def test_nothing_but_numbers_is_written(value):
    with pytest.raises(TypeError, match="expected"):
        pack({"a": value})


@pytest.mark.parametrize("data", [
    array(dtype="|O"), array(dtype="O"), array(dtype="<U2"), array(dtype="<c8"), array(dtype="i4,i4"), array(dtype=3),
    array(dtype="<f16"), array(dtype="V8"), array(dtype=[["a", "<f4"]]), array(shape=[3]), array(shape=[-2]),
    array(shape=[1 << 62, 4]), array(shape="2"), array(shape=[2.0]), array(shape=[1] * 9 + [2]), array(data="text"),
    array(data=None), array(shape=None), array(data=b"\0" * 7), array(shape=[True, 2]),
    msgpack.packb({b"__npgeneric__": True, b"dtype": "<i1", b"data": 1000}),
    msgpack.packb({b"__npgeneric__": True, b"dtype": "<f8", b"data": [0] * 100}),
    msgpack.packb({b"__npgeneric__": True, b"dtype": "|O", b"data": 1}),
    msgpack.packb({1: 2}), msgpack.packb(msgpack.ExtType(5, b"x")), msgpack.packb(msgpack.Timestamp(1)),
    b"", b"\xc1", b"\x81", b"\x93\x01", WRITTEN[:-1], WRITTEN + b"\0", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\x91" * 5000, b"\xa1\xff", msgpack.packb([0] * 1001),
    msgpack.packb([[[]] * 999] * 11), b"\x80\x04N.", b"not msgpack at all",
], ids=lambda _: "message")  # fmt: skip
def test_what_is_no_message_is_refused_in_one_line(data):
    with pytest.raises(InputError) as error:
        unpack(data, "question")
    assert str(error.value).startswith("question: ") and "\n" not in str(error.value)


@given(st.data())
def test_spoilt_messages_are_read_or_refused(draw):
    data = bytearray(WRITTEN)
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        unpack(bytes(data[: draw.draw(st.integers(0, len(data)))]))
    except InputError:
        pass
