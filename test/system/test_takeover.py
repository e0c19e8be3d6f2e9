"""A leader arm takes over in motion and gives back, as a peer on the graph sees it and a bag keeps it."""

from array import array

import numpy as np
import pytest
from sensor_msgs.msg import JointState, Joy
from std_srvs.srv import SetBool
from system.stage import HOME, PERIOD_NS, Stage

from vla_ros.bags.index import index_bag
from vla_ros.bags.reader import Bag
from vla_ros.control.steering import Steering
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.handles import Pad
from vla_ros.graph.steered import Steered
from vla_ros.messages.stamps import set_stamp
from vla_ros.msg import ExecutorStatus

TOPIC = "/leader/joint_states"


class Leader:
    """A leader arm of two of the robot's joints, and whoever presses its button."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.place = stage, HOME[:2] + [0.8, -0.1]
        self.publisher = stage.probe.publisher(TOPIC, JointState)
        self.client = stage.graph.node.create_client(SetBool, "executor_node/take_over")

    def say(self, *names: str) -> None:
        message = set_stamp(JointState(), self.stage.now_ns)
        message.name, message.position = list(names or ("turn", "lift")), array("d", self.place)
        self.publisher.publish(message)

    def ask(self, take: bool) -> SetBool.Response:
        return self.stage.graph.call(self.client, SetBool.Request(data=take))

    def tick(self, count: int, step: tuple[float, float] = (0.0, 0.0)) -> None:
        for _ in range(count):
            self.place = self.place + np.array(step)
            self.say()
            self.stage.tick()


def test_a_gamepad_takes_over_while_its_button_is_held(graph, probe):
    """Joy messages over DDS, through the source of `vla-ros takeover --joy`, a control period at a time."""
    stage = Stage(graph, probe, takeover_blend=0.2, takeover_timeout=1.0)
    stage.activate()
    stage.say("go")
    pad = Pad(graph.node, "joy", lambda words: None)
    steered = Steered(graph, "executor_node/takeover/joint_command", Steering(stage.limits, None), pad)
    probe.record(steered.topic, JointState)
    joy = probe.publisher("joy", Joy)
    probe.wait_for(lambda: steered.read, "the executor's subscription")
    elsewhere = Steered(graph, "leader/joint_states", Steering(stage.limits, None), pad)
    assert not elsewhere.read and steered.rivals == []
    probe.publisher(steered.topic, JointState)
    probe.wait_for(lambda: steered.rivals == [graph.node.get_fully_qualified_name()], "the other source")
    probe.wait_for(lambda: steered.there, "the executor")

    def hold(*buttons: int) -> None:
        message = Joy(axes=[0.0] * 8, buttons=[int(i in buttons) for i in range(11)])
        probe.wait_for(lambda: joy.publish(message) or set(buttons) == pad._held and pad.alive, "the gamepad")

    def tick(count: int, *buttons: int) -> None:
        for _ in range(count):
            hold(*buttons)
            steered.tick(0.02)
            stage.tick()

    hold(4)
    assert pad.wishes(steered.taken) == [True]
    tick(2, 4)
    probe.wait_for(lambda: steered.tick(0.02) or len(probe.messages(steered.topic)) > 5, "where the robot is")
    steered.ask(True)
    stage.wait_status(lambda s: s.state == ExecutorStatus.TAKEN_OVER, "TAKEN_OVER")
    probe.wait_for(lambda: steered.taken, "the source to hear so")
    tick(60, 4, 1)  # B: the first joint up, 0.5 rad/s
    assert stage.positions[-1, 0] > 0.3 and stage.positions[-1, 1:] == pytest.approx(HOME[1:], abs=1e-6)
    hold()
    assert pad.wishes(steered.taken) == [False]
    steered.ask(False)
    stage.wait_status(lambda s: s.state == ExecutorStatus.HOLDING and not s.taken_over_by, "HOLDING")
    stage.check_limits()
    assert [words.split()[-1] for words in steered.words] == ["over", "back"]


def test_a_leader_takes_over_in_motion_and_gives_back(graph, probe, tmp_path):
    stage = Stage(graph, probe, takeover_topic=TOPIC, takeover_blend=0.2, takeover_timeout=1.0)
    recorded = {"output": str(tmp_path / "bag"), "flush_period": 0.02}
    graph.start("recorder_node", parameters={**stage.parameters, **recorded})
    graph.bring_up("recorder_node")
    leader = Leader(stage)
    stage.activate()
    stage.say("go")
    assert "nothing received yet" in leader.ask(True).message
    leader.say("turn", "claw")
    probe.wait_for(lambda: "joint 'claw' is not one of the robot's" in leader.ask(True).message, "the unknown joint")
    away = HOME + np.arange(30)[:, None] * 0.1 * np.array([-0.5, 0.05, 0.0])
    stage.send(stage.chunk(away))
    stage.tick(30)
    assert stage.positions[-1, 0] < -0.2  # in motion, away from the leader
    # The executor may discover the recorder late; what only its status says then stands in the bag.
    refused, bag = stage.send(stage.chunk(away, age=30.0)).last_refusal, tmp_path / "bag/bag_0.mcap"
    probe.wait_for(lambda: refused and bag.exists() and refused.encode() in bag.read_bytes(), "a status in the bag")
    begin = stage.now_ns
    leader.say()
    probe.wait_for(lambda: leader.ask(True).success, "the takeover")
    status = stage.wait_status(lambda s: s.state == ExecutorStatus.TAKEN_OVER, "TAKEN_OVER")
    assert status.taken_over_by == TOPIC and TOPIC in status.message
    assert stage.send(stage.chunk(away)).last_refusal.startswith("taken_over: ")
    leader.tick(60)
    leader.tick(40, (-0.004, 0.001))
    assert stage.positions[-1] == pytest.approx([*leader.place, HOME[2]], abs=0.02)
    end, seen_before = stage.now_ns, stage.chunk(away, age=0.2)
    assert leader.ask(False).success
    assert stage.send(seen_before).last_refusal.startswith("before_stop: ")
    stage.tick(3)
    stage.wait_status(lambda s: s.state == ExecutorStatus.HOLDING, "HOLDING")
    stage.send(stage.chunk(stage.measured + [0.0, 0.0, 0.1] + np.zeros((9, 1))))
    stage.tick(10)
    status = stage.wait_status(lambda s: s.state == ExecutorStatus.EXECUTING, "EXECUTING")
    assert status.taken_over_by == "" and stage.positions[-1, 2] == HOME[2] + 0.1
    stage.check_limits()
    graph.deactivate("recorder_node")
    with Bag(tmp_path / "bag") as recording:
        takeovers = index_bag(recording, RobotSpec.load(stage.robot_file)).by_person
    # Where the recorder is there before the activation, an inactive executor, a person's, comes first.
    assert [taken for _, taken in takeovers][-3:] == [False, True, False]
    assert [ns for ns, _ in takeovers[-2:]] == pytest.approx([begin, end], abs=PERIOD_NS)
