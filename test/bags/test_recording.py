"""The bounded buffer between subscriptions and disk."""

import threading

import pytest
from bags.factory import IMAGE, JOINTS, START, TEXT, TYPES, image, joints, pixels, text

from vla_ros.bags.compress import compressor
from vla_ros.bags.reader import Bag
from vla_ros.bags.recording import Recording
from vla_ros.bags.repair import repair
from vla_ros.bags.writer import BagWriter
from vla_ros.core.errors import InputError
from vla_ros.core.robot import Camera
from vla_ros.messages.images import rgb_image

DEADLINE = 60.0


class SlowWriter(BagWriter):
    """A disk that takes nothing until it is let."""

    def __init__(self, path):
        super().__init__(path)
        self.let = threading.Event()
        self.reached = threading.Event()

    def write(self, *args, **kwargs):
        self.reached.set()
        assert self.let.wait(DEADLINE)
        super().write(*args, **kwargs)


def test_nothing_is_lost_until_the_buffer_is_full_and_then_it_is_said(tmp_path):
    problems = []
    writer = SlowWriter(tmp_path / "bag")
    recording = Recording(writer, buffer_bytes=10_000, on_problem=problems.append)
    recording.add_topic(IMAGE, TYPES[IMAGE])
    recording.add_topic(TEXT, TYPES[TEXT])
    size = len(image(START, 0))
    fit = 10_000 // size
    assert [recording.put(IMAGE, START + k, image(START + k, k)) for k in range(fit + 3)] == [True] * fit + [False] * 3
    assert recording.put(TEXT, START, text("small ones still fit"))
    writer.let.set()
    recording.close({"robot": "x"})
    assert len(problems) == 2 and IMAGE in problems[0] and f"dropped 3 of {IMAGE}" in problems[1]
    with Bag(tmp_path / "bag") as bag:
        assert bag.topics[IMAGE].count == fit and bag.topics[TEXT].count == 1
        assert bag.custom == {"robot": "x", f"vla_ros.dropped.{IMAGE}": "3"}


def test_after_close_nothing_is_taken(tmp_path):
    recording = Recording(BagWriter(tmp_path / "bag"))
    recording.add_topic(JOINTS, TYPES[JOINTS])
    recording.close()
    assert not recording.put(JOINTS, START, joints(START, (0, 0)))


class FullDisk(BagWriter):
    def write(self, *args, **kwargs):
        if self.message_count == 2:
            raise OSError(28, "No space left on device")
        super().write(*args, **kwargs)


def test_a_full_disk_is_said_with_topic_and_time(tmp_path):
    problems = []
    recording = Recording(FullDisk(tmp_path / "bag"), on_problem=problems.append)
    recording.add_topic(JOINTS, TYPES[JOINTS])
    for k in range(5):
        recording.put(JOINTS, START + k, joints(START + k, (0, 0)))
    with pytest.raises(InputError, match=r"bag.*/joint_states, t=1700000000.000 s: No space left.*bag repair"):
        recording.close()
    assert len(problems) == 1


def test_a_disk_that_fills_up_keeps_what_it_has(tmp_path, small_disk):
    recording = Recording(BagWriter(small_disk / "bag", chunk_bytes=20_000), flush_period=0.001)
    recording.add_topic(IMAGE, TYPES[IMAGE])
    for k in range(400):
        recording.put(IMAGE, START + k, image(START + k, k))
    with pytest.raises(InputError, match=r"bag.*/camera/image_raw, t=1700000000.000 s: No space left.*bag repair"):
        recording.close()
    report = repair(small_disk / "bag", tmp_path / "repaired")
    assert 150 < report.messages < 260 and recording.dropped[IMAGE] >= 1
    with Bag(tmp_path / "repaired") as bag:
        assert [record.log_ns - START for record in bag.records()] == list(range(report.messages))


@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_images_are_compressed_on_the_way_and_kept_where_they_cannot_be(tmp_path, format):
    problems = []
    recording = Recording(BagWriter(tmp_path / "bag"), on_problem=problems.append)
    camera = Camera("front", "camera/image_raw", 32, 24)
    compressed, data = IMAGE + "/compressed", image(START, 5)
    kind, raw = "sensor_msgs/msg/CompressedImage", (IMAGE, TYPES[IMAGE])
    recording.add_topic(compressed, kind, (), compressor(camera, format), raw)
    recording.put(compressed, START, data)
    odd = [data[:50], image(START, 5, "rgb99"), image(START, 5, "32FC1")]  # cut off, unknown, deeper than any format
    for k, one in enumerate(odd, start=1):
        recording.put(compressed, START + k, one)
    recording.close()
    assert not recording.dropped
    assert len(problems) == 1 and problems[0].startswith(f"{compressed}: stored as it is, on {IMAGE}: ")
    with Bag(tmp_path / "bag") as bag:
        assert [record.data for record in bag.records([IMAGE])] == odd and bag.topics[IMAGE].type == TYPES[IMAGE]
        (record,) = bag.records([compressed])
        message = bag.decode(record)
    assert message.format == f"rgb8; {format} compressed bgr8" and bag.header_ns(record) == START
    difference = abs(rgb_image(message).astype(int) - pixels(5).astype(int))
    assert difference.max() == 0 if format == "png" else difference.mean() < 4


def test_deep_and_compressed_streams_keep_their_depth():
    assert compressor(Camera("depth", "d", 32, 24, encoding="32FC1")) is None
    assert compressor(Camera("c", "c", 32, 24, compressed=True)) is None
    with pytest.raises(InputError, match="gif"):
        compressor(Camera("c", "c", 32, 24), "gif")


def test_a_type_whose_definition_nobody_has_is_recorded_without_it(tmp_path):
    problems = []
    recording = Recording(BagWriter(tmp_path / "bag"), on_problem=problems.append)
    recording.add_topic("/odd", "nobody/msg/Knows")
    recording.add_topic(JOINTS, TYPES[JOINTS])
    recording.put("/odd", START, b"\0\1\0\0")
    recording.put(JOINTS, START + 1, joints(START, (0, 0)))
    recording.close()
    assert len(problems) == 1 and problems[0].startswith("topic /odd: recorded without the definition of its messages")
    with Bag(tmp_path / "bag") as bag:
        assert {name: info.count for name, info in bag.topics.items()} == {"/odd": 1, JOINTS: 1}
