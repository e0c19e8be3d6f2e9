"""vla-ros robot new: a robot file from a URDF, and from what peers publish and listen to on a graph."""

import time

import pytest
import yaml

from vla_ros.cli.main import main
from vla_ros.core.robot import RobotSpec

LIMIT = "<limit lower='-1.5' upper='1.5' velocity='2' effort='1'/>"
ARM = f"""<robot name='my arm'>
  <link name='base'/><link name='upper'/><link name='lower'/><link name='hand'/><link name='left'/><link name='right'/>
  <joint name='turn' type='continuous'><parent link='base'/><child link='upper'/></joint>
  <joint name='lift' type='revolute'><parent link='upper'/><child link='lower'/>{LIMIT}</joint>
  <joint name='mount' type='fixed'><parent link='lower'/><child link='hand'/></joint>
  <joint name='finger' type='prismatic'><parent link='hand'/><child link='left'/>
    <limit lower='0' upper='0.04' velocity='0.2' effort='1'/></joint>
  <joint name='other_finger' type='prismatic'><parent link='hand'/><child link='right'/>
    <limit lower='0' upper='0.04' velocity='0.2' effort='1'/><mimic joint='finger'/></joint>
</robot>"""
KNOWN = {"acceleration": "8.0", "lower": "-3.1", "upper": "3.1", "velocity": "1.0"}


@pytest.fixture
def urdf(tmp_path):
    (tmp_path / "arm.urdf").write_text(ARM)
    return str(tmp_path / "arm.urdf")


def filled(text: str) -> str:
    """The file with the numbers that a user would fill in."""
    for field, value in KNOWN.items():
        text = text.replace(f"# fill in: {field}: ", f"{field}: {value} ")
    return text


def test_what_only_a_graph_knows_is_to_be_filled_in(urdf, tmp_path, capsys):
    path = tmp_path / "arm.yaml"
    assert main(["robot", "new", "--urdf", urdf, "-o", str(path), "--wait", "0"]) == 0
    assert "to be completed where it says '# fill in:'" in capsys.readouterr().err
    assert main(["info", str(path)]) == 2 and "joints[0]: missing velocity" in capsys.readouterr().err
    text = filled(path.read_text())
    path.write_text(text)
    assert main(["info", str(path)]) == 2 and "missing groups" in capsys.readouterr().err
    path.write_text(text.replace("# fill in: ", "").replace("# fill in: ", ""))
    robot = RobotSpec.load(path)
    assert robot.name == "my_arm" and robot.joint_names == ("turn", "lift", "finger")
    assert [joint.unit for joint in robot.joints] == ["rad", "rad", "m"]
    lift = robot.joints[1]
    assert (lift.lower, lift.upper, lift.velocity, lift.acceleration) == (-1.5, 1.5, 2.0, 8.0)
    assert "mimic) are left out: other_finger" in text
    assert main(["robot", "new", "--urdf", urdf, "-o", str(path)]) == 2 and "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["]: {", "yes", "a: b", "- x", "'", "é\\n# fill", "1.5"])
def test_any_name_of_a_joint_is_read_back(urdf, tmp_path, capsys, name):
    path, quoted = tmp_path / "arm.urdf", name.replace("'", "&apos;")
    path.write_text(ARM.replace("name='lift'", f"name='{quoted}'"))
    assert main(["robot", "new", "--urdf", str(path), "--wait", "0", "--name", "x"]) == 0
    data = yaml.safe_load(filled(capsys.readouterr().out))
    assert [joint["name"] for joint in data["joints"]] == ["turn", name, "finger"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("<robot name='x'><link name='a'/></robot>", "no joint that moves"), ("<x/>", "top element"), ("x", "not XML")],
)
def test_what_is_no_robot_is_refused(tmp_path, capsys, text, said):
    (tmp_path / "bad.urdf").write_text(text)
    assert main(["robot", "new", "--urdf", str(tmp_path / "bad.urdf"), "--wait", "0"]) == 2
    assert said in capsys.readouterr().err


def test_topics_come_from_the_graph(urdf, tmp_path, capsys, monkeypatch):
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
    from sensor_msgs.msg import CompressedImage, Image, JointState
    from std_msgs.msg import Float64MultiArray
    from system.robot import image_message
    from system.support import free_domain
    from trajectory_msgs.msg import JointTrajectory

    from vla_ros.graph.processes import Graph

    domain, path = free_domain(), tmp_path / "arm.yaml"
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    with Graph(tmp_path / "graph", domain=domain, namespace="left") as graph:
        node = graph.node
        arm = rclpy.create_node("arm_controller", context=graph.context, namespace="left")
        arm.declare_parameter("joints", ["turn", "lift"])
        graph._executor.add_node(arm)  # spun with the graph's own node
        publishers = [
            (node.create_publisher(kind, topic, 5), message)
            for kind, topic, message in (
                (JointState, "joint_states", JointState(name=["turn", "lift", "finger", "wheel"])),
                (Image, "camera/front/image_raw", image_message(3, 0, 64, 48)),
                (CompressedImage, "camera/front/image_raw/compressed", CompressedImage()),
                (Image, "camera/depth/image_raw", Image(encoding="16UC1", width=64, height=48)),
                (CompressedImage, "phone/image", CompressedImage(data=b"no picture")),
            )
        ]
        node.create_timer(0.1, lambda: [publisher.publish(message) for publisher, message in publishers])
        for kind, topic in ((JointTrajectory, "arm_controller/joint_trajectory"),
                            (Float64MultiArray, "spare_controller/commands")):  # fmt: skip
            arm.create_subscription(kind, topic, lambda message: None, 5)
        begin = time.monotonic()
        while "    joints: [turn, lift]" not in (path.read_text() if path.exists() else ""):
            assert time.monotonic() < begin + 120  # on a busy machine discovery takes longer than a user would wait
            path.unlink(missing_ok=True)
            new = ["robot", "new", "--urdf", urdf, "-o", str(path), "--namespace", "left", "--wait", "2"]
            assert main(new) == 0
        arm.destroy_node()

    text = path.read_text()
    data = yaml.safe_load(text)
    assert data["joint_state_topic"] == ["joint_states"]
    (camera,) = data["cameras"]
    assert (camera["name"], camera["topic"]) == ("front", "camera/front/image_raw")
    assert (camera["width"], camera["height"], camera["encoding"]) == (64, 48, "rgb8") and camera["rate"] >= 1
    (group,) = data["groups"]
    assert group == {"name": "arm", "topic": "arm_controller/joint_trajectory", "interface": "joint_trajectory",
                     "joints": ["turn", "lift"]}  # fmt: skip
    for words in ("a group for finger", "topic: spare_controller/commands", "depth: as a stream", "phone/image"):
        assert any(words in line for line in text.splitlines() if "# fill in:" in line), words
    robot = yaml.safe_load(filled(text))
    robot["groups"].append({"name": "hand", "topic": "hand", "interface": "joint_state", "joints": ["finger"]})
    assert RobotSpec.from_dict(robot).camera_names == ("front",)
