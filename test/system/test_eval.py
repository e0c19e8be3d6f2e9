"""Evaluation through the graph: the same layout gives the same run, whatever came before it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import String
from system.rights import given, used
from system.support import Lasting, Probe, free_domain
from tf2_msgs.msg import TFMessage
from tiny_checkpoint import tiny_checkpoint
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker, MarkerArray

from vla_ros.control.kinematics import Kinematics
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.evaluation import EvaluationGraph
from vla_ros.graph.film import Film
from vla_ros.graph.security import NODES, enclaves
from vla_ros.graph.simulation import TaskStatus
from vla_ros.messages.chunks import read_chunk
from vla_ros.messages.commands import read_command
from vla_ros.messages.images import rgb_image
from vla_ros.messages.stamps import stamp_ns
from vla_ros.msg import ActionChunk, ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos
from vla_ros.sim.world import HOME

ROBOT_FILE = Path(__file__).parents[2] / "config" / "robots" / "so101.yaml"
ROBOT = RobotSpec.load(ROBOT_FILE)
TICKS = 60


def run(evaluation: EvaluationGraph, probe: Probe, seed: int, text: str, foreign_images: bool = False) -> np.ndarray:
    """(TICKS, J) commands of one episode, in the order of the run."""
    status = evaluation.run_to_end(seed, text, TICKS / 100, "touch the red cube", foreign_images)
    return commands(probe, status)


def commands(probe: Probe, status: TaskStatus) -> np.ndarray:
    assert status.values["ended_by"] == "time limit" and status.values["run_time"] == f"{TICKS / 100:.3f}"
    start = int(status.values["run_start_ns"])
    columns = []
    for group in ROBOT.groups:

        def inside(topic=group.topic) -> dict[int, JointTrajectory]:
            # By stamp: a command may be said twice when the clock says its time twice.
            found = {round((stamp_ns(m) - start) / 10_000_000): m for m in probe.messages(topic)}
            return {tick: message for tick, message in found.items() if 0 <= tick < TICKS}

        probe.wait_for(lambda: len(inside()) == TICKS, f"{TICKS} commands on {group.topic}")
        columns.append([read_command(group, message) for _, message in sorted(inside().items())])
    return np.concatenate(columns, axis=1)


@pytest.fixture
def evaluation(lasting: Lasting, tmp_path_factory: pytest.TempPathFactory) -> EvaluationGraph:
    @contextmanager
    def make() -> Iterator[EvaluationGraph]:
        folder = tmp_path_factory.mktemp("evaluation")
        policy = tiny_checkpoint(folder / "policy", ROBOT, centre=HOME)
        with EvaluationGraph(folder / "graph", str(ROBOT_FILE), str(policy), domain=free_domain()) as made:
            made.bring_up()
            yield made

    return lasting.get(make)


def test_a_layout_is_run_the_same_way_again(evaluation: EvaluationGraph):
    episode, other = (11, "touch the red cube"), (12, "pick up the blue cube")
    probe = Probe(evaluation.graph)
    for group in ROBOT.groups:
        probe.record(group.topic, JointTrajectory, sensor_qos(reliable=True, depth=1000))
    first, between = run(evaluation, probe, *episode), run(evaluation, probe, *other)
    np.testing.assert_array_equal(run(evaluation, probe, *episode), first)
    foreign = run(evaluation, probe, *episode, foreign_images=True)
    assert np.ptp(first, axis=0).max() > 0.01  # the policy moves the arm
    assert (between != first).any()
    assert (foreign != first).any()  # and what it sees makes a difference

    # An executor that reads of the reset late, when it is active already: the clock jumped, and it stops for a while.
    graph, (seed, text) = evaluation.graph, episode
    layout = {"seed": seed, "task": "touch the red cube", "foreign_images": False, "time_limit": TICKS / 100}
    evaluation.simulation.reset(**layout)
    graph.activate_when_ready("policy_node")
    graph.activate_when_ready("executor_node")
    evaluation.simulation.reset(**layout)
    evaluation.instruct(text)
    evaluation.wait_until_steered()
    np.testing.assert_array_equal(commands(probe, evaluation.play()), first)
    evaluation.instruct("")
    graph.deactivate("executor_node")
    graph.deactivate("policy_node")


def test_a_policy_that_comes_while_the_simulation_waits_for_it_sees_what_was_published(evaluation: EvaluationGraph):
    graph, simulation, text = evaluation.graph, evaluation.simulation, "touch the red cube"
    simulation.reset(seed=11, task="", foreign_images=False, time_limit=0.3)
    graph.activate_when_ready("executor_node")
    evaluation.instruct(text)
    evaluation.wait_until_steered()
    graph.kill("policy_node", signal.SIGINT)
    probe = Probe(graph)
    for camera in ROBOT.cameras:
        probe.record(camera.topic, Image, sensor_qos(reliable=True))
    number = str(simulation.run())
    for camera in ROBOT.cameras:
        probe.wait_message(camera.topic, lambda m: True, "the images that the first chunk is to come from")
    policy = {"policy": str(graph.folder.parent / "policy"), "threads": 1}
    graph.start("policy_node", parameters=evaluation.common | policy)
    graph.bring_up("policy_node")
    evaluation.instruct(text)
    probe.wait_for(lambda: simulation.task.values["ended_by"] == "time limit", "the end of the run")
    assert simulation.task.values["run"] == number
    assert {stamp_ns(m) for m in probe.messages(ROBOT.cameras[0].topic)} == {
        int(simulation.task.values["run_start_ns"]) + image * 100_000_000 for image in range(3)
    }
    evaluation.instruct("")
    graph.deactivate("executor_node")
    graph.deactivate("policy_node")


OVERRIDES = """
/**:
  ros__parameters:
    keep_last: 5.0
    qos_overrides: {/camera/front/image_raw: {subscription: {reliability: best_effort}}}
"""


def test_each_node_uses_the_rights_of_the_policy_file_and_no_others(evaluation: EvaluationGraph, tmp_path: Path):
    rights, graph = enclaves(ROBOT), evaluation.graph
    evaluation.simulation.reset(seed=0)
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text(OVERRIDES)
    for name in ("task_node", "recorder_node", "marker_node"):
        files = [overrides] if name == "recorder_node" else []
        graph.start(name, parameters=evaluation.common, files=files)
        graph.configure(name)
    graph.activate_when_ready("executor_node")  # its command publishers exist while it is active
    graph.start("expert_node", parameters=evaluation.common | {"takeover": True})
    graph.configure("expert_node")
    graph.start("console_node", parameters=evaluation.common | {"port": 0, "recordings": str(tmp_path / "recordings")})
    graph.bring_up("console_node")
    for name in NODES:
        wanted = given(rights[name], name)
        if name == "executor_node":  # which reads it where robot_description_topic says so
            assert "/robot_description" in wanted["subscribe"]
            wanted["subscribe"] = wanted["subscribe"] - {"/robot_description"}
        if name == "expert_node":  # which takes over here, and otherwise commands the joints itself
            wanted["publish"] = wanted["publish"] - {f"/{group.topic}" for group in ROBOT.groups}
        graph.wait_until(lambda name=name, wanted=wanted: used(graph.node, name) == wanted, 20.0)
        found = used(graph.node, name)
        amiss = {rule: names ^ wanted[rule] for rule, names in found.items() if names != wanted[rule]}
        assert not amiss, f"rights of {name} in vla_ros/graph/security.py: {amiss}"

    # and the one image of the one node that a parameter file names comes as that says
    for camera in ROBOT.cameras:
        listening = graph.node.get_subscriptions_info_by_topic(f"/{camera.topic}")
        asked = {info.node_name: info.qos_profile.reliability.name for info in listening}
        assert asked["recorder_node"] == ("BEST_EFFORT" if camera.name == "front" else "RELIABLE")
        assert asked["policy_node"] == "RELIABLE"

    me = graph.node.get_name()
    operator = given(rights["operator"], me)
    assert all(names <= operator[rule] for rule, names in used(graph.node, me).items())
    places = {name: place for name, _, place in graph.node.get_node_names_and_namespaces_with_enclaves()}
    assert places == {name: f"/vla_ros/{name}" for name in NODES} | {me: "/vla_ros/operator"}
    for name in ("task_node", "recorder_node", "marker_node", "expert_node", "console_node"):
        graph.kill(name, signal.SIGINT)


def test_chunk_command_and_frames_are_drawn(evaluation: EvaluationGraph):
    """A viewer's way: robot_description and /tf give the arm, the markers what the policy wants and what is sent."""
    graph, probe = evaluation.graph, Probe(evaluation.graph)
    graph.start("marker_node", parameters=evaluation.common | {"rate": 60.0})
    graph.bring_up("marker_node")
    probe.record("marker_node/markers", MarkerArray, sensor_qos(reliable=True, depth=1000))
    probe.record("robot_description", String, STATUS_QOS)
    probe.record("/tf_static", TFMessage, STATUS_QOS)
    probe.record("/tf", TFMessage, sensor_qos(reliable=True, depth=1000))
    probe.record("action_chunk", ActionChunk, COMMAND_QOS)
    probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)
    try:
        tree = Kinematics(probe.wait_message("robot_description", bool, "the description").data)
        for _ in range(10):  # a run takes less than discovery may
            evaluation.run_to_end(13, "touch the red cube", TICKS / 100)
            if sum(m.markers[0].action == Marker.ADD for m in probe.messages("marker_node/markers")) > 20:
                break
    finally:
        graph.kill("marker_node", signal.SIGINT)

    statuses = {stamp_ns(m): m for m in probe.messages("executor_node/status")}
    chunks = [read_chunk(message) for message in probe.messages("action_chunk")]
    drawn = 0
    for array in probe.messages("marker_node/markers"):
        layers = {(marker.ns, marker.id): marker for marker in array.markers}
        way, arm, words = (layers[layer, 0] for layer in ("chunk", "command", "state"))
        assert {marker.header.frame_id for marker in array.markers} == {tree.root}
        status = statuses.get(stamp_ns(arm))
        if status is None or way.action != Marker.ADD:
            continue
        command = dict(zip(status.names, status.position, strict=True))
        poses = tree.poses(command)
        beside = ("front_camera",)  # fixed to the root, not to the arm
        ends = [poses[link][:3, 3] for j in tree.joints if j.child not in beside for link in (j.parent, j.child)]
        np.testing.assert_allclose([[p.x, p.y, p.z] for p in arm.points], ends, atol=1e-6)
        ways = []
        for chunk in chunks:
            rows = chunk.targets.joint_positions(ROBOT.joint_names, np.zeros(len(ROBOT.joints)))
            ways.append(tree.poses(dict(zip(ROBOT.joint_names, rows.T, strict=True)))["tip"][:, :3, 3])
        shown = np.array([[p.x, p.y, p.z] for p in way.points])
        assert any(way.shape == shown.shape and np.abs(way - shown).max() < 1e-6 for way in ways)
        assert "touch the red cube" in words.text
        drawn += 1
    assert drawn > 3

    joints = {transform.child_frame_id: transform for m in probe.messages("/tf") for transform in m.transforms}
    still = {t.child_frame_id: t for m in probe.messages("/tf_static") for t in m.transforms}
    assert {*joints, *still} == {joint.child for joint in tree.joints}
    assert set(still) == {"front_camera", "wrist_camera", "tip"}
    for joint in tree.joints:
        found = (joints | still)[joint.child]
        assert found.header.frame_id == joint.parent
        if joint.child in still:
            pose, place = joint.motion(0.0), found.transform.translation
            np.testing.assert_allclose([place.x, place.y, place.z], pose[:3, 3], atol=1e-9)


def test_a_run_is_filmed(evaluation: EvaluationGraph, tmp_path: Path):
    film, probe = Film(evaluation.graph, ROBOT), Probe(evaluation.graph)
    first, other = ROBOT.cameras
    probe.record(first.topic, Image, sensor_qos(reliable=True))
    path = tmp_path / "run.mp4"
    assert film.write(path, 10.0) == 0 and not path.exists()
    for _ in range(10):  # a run takes less than discovery may
        film.forget()
        status = evaluation.run_to_end(14, "touch the red cube", TICKS / 100)
        start = int(status.values["run_start_ns"])
        raw = {stamp_ns(message): message for message in probe.messages(first.topic)}
        if start in raw and film.write(path, 10.0, start) > 3:
            break
    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert 3 < len(frames) <= TICKS // 10 + 1
    assert frames[0].shape == (first.height, first.width + other.width, 3)
    assert any(
        np.abs(frames[0][:, : first.width].astype(int) - rgb_image(message)).mean() < 4 for message in raw.values()
    )
