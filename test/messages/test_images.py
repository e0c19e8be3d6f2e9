"""Images against an independent decoder, rosbags-image."""

import random
import struct
import sys
import zlib
from types import SimpleNamespace
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from rosbags.image import message_to_cvimage

from vla_ros.core.errors import InputError
from vla_ros.core.robot import ENCODINGS, Camera, CommandGroup, Joint, RobotSpec
from vla_ros.core.stream import Stream
from vla_ros.datasets.values import pixels as dataset_pixels
from vla_ros.messages import images
from vla_ros.messages.decoders import decoder_of
from vla_ros.messages.images import compressed_image_message, depth_image, image_message, raw_image, rgb_image
from vla_ros.messages.observation import unexpected_sizes

HEIGHT, WIDTH = 5, 7
SHAPES = {
    "rgb8": (np.uint8, (3,)), "bgr8": (np.uint8, (3,)), "rgba8": (np.uint8, (4,)), "bgra8": (np.uint8, (4,)),
    "mono8": (np.uint8, ()), "mono16": (np.uint16, ()), "16UC1": (np.uint16, ()), "32FC1": (np.float32, ()),
}  # fmt: skip


def pixels_of(encoding: str) -> np.ndarray:
    dtype, channels = SHAPES[encoding]
    rng = np.random.default_rng(3)
    if dtype == np.float32:
        return rng.uniform(0, 4, (HEIGHT, WIDTH)).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, *channels), dtype=dtype, endpoint=True)


def message_of(encoding: str, pixels: np.ndarray, padding: int = 0, big_endian: bool = False) -> SimpleNamespace:
    ordered = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = np.frombuffer(ordered.tobytes(), np.uint8).reshape(HEIGHT, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    return SimpleNamespace(
        height=HEIGHT, width=WIDTH, encoding=encoding, is_bigendian=int(big_endian), step=rows.shape[1],
        data=rows.tobytes(),
    )  # fmt: skip


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 5, 8])
@pytest.mark.parametrize("encoding", SHAPES)
def test_raw_pixels_survive_padding_and_byte_order(encoding, padding, big_endian):
    pixels = pixels_of(encoding)
    message = message_of(encoding, pixels, padding, big_endian)
    np.testing.assert_array_equal(raw_image(message), pixels)
    assert raw_image(message).dtype == SHAPES[encoding][0]
    # The independent decoder knows no padding; on rows without it the two agree.
    tight = message_of(encoding, pixels, 0, big_endian)
    tight.is_bigendian = bool(big_endian)
    np.testing.assert_array_equal(raw_image(message), message_to_cvimage(tight))


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_rgb_agrees_with_an_independent_decoder(encoding):
    message = message_of(encoding, pixels_of(encoding), padding=0)
    np.testing.assert_array_equal(rgb_image(message), message_to_cvimage(message, "rgb8"))
    assert rgb_image(message).shape == (HEIGHT, WIDTH, 3)


def test_sixteen_bit_grey_is_rounded_to_eight():
    pixels = pixels_of("mono16")
    rgb = rgb_image(message_of("mono16", pixels, padding=3, big_endian=True))
    assert rgb.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(rgb[..., channel], np.rint(pixels / 257.0))


@pytest.mark.parametrize(
    ("encoding", "values"),
    [("16UC1", [0, 10, 500, 2550, 65535, 14, 16]), ("32FC1", [np.nan, 0.01, 0.5, 2.55, 9.0, 0.014, 0.016])],
)
def test_depth_is_a_grey_step_a_centimetre(encoding, values):
    pixels = np.tile(np.array(values, SHAPES[encoding][0]), (HEIGHT, 1))
    rgb = rgb_image(message_of(encoding, pixels))
    np.testing.assert_array_equal(rgb[0, :, 0], [0, 1, 50, 255, 255, 1, 2])


def test_depth_without_return_is_black():
    rgb = rgb_image(message_of("32FC1", np.full((HEIGHT, WIDTH), np.inf, np.float32)))
    assert not rgb.any()


# A picture of four fields of one colour, as each encoding sends it: written out here, without OpenCV.

COLOURS = np.array([[[200, 40, 30], [30, 180, 60]], [[40, 50, 210], [120, 120, 120]]])  # (2, 2, 3) RGB
FIELDS = COLOURS.repeat(8, axis=0).repeat(8, axis=1)


def yuv_of(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601, Y 16 to 235, U and V around 128."""
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return np.rint(np.stack([y, u, v], axis=-1)).astype(np.uint8)


def sent_as(encoding: str) -> np.ndarray:
    """FIELDS in the rows that a camera of this encoding sends."""
    deep = encoding.endswith("16")
    rgb = (FIELDS * 257).astype(np.uint16) if deep else FIELDS.astype(np.uint8)
    if encoding.startswith("bayer"):
        pattern = encoding.removeprefix("bayer_").removesuffix("16").removesuffix("8")
        rows = np.empty(rgb.shape[:2], rgb.dtype)
        for place, letter in enumerate(pattern):
            y, x = divmod(place, 2)
            rows[y::2, x::2] = rgb[y::2, x::2, "rgb".index(letter)]
        return rows
    if encoding.rstrip("168") in ("rgb", "bgr", "rgba", "bgra"):
        alpha = np.full(rgb.shape[:2], 77, rgb.dtype)
        order = [{"r": rgb[..., 0], "g": rgb[..., 1], "b": rgb[..., 2], "a": alpha}[c] for c in encoding.rstrip("168")]
        return np.stack(order, axis=-1).reshape(len(rgb), -1)
    y, u, v = np.moveaxis(yuv_of(FIELDS), -1, 0)
    pairs = {"yuyv": "yuyv", "yuv422_yuy2": "yuyv", "uyvy": "uyvy", "yuv422": "uyvy"}
    if encoding in pairs:
        colour = np.where(np.arange(16) % 2, v, u)
        return np.stack([y, colour] if pairs[encoding] == "yuyv" else [colour, y], axis=-1).reshape(16, -1)
    if encoding == "nv24":
        return np.concatenate([y, np.stack([u, v], axis=-1).reshape(32, 16)])
    chroma = [u[::2, ::2], v[::2, ::2]] if encoding == "nv12" else [v[::2, ::2], u[::2, ::2]]
    return np.concatenate([y, np.stack(chroma, axis=-1).reshape(8, 16)])


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", [e for e in ENCODINGS if "mono" not in e and "C1" not in e])
def test_the_colours_of_every_encoding_survive(encoding, padding, big_endian):
    rows = sent_as(encoding)
    rows = rows.astype(rows.dtype.newbyteorder(">" if big_endian else "<")).view(np.uint8)
    padding = padding * (encoding != "nv24")
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    message = SimpleNamespace(height=16, width=16, encoding=encoding, is_bigendian=int(big_endian),
                              step=data.shape[1], data=data.tobytes())  # fmt: skip
    found = rgb_image(message)
    assert found.shape == (16, 16, 3) and found.dtype == np.uint8
    for y in (0, 1):
        for x in (0, 1):  # inside each field: at its rim neighbours share colours
            inner = found[8 * y + 2 : 8 * y + 6, 8 * x + 2 : 8 * x + 6].astype(int)
            assert abs(inner - COLOURS[y, x]).max() <= (3 if encoding[0] in "ynu" else 0)


def test_a_robot_file_may_name_every_encoding_that_is_read():
    assert set(ENCODINGS) == set(images._LAYOUT)


def test_a_bayer_pattern_in_a_png_keeps_its_colours():
    data = cv2.imencode(".png", sent_as("bayer_gbrg8"))[1].tobytes()
    found = rgb_image(SimpleNamespace(format="bayer_gbrg8; png compressed ", data=data))
    assert (found[2:6, 10:14] == COLOURS[0, 1]).all()


def run_lengths(pixels: np.ndarray) -> bytes:
    """RVL as its paper writes it, number by number."""
    groups, values, at, last = [], pixels.ravel().tolist(), 0, 0

    def put(number: int) -> None:
        while True:
            number, low = number >> 3, number & 7
            groups.append(low | 8 if number else low)
            if not number:
                return

    while at < len(values):
        for there in (False, True):
            end = at
            while end < len(values) and bool(values[end]) == there:
                end += 1
            put(end - at)
            for value in values[at:end] if there else ():
                change, last = value - last, value
                put((change << 1) ^ (change >> 63) if change >= 0 else (-change << 1) - 1)
            at = end
    groups += [0] * (-len(groups) % 8)
    words = [int("".join(f"{group:x}" for group in groups[k : k + 8]), 16) for k in range(0, len(groups), 8)]
    return struct.pack(f"<{len(words)}I", *words)


@pytest.mark.parametrize("how", ["png", "rvl"])
def test_compressed_depth_is_the_depth_that_was_sent(how):
    rng = np.random.default_rng(0)
    depth = rng.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16) * rng.integers(0, 2, (HEIGHT, WIDTH), np.uint16)
    depth[0] = 0
    for first in (0, 1234):  # the run lengths begin and end with a hole, or with a value
        depth[0, 0] = depth[-1, -1] = first
        body = struct.pack("<II", WIDTH, HEIGHT) + run_lengths(depth)
        body = body if how == "rvl" else cv2.imencode(".png", depth)[1].tobytes()
        message = SimpleNamespace(format=f"16UC1; compressedDepth {how}", data=struct.pack("<iff", 0, 0, 0) + body)
        np.testing.assert_array_equal(depth_image(message), depth)
        np.testing.assert_array_equal(DECODERS["depth"](message)["depth"][..., 0], depth)
        assert rgb_image(message).max() == 255
        # Floating-point depth travels as A / depth + B.
        a, b = 2000.0, 10.0
        message.format = f"32FC1; compressedDepth {how}"
        message.data = struct.pack("<iff", 0, a, b) + body
        metres = a / (np.float64(depth) - b)
        expected = np.where((depth == 0) | (metres < 0), 0, np.rint(np.clip(metres * 1000, 0, 65535)))
        assert abs(depth_image(message).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("extension", ["jpeg", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_compressed_images_agree_with_an_independent_decoder(extension, channels):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, channels), np.uint8)
    message = SimpleNamespace(format=extension, data=cv2.imencode(f".{extension}", pixels)[1].tobytes())
    expected = message_to_cvimage(message)
    expected = expected[..., ::-1] if channels == 3 else np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(rgb_image(message), expected)


def test_png_with_alpha_and_with_sixteen_bits():
    rgba = np.random.default_rng(0).integers(0, 255, (6, 4, 4), np.uint8)
    message = SimpleNamespace(format="png", data=cv2.imencode(".png", rgba[..., [2, 1, 0, 3]])[1].tobytes())
    np.testing.assert_array_equal(rgb_image(message), rgba[..., :3])
    depth = np.full((6, 4), 1000, np.uint16)
    data = cv2.imencode(".png", depth)[1].tobytes()
    assert (rgb_image(SimpleNamespace(format="16UC1; png compressed", data=data)) == 100).all()
    assert (rgb_image(SimpleNamespace(format="mono16; png compressed", data=data)) == 4).all()


def test_channel_order_named_by_image_transport():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[..., 0] = 200
    data = cv2.imencode(".png", rgb)[1].tobytes()  # red in the place where OpenCV has blue
    assert rgb_image(SimpleNamespace(format="rgb8; png compressed rgb8", data=data))[0, 0].tolist() == [200, 0, 0]
    assert rgb_image(SimpleNamespace(format="rgb8; png compressed bgr8", data=data))[0, 0].tolist() == [0, 0, 200]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoding": "bayer_rggb12"}, "bayer_rggb12"),
        ({"encoding": ""}, "encoding ''"),
        ({"encoding": "yuyv"}, "7x5 pixels of yuyv, expected multiples of 2x1"),
        ({"encoding": "nv12", "width": 8}, "8x5 pixels of nv12, expected multiples of 2x2"),
        ({"encoding": "bayer_rggb8", "height": 2}, "7x2 pixels of bayer_rggb8"),
        ({"encoding": "nv24"}, "step 21 of 7 pixels of nv24"),
        ({"step": 3}, "step 3"),
        ({"data": b"\0" * 10}, "10 bytes"),
        ({"height": 0}, "7x0"),
        ({"data": b""}, "0 bytes"),
    ],
)
def test_a_bad_image_is_refused_by_name(change, said):
    message = message_of("rgb8", pixels_of("rgb8"))
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(InputError, match=said):
        rgb_image(message)


@pytest.mark.parametrize(
    ("format", "data", "said"),
    [("jpeg", b"", "0 bytes"), ("jpeg", b"not an image", "not a JPEG"), ("16UC1; compressedDepth", b"x", "1 bytes"),
     ("16UC1; compressedDepth png", bytes(40), "after its header of 12 bytes: .*28 bytes are not a"),
     ("rgb8; compressedDepth png", bytes(40), "expected 16UC1 or 32FC1"),
     ("16UC1; compressedDepth rvl", bytes(40), "0x0 pixels"),
     ("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<II", 4, 4) + bytes(20), "of 4x4 pixels"),
     ("16UC1; compressedDepth rvl", bytes(12) + struct.pack("<II", 4, 4) + bytes(400), "400 bytes, too many")],
)
def test_a_bad_compressed_image_is_refused_by_name(format, data, said):
    with pytest.raises(InputError, match=said):
        rgb_image(SimpleNamespace(format=format, data=data))


def test_messages_made_here_are_read_back():
    msg = pytest.importorskip("sensor_msgs.msg", reason="needs the ROS messages")
    rgb = np.random.default_rng(0).integers(0, 255, (6, 4, 3), np.uint8)
    image = image_message(msg.Image, rgb, 1_500_000_000, "camera")
    assert (image.header.stamp.sec, image.header.stamp.nanosec, image.header.frame_id) == (1, 500_000_000, "camera")
    np.testing.assert_array_equal(rgb_image(image), rgb)
    np.testing.assert_array_equal(message_to_cvimage(image, "rgb8"), rgb)
    compressed = compressed_image_message(msg.CompressedImage, rgb, format="png")
    np.testing.assert_array_equal(rgb_image(compressed), rgb)


@pytest.mark.skipif(images.CvBridge is None, reason="cv_bridge is not installed: the numpy decoder alone is used")
@pytest.mark.parametrize("encoding", SHAPES)
def test_cv_bridge_gives_the_same_arrays(encoding, monkeypatch):
    message = message_of(encoding, pixels_of(encoding), big_endian=sys.byteorder == "big")
    with_bridge = raw_image(message)
    monkeypatch.setattr(images, "CvBridge", None)
    np.testing.assert_array_equal(with_bridge, raw_image(message))


def png_that_says(width: int, height: int) -> bytes:
    """A few bytes with the header of a large PNG; what follows it would be decoded without an end."""
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20))
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    chunks += struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg_that_says(width: int, height: int) -> bytes:
    data = bytearray(cv2.imencode(".jpeg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


ROBOT = RobotSpec(
    name="test", cameras=(Camera("front", "front", WIDTH, HEIGHT),),
    joints=(Joint("a", -1, 1, velocity=1, acceleration=1),),
    groups=(CommandGroup("arm", "arm", "joint_state", ("a",)),),
)  # fmt: skip
DEPTH = Stream("depth", "depth", "sensor_msgs/msg/CompressedImage", shape=(HEIGHT, WIDTH, 1), dtype="uint16")
DECODERS = {
    "camera": decoder_of(ROBOT.all_streams["front"], ROBOT),
    "depth": decoder_of(DEPTH, ROBOT),
    "viewer": rgb_image,
    "bag": depth_image,
    "dataset": lambda message: dataset_pixels(message.data, (HEIGHT, WIDTH), depth=False),
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("data", [png_that_says(30_000, 30_000), png_that_says(2**31 - 1, 2**31 - 1),
                                  jpeg_that_says(65_000, 65_000), jpeg_that_says(9_000, 8_000)])  # fmt: skip
def test_a_compressed_image_is_measured_before_it_is_decoded(decode, data, monkeypatch):
    monkeypatch.setattr(images.cv2, "imdecode", Mock(side_effect=AssertionError("it was decoded")))
    with pytest.raises(InputError, match=r"pixels|frame of|not a JPEG or PNG"):
        decode(SimpleNamespace(format="png", data=data))


@pytest.mark.parametrize("decode", ["depth", "dataset"])
@pytest.mark.parametrize("make", [png_that_says, jpeg_that_says])
def test_another_size_than_the_file_says_is_not_decoded(decode, make, monkeypatch):
    monkeypatch.setattr(images.cv2, "imdecode", Mock(side_effect=AssertionError("it was decoded")))
    with pytest.raises(InputError, match="8x5 pixels, the robot file says 7x5|frame of .5, 8., expected .5, 7"):
        DECODERS[decode](SimpleNamespace(format="png", data=make(WIDTH + 1, HEIGHT)))


@pytest.mark.parametrize("size", [(2 * HEIGHT, 2 * WIDTH), (HEIGHT, WIDTH - 2)])
def test_a_camera_of_another_size_than_the_file_says_is_read_and_said(size):
    rgb = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    message = SimpleNamespace(format="png", data=cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
    found = DECODERS["camera"](message)
    np.testing.assert_array_equal(found["front"], rgb)
    (said,) = unexpected_sizes(ROBOT, found)
    assert f"camera front: images of {size[1]}x{size[0]} pixels, the robot file says 7x5" in said
    assert not unexpected_sizes(ROBOT, {"front": np.zeros((HEIGHT, WIDTH, 3), np.uint8)})


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_bytes_turned_over_are_refused_in_one_line(decode):
    """Of a header, of what follows it, cut off, or no image at all: never another exception, never a wrong size."""
    rng = random.Random(0)
    kinds = ("png", "jpeg", "webp", "tiff", "bmp")
    whole = [cv2.imencode(f".{kind}", pixels_of("rgb8"))[1].tobytes() for kind in kinds]
    for k in range(600):
        data = bytearray(whole[k % len(whole)])
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        kind = "16UC1; compressedDepth rvl" if k % 7 == 0 else "16UC1; compressedDepth png" if k % 7 == 1 else "png"
        data = bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        message = SimpleNamespace(format=kind, data=data)
        try:
            decode(message)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert k % len(whole) < 2  # no other format is read
