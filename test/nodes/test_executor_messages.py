"""Constants of ExecutorStatus.msg, and a status that is written and read back."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from control.fakes import HOME, World

from vla_ros.control.supervisor import Cause, State
from vla_ros.core.chunk import Space
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.executor.status import fill_status
from vla_ros.nodes.executor_node import ExecutorNode


def test_states_and_causes_are_those_of_the_message():
    for state in State:
        assert getattr(ExecutorStatus, state.name) == state
    for cause in Cause:
        assert getattr(ExecutorStatus, f"CAUSE_{cause.name}") == cause


def test_a_status_says_what_the_executor_says():
    world = World().activate()
    world.executor.set_instruction("x" * 5000)
    world.instruction = "x" * 5000
    world.send()
    world.send(space=Space.END_EFFECTOR_POSE)
    world.tick(2)
    message = fill_status(ExecutorStatus(), world.executor.status(world.now_ns))
    assert (message.state, message.cause) == (State.EXECUTING, Cause.NONE)
    assert list(message.names) == ["turn", "lift", "grip"]
    assert np.array_equal(message.position, HOME)
    assert (message.accepted_chunks, message.refused_chunks) == (1, 1)
    assert message.refusal_reasons == ["space"] and list(message.refusal_counts) == [1]
    said = "END_EFFECTOR_POSE, expected JOINT_POSITION alone: the robot file has no `tool`"
    assert message.last_refusal == f"space: {said}"
    assert (message.chunk_session, message.chunk_sequence) == (1, 2)
    assert len(message.instruction) == 1001  # not five thousand characters ten times a second


def test_a_warning_whose_numbers_change_is_logged_once_until_it_is_over():
    logged = []
    node = SimpleNamespace(_warned={}, get_logger=lambda: SimpleNamespace(warning=logged.append))
    far, other = "tool: holds {:.3f} m from its target", "joint j1 turns round"
    for said in ([far.format(0.25)], [far.format(-0.2), other], [far.format(0.1)], [], [far.format(0.1)]):
        ExecutorNode._warn(node, said)
    assert logged == [far.format(0.25), other, far.format(0.1)]
