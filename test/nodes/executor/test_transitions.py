"""Transitions of an executor that nobody spins: refused half-way, with an e-stop in between, and without commands."""

import time
from array import array
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built")

from control.test_tool_pose import lagging
from rclpy.lifecycle import TransitionCallbackReturn
from rosgraph_msgs.msg import Clock
from system.stage import HOME, JOINTS
from system.support import free_domain

from vla_ros.control.supervisor import State
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import instruction_id
from vla_ros.messages.chunks import read_chunk
from vla_ros.messages.stamps import NS, set_stamp
from vla_ros.msg import ActionChunk, ActionPart, PolicyStatus
from vla_ros.nodes import executor_node
from vla_ros.nodes.executor import inputs
from vla_ros.nodes.qos import STATUS_QOS

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def make_node(unspun):
    with unspun(free_domain()) as make:
        yield make


def test_an_activation_that_is_refused_at_its_last_step_leaves_nothing_behind(make_node):
    """The second group's publisher cannot be made; neither the first one's nor the claim may be left."""
    name = "qos_overrides./hand/command.publisher.reliability"
    node = make_node(**{name: "relable"})
    assert node.trigger_configure() == SUCCESS
    for _ in range(2):  # what is left of the first would be "also commanded by" of the second
        now = node.now_ns()
        node._executor.joint_state(now, list(JOINTS), HOME.tolist(), now)
        assert node.trigger_activate() == FAILURE
        assert node.refusal.startswith(f"parameter {name}: 'relable', expected one of")
        assert node._executor.state[0] == State.INACTIVE
        assert "/arm/command" not in [publisher.topic_name for publisher in node.publishers]


def test_an_e_stop_while_it_is_configured_is_said(make_node, monkeypatch):
    """Its thread publishes a status at whatever moment of `configure`."""
    node, make = make_node(), executor_node.Inputs

    def interrupted(*arguments, **options):
        node._e_stop.latch("button")
        return make(*arguments, **options)

    monkeypatch.setattr(executor_node, "Inputs", interrupted)
    assert node.trigger_configure() == SUCCESS
    assert node._status.state == State.E_STOPPED and node._executor.supervisor.e_stopped


def test_a_dry_run_does_not_expect_a_robot_to_follow(make_node):
    """The way that a policy would go is shown although the robot stands still."""
    node = make_node(dry_run=True, use_sim_time=True)
    assert node.trigger_configure() == SUCCESS

    def clock(now: int) -> None:
        node._executor.joint_state(now, list(JOINTS), HOME.tolist(), now)
        message = Clock()
        set_stamp(message.clock, now)
        node._time._on_clock(message)

    clock(NS)
    assert node.trigger_activate() == SUCCESS
    node._executor.set_instruction("go")
    rows = HOME + np.arange(20)[:, None] * 0.1 * [0.3, 0.06, 0.0]
    message = set_stamp(ActionChunk(step_dt=0.1, horizon=20, session=1, sequence=1), NS)
    message.parts = [ActionPart(names=list(JOINTS), data=array("d", rows.ravel()))]
    message.instruction_id = instruction_id("go")
    assert node._executor.add_chunk(read_chunk(message), NS)
    for tick in range(1, 80):
        clock(NS + tick * NS // 50)
    node._publish_status()
    assert node._status.state == State.EXECUTING and node._status.message == ""
    assert node._status.position[0] > HOME[0] + 0.3


def test_a_policy_whose_status_is_remapped_is_there(make_node, monkeypatch):
    listed = []
    monkeypatch.setattr(inputs.PolicyWatch, "look", lambda self, there: listed.append(there))
    node = make_node(remapped=["policy_node/status:=/gpu/status"])
    assert node.trigger_configure() == SUCCESS
    node.create_publisher(PolicyStatus, "/gpu/status", STATUS_QOS)
    end = time.monotonic() + 20.0
    while not any(listed) and time.monotonic() < end:
        for timer in list(node.timers):
            timer.callback()
    assert any(listed)


def test_a_new_publisher_begins_and_one_that_ends_has_ended_at_rest(make_node):
    """What is said before a controller has discovered it, or not taken before it is gone, never arrives: by stamps."""
    node, said = make_node(), []
    assert node.trigger_configure() == SUCCESS
    executor = node._executor
    executor.set_instruction("go")
    node._publish_command = said.append

    def measure():
        now = node.now_ns()
        executor.joint_state(now, list(JOINTS), (said[-1].position if said else HOME).tolist(), now)

    def until(done):
        while not done():
            with node._lock:
                measure()
            time.sleep(0.01)

    measure()
    assert node.trigger_activate() == SUCCESS
    until(lambda: said)
    chunk = set_stamp(ActionChunk(), node.now_ns())
    chunk.step_dt, chunk.horizon, chunk.instruction_id, chunk.session = 0.1, 50, instruction_id("go"), 1
    rows = HOME + 0.01 * np.arange(50)[:, None] * [1.0, 0.0, 0.0]
    chunk.parts = [ActionPart(names=list(JOINTS), data=array("d", rows.ravel()))]
    with node._lock:
        measure()
        assert executor.add_chunk(read_chunk(chunk), node.now_ns()) is not None and not executor.admission.refused
    until(lambda: len(said) > 1 and not np.array_equal(said[-1].position, said[0].position))
    until(lambda: len(said) > 100)
    assert node.trigger_deactivate() == SUCCESS
    moves = [a.stamp_ns for a, b in zip(said[1:], said, strict=False) if not np.array_equal(a.position, b.position)]
    assert moves[0] - said[0].stamp_ns > 0.3 * NS and said[-1].stamp_ns - moves[-1] >= 0.3 * NS


def test_a_node_of_twists_brakes_them_where_another_one_commands():
    posed, world = lagging()
    said, executor = [], world.executor
    node = SimpleNamespace(
        _lock=nullcontext(), _executor=executor, _take_e_stop=lambda: None, _last_command=None, _posed=posed,
        _moved_ns=0, _said=(), _publish_status=lambda at_ns: None,
        _commands=SimpleNamespace(publish_tool=lambda twist, stamp_ns: said.append((stamp_ns, twist[1]))),
    )  # fmt: skip
    executor.rivals(["other"], world.now_ns)
    for _ in range(40):
        world.now_ns, world.steady_ns = world.now_ns + world.period_ns, world.steady_ns + world.period_ns
        world.measure()
        executor_node.ExecutorNode._tick(node, world.now_ns, world.steady_ns)
    stamps, twists = map(np.array, zip(*said, strict=True))
    assert (np.diff(stamps) == world.period_ns).all() and 5 < len(twists) < 12 and twists[-1] == 0.0
    assert np.abs(np.diff([twists[0], *twists])).max() <= posed.arm.tool.acceleration * executor.limiter.dt * (1 + 1e-6)


def test_after_a_stop_a_person_or_the_next_chunk(make_node):
    """The parameter, its default by the clock, and the policy's own waiting on its way to the rule."""
    for given, simulated, confirms in (("", False, True), ("", True, False), ("confirm", True, True),
                                       ("automatic", False, False)):  # fmt: skip
        node = make_node(resume=given, use_sim_time=simulated)
        assert node.trigger_configure() == SUCCESS
        assert node._executor.settings.confirms(simulated) == confirms == node._executor._resumption._confirm
    take, resumption = node._inputs._on_policy_status, node._executor._resumption
    for state, words in ((PolicyStatus.WAITING, "the policy: front: never seen"), (PolicyStatus.RUNNING, ""),
                         (PolicyStatus.FAILED, "the policy: front: never seen"), (PolicyStatus.IDLE, "")):  # fmt: skip
        take(PolicyStatus(state=state, message="front: never seen"))
        assert resumption.policy_waits == words
    with pytest.raises(InputError, match="parameter resume: 'always', expected one of empty, automatic, confirm"):
        make_node(resume="always")
