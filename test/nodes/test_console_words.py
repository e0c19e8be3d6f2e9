"""The console's words: those of docs/safety.md, and values that JSON can hold whatever a node says."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="the package of the nodes needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from sensor_msgs.msg import CompressedImage, Image

from vla_ros.control.blending import Blender
from vla_ros.control.timeline import Timeline
from vla_ros.core.chunk import ActionChunk, Part, Targets
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.images import rgb_image
from vla_ros.messages.stamps import NS
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.console.cameras import Picture
from vla_ros.nodes.console.state import executor_state, latency, policy_state
from vla_ros.nodes.console.traces import SPAN, Traces
from vla_ros.nodes.console.words import EXECUTOR, POLICY
from vla_ros.nodes.console_node import ConsoleParameters
from vla_ros.nodes.names import CAUSES, EXECUTOR_STATES, POLICY_STATES
from vla_ros.nodes.parameters import table

ROBOT = RobotSpec.load("so101")
NAMES = ROBOT.joint_names
NAN = math.nan


def test_every_state_and_cause_has_the_words_of_the_table():
    page = (Path(__file__).parents[2] / "docs" / "safety.md").read_text().replace("`", "")
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    ends: dict[tuple[str, str], str] = {}
    for row in rows:
        if len(row) == 4:
            key = row[0].lower().replace("_", " "), row[1].lower().replace("_", " ")
            ends[key] = ends.get(key, "") + " " + row[3]
    for (state, cause), (what, end) in EXECUTOR.items():
        if state != ExecutorStatus.E_STOPPED:  # the way to its reset is the page itself
            assert end in ends[EXECUTOR_STATES[state], CAUSES[cause] if cause else ""], what
    assert {cause for _, cause in EXECUTOR} == set(CAUSES) and {state for state, _ in EXECUTOR} == set(EXECUTOR_STATES)
    assert set(POLICY) == set(POLICY_STATES)


def test_the_pages_table_of_parameters_is_the_nodes_own():
    page = (Path(__file__).parents[2] / "docs" / "console.md").read_text()
    assert table(ConsoleParameters) in page


def test_states_are_json_whatever_a_node_says():
    wild = ExecutorStatus(state=99, cause=98, message="<b>\u202e" + "x" * 5000, names=["a"] * 100,
                          deviation=[NAN] * 100,
                          reversals=[math.inf] * 100, limited_share=[0.5] * 100, lateness=NAN, control_rate=-math.inf,
                          refusal_reasons=["<i>"], refusal_counts=[3])
    said = json.loads(json.dumps(executor_state(wild), allow_nan=False))
    assert said["state"] == "unknown (99)" and said["message"].startswith("<b>\\u202e") and len(said["message"]) < 600
    assert said["refusals"] == [["<i>", 3]] and said["lateness"] is None
    assert json.dumps(policy_state(PolicyStatus(state=77, rate=NAN)), allow_nan=False)
    assert executor_state(None) is policy_state(None) is latency(None, wild, 1.0, 0.01) is None


def test_the_parts_of_the_latency_add_up():
    policy = PolicyStatus(state=PolicyStatus.RUNNING, inference_time=0.03, encode_time=0.01, act_time=0.015,
                          observation_age=0.08)
    executor = ExecutorStatus(chunk_latency=0.085)
    way = latency(policy, executor, 1.6, 0.01)
    assert sum(seconds for _, seconds in way["parts"]) == pytest.approx(0.085 + 0.01) and way["budget"] == 1.6


def chunk(sequence: int, stamp: float, value: float, instruction: int = 1) -> ActionChunk:
    rows = value + 0.1 * np.arange(10)[:, None] * np.ones(len(NAMES))
    return ActionChunk(int(stamp * NS), 0.1, Targets((Part(NAMES, rows),)), instruction, sequence, 5)


def test_the_blend_is_the_executors_own_and_of_accepted_chunks_alone():
    traces, timeline = Traces(ROBOT), Timeline(NAMES, False, 3.0)
    blender = Blender("latest", ROBOT.discrete, 0.01, 0.2)
    traces.take_parameters({"mode": "latest", "crossfade": 0.2, "interpolation": "linear"})
    for sequence, (stamp, value, taken) in enumerate([(10.0, 0.1, True), (10.2, 5.0, False), (10.3, 0.3, True)]):
        made = chunk(sequence, stamp, value)
        assert traces.take_chunk(made, int(stamp * NS))["rows"][0][0] == value
        accepted = {0: 1, 1: 1, 2: 2}[sequence]
        traces.take_status(ExecutorStatus(state=3, chunk_session=5, chunk_sequence=sequence, accepted_chunks=accepted,
                                          refused_chunks=sequence + 1 - accepted, live_chunks=1))
        if taken:
            timeline.add(made)
        now = int((stamp + 0.05) * NS)
        wanted = blender.target(now, timeline.predictions(now))[0]
        assert traces.sample(now)["b"] == pytest.approx(wanted, abs=1e-4)
    assert traces.fates == [("5-0", "accepted"), ("5-1", "refused"), ("5-2", "accepted")]
    for second in range(20, 60):
        traces.sample(second * NS)
    assert len(traces.samples) <= SPAN + 1
    traces.sample(3 * NS)  # the clock was set back
    assert [one["t"] for one in traces.samples] == [3.0]


def test_a_chunk_of_foreign_joints_draws_nothing():
    foreign = ActionChunk(NS, 0.1, Targets((Part(("tail",), np.zeros((4, 1))),)))
    assert Traces(ROBOT).take_chunk(foreign, NS) is None


def test_an_image_comes_narrowed_and_with_its_age():
    pixels = np.full((480, 640, 3), (200, 30, 60), np.uint8)
    message = Image(height=480, width=640, encoding="rgb8", step=1920)
    message.data = pixels.tobytes()
    message.header.stamp.sec = 10
    picture = Picture(ROBOT.cameras[1], 1, lambda image: image[:224, :224])
    picture.take(message, 1)
    assert picture.size == (480, 640) and list(picture.views) == [0, 1]
    for view, size in ((0, (360, 480)), (1, (224, 224))):
        data = picture.encode(view, 10 * NS + NS // 4)
        assert (data[0], data[1], np.frombuffer(data[2:6], "<f4")[0]) == (1, view, 0.25)
        shown = rgb_image(CompressedImage(format="jpeg", data=data[10:]))
        assert shown.shape[:2] == size and np.abs(shown[100, 100].astype(int) - pixels[0, 0]).max() < 12
    message.encoding = "nonsense"
    picture.take(message, 2)
    assert picture.encode(0, 11 * NS) is None and "nonsense" in picture.trouble
