"""What is published when, in explicit time."""

import itertools
from dataclasses import replace

import pytest
from bags.factory import ARM, HAND, IMAGE, JOINTS, ROBOT, TEXT, TYPES, messages, write_bag

from vla_ros.bags.player import PlayOptions, schedule, selected_topics
from vla_ros.bags.reader import Bag
from vla_ros.bags.roles import objection
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import ODOMETRY, Stream


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    with Bag(write_bag(tmp_path_factory.mktemp("player") / "bag", messages(1.0))) as bag:
        yield bag


def test_times_and_order(bag):
    rows = list(schedule(bag, PlayOptions(rate=2.0, topics=list(TYPES))))
    assert [record.data for _, record in rows] == [data for _, _, data in messages(1.0)]
    assert all(due == (record.log_ns - bag.start_ns) / 1e9 / 2 for due, record in rows)


def test_part_of_it(bag):
    rows = list(schedule(bag, PlayOptions(start=0.5, duration=0.2, topics=[JOINTS])))
    assert [round(due, 6) for due, _ in rows] == [round(0.02 * k, 6) for k in range(10)]
    assert {record.topic for _, record in rows} == {JOINTS}


def test_what_could_move_a_robot_is_left_out_unless_asked_for(bag):
    played, left = selected_topics(bag, PlayOptions())
    assert played == {IMAGE} and set(left) == set(TYPES) - {IMAGE}
    assert selected_topics(bag, PlayOptions(commands=True, robot=ROBOT))[0] == {IMAGE, ARM, HAND}
    assert selected_topics(bag, PlayOptions(topics=[TEXT])) == ({TEXT}, {})
    with pytest.raises(InputError, match="--commands: .* expected --robot"):
        selected_topics(bag, PlayOptions(commands=True))
    with pytest.raises(InputError, match="none of the commands of robot twojoint, /left/.*/command"):
        selected_topics(bag, PlayOptions(commands=True, robot=ROBOT, namespace="left"))


@pytest.mark.parametrize(
    ("topic", "typename", "words"),
    [("/cmd_vel", "geometry_msgs/msg/Twist", "may command a robot; a robot file"),
     ("/cmd_vel", "geometry_msgs/msg/TwistStamped", "may command a robot"),
     ("/servo", "control_msgs/msg/JointJog", "may command a robot"),
     ("/grip", "control_msgs/msg/GripperCommand", "may command a robot"),
     ("/goal_pose", "geometry_msgs/msg/PoseStamped", "may command a robot"),
     ("/lift", "std_msgs/msg/Float64", "may command a robot"),
     ("/x", "nobody_msgs/msg/Knows", "may command a robot"),
     ("/joint_command", "sensor_msgs/msg/JointState", "joint states"),
     ("/joy", "sensor_msgs/msg/Joy", "a joystick"),
     ("/left/e_stop", "std_msgs/msg/Bool", "internal to the nodes"),
     ("/instruction", "std_msgs/msg/String", "internal to the nodes"),
     ("/arm/command/claim", "std_msgs/msg/String", "internal to the nodes"),
     ("/executor_node/status", "vla_ros/msg/ExecutorStatus", "internal to the nodes"),
     ("/action_chunk", "vla_ros/msg/ActionChunk", "internal to the nodes"),
     ("/run_instruction/_action/status", "action_msgs/msg/GoalStatusArray", "an action"),
     ("/add/_service_event", "a_msgs/srv/Add_Event", "a service"), ("/clock", "rosgraph_msgs/msg/Clock", "--clock"),
     ("/imu", "sensor_msgs/msg/Imu", ""), ("/tf", "tf2_msgs/msg/TFMessage", "")],
)  # fmt: skip
def test_who_is_left_out_and_why(topic, typename, words):
    said = objection(topic, typename)
    assert words in said if words else said == ""


def test_a_robot_file_knows_its_commands_and_sensors_whatever_their_types():
    robot = RobotSpec.from_dict(
        {
            "name": "base", "cameras": [],
            "streams": [{"name": "force", "topic": "force", "type": "geometry_msgs/msg/WrenchStamped",
                         "select": ["wrench.force.x"]}],
            "joints": [{"name": "j", "lower": -1, "upper": 1, "velocity": 1, "acceleration": 1}],
            "groups": [{"name": "g", "topic": "go", "interface": "joint_state", "joints": ["j"]}],
        }
    )  # fmt: skip
    assert "--commands publishes it" in objection("/left/go", "sensor_msgs/msg/JointState", robot, "left")
    assert objection("/force", "geometry_msgs/msg/WrenchStamped", robot) == ""
    assert objection("/force", "geometry_msgs/msg/WrenchStamped")


def test_odometry_that_is_state_is_not_published_either_where_another_stream_reads_it():
    place = Stream("place", "base_controller/odom", ODOMETRY, select=("pose.pose.position.x",))
    robot = replace(RobotSpec.load("lekiwi"), streams=(place,))
    assert "act on" in objection("/base_controller/odom", ODOMETRY, robot)


def test_a_loop_goes_on(bag):
    once = list(schedule(bag, PlayOptions(topics=[IMAGE])))
    rows = list(itertools.islice(schedule(bag, PlayOptions(topics=[IMAGE], loop=True)), 3 * len(once)))
    assert [r.log_ns for _, r in rows] == [r.log_ns for _, r in once] * 3
    dues = [due for due, _ in rows]
    assert dues == sorted(dues) and dues[2 * len(once)] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"rate": 0.0}, "rate 0.0"), ({"start": -1.0}, "start -1.0"), ({"duration": 0.0}, "duration 0.0"),
     ({"topics": ["/none"]}, "no topic /none. It has /arm/command"), ({"start": 9.0}, "nothing to play of")],
)  # fmt: skip
def test_refusals(bag, options, said):
    with pytest.raises(InputError, match=said):
        next(schedule(bag, PlayOptions(**options)))
