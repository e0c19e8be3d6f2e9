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
from vla_ros.core.robot import Camera, CommandGroup, Joint, RobotSpec
from vla_ros.core.stream import Stream
from vla_ros.datasets.values import pixels as dataset_pixels
from vla_ros.messages import images
from vla_ros.messages.decoders import decoder_of
from vla_ros.messages.images import compressed_image_message, depth_image, image_message, raw_image, rgb_image

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
        ({"encoding": "bayer_rggb8"}, "bayer_rggb8"),
        ({"encoding": ""}, "encoding ''"),
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
    [("jpeg", b"", "0 bytes"), ("jpeg", b"not an image", "not a JPEG"), ("16UC1; compressedDepth", b"x", "raw depth")],
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
    joints=(Joint("a", -1, 1, 1, 1),), groups=(CommandGroup("arm", "arm", "joint_state", ("a",)),),
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


@pytest.mark.parametrize("decode", ["camera", "depth", "dataset"])
@pytest.mark.parametrize("make", [png_that_says, jpeg_that_says])
def test_another_size_than_the_file_says_is_not_decoded(decode, make, monkeypatch):
    monkeypatch.setattr(images.cv2, "imdecode", Mock(side_effect=AssertionError("it was decoded")))
    with pytest.raises(InputError, match="8x5 pixels, the robot file says 7x5|frame of .5, 8., expected .5, 7"):
        DECODERS[decode](SimpleNamespace(format="png", data=make(WIDTH + 1, HEIGHT)))


def test_another_size_of_a_raw_image_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(images, "raw_image", Mock(side_effect=AssertionError("it was read")))
    message = message_of("rgb8", pixels_of("rgb8"))
    message.width = 2**32 - 1
    with pytest.raises(InputError, match="image of 4294967295x5 pixels, the robot file says 7x5"):
        DECODERS["camera"](message)


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
        message = SimpleNamespace(format="png", data=bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))
        try:
            decode(message)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert k % len(whole) < 2  # no other format is read
