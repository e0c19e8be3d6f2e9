"""On the graph: after a long stop the arm stands until somebody gives the instruction again."""

import numpy as np
from std_msgs.msg import String
from system.stage import Stage
from system.test_faults import STOPPED, follow, plan, seen

from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import STATUS_QOS

UNCONFIRMED = ExecutorStatus.CAUSE_UNCONFIRMED
LONG = 110  # control periods, 2.2 s


def test_a_driver_and_a_camera_that_come_back(graph, probe):
    stage = Stage(graph, probe, resume="confirm")
    policy = probe.publisher("policy_node/status", PolicyStatus, STATUS_QOS)
    stage.activate()
    stage.say("go")

    def confirmed(words: str) -> None:
        """It stands, whatever the policy says, until the same instruction comes once more."""
        assert seen(stage, UNCONFIRMED, words).state == STOPPED
        place, taken = stage.positions[-1], stage.status.instructions
        status = stage.send(stage.chunk(plan(stage.measured)))
        assert status.last_refusal.startswith("stopped: UNCONFIRMED: stopped for more than 2 s")
        stage.tick(10)
        assert np.array_equal(stage.positions[-1], place)
        stage.instructions.publish(String(data="go"))
        stage.wait_status(lambda s: s.instructions > taken, "the instruction")
        stage.tick(2)
        seen(stage, ExecutorStatus.CAUSE_NO_CHUNK)
        follow(stage)
        assert not np.array_equal(stage.positions[-1], place)

    follow(stage)
    stage.tick(LONG + 13, joints=False)  # a measurement counts for 0.25 s
    stage.tick()
    confirmed("turn")

    waiting = PolicyStatus(state=PolicyStatus.WAITING, instruction="go", instruction_id=stage.status.instruction_id,
                           message="front: 0.6 s old, limit 0.5 s")  # fmt: skip
    policy.publish(waiting)
    probe.wait_for(lambda: stage.tick(5) or stage.status.cause == UNCONFIRMED, "the end of the policy's waiting")
    waiting.state, waiting.message = PolicyStatus.RUNNING, ""
    policy.publish(waiting)
    confirmed("the policy: front: 0.6 s old")
    stage.check_limits()
