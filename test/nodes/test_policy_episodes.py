"""What begins an episode in policy_node, and what becomes of an answer that is under way then."""

import threading
from collections import deque
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built")

from runtime.tiny_policy import Rememberer, Speaker, loaded

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.policy_node import PolicyNode
from vla_ros.runtime.arrivals import Arrivals
from vla_ros.runtime.session import PolicySession
from vla_ros.runtime.trigger import Trigger

STEP = 100_000_000  # ns


class Node(SimpleNamespace):
    """What the methods under test use of a node, on a session of their own."""

    def __init__(self, kind=Rememberer):
        super().__init__(
            _wake=threading.Condition(), _session=PolicySession(loaded(kind)), _instruction="touch", _episode=0,
            _met="", _followed=True, _sequence=0, _chunk_times=deque(), _trigger=Mock(), _chunks=Mock(),
            _status=SimpleNamespace(state=0, session=7, inferences=0, instructions=0), now_ns=lambda: 0,
            _set_status=Mock(), get_logger=Mock(),
            _builder=Mock(build=self.observation, robot=Mock(cameras=())), _arrivals=Mock(), _sizes=set(),
        )
        self._begin = partial(PolicyNode._begin, self)
        self.infer, self._session.infer = self._session.infer, self.interrupted
        self.meanwhile = None

    def observation(self, stamp, text, names):
        stamps = {"front": stamp, "joint_states": stamp}
        return Observation(stamp, {"front": np.zeros((4, 6, 3), np.uint8)}, np.array([0.1, 0.2]), text, stamps)

    def interrupted(self, samples):
        if self.meanwhile is not None:
            self.meanwhile()
        self.answers = self.infer(samples)
        return self.answers

    def ask(self, step, text="touch", episode=None):
        """The chunks that one inference publishes."""
        before = self._chunks.publish.call_count
        PolicyNode._infer(self, step * STEP, text, self._episode if episode is None else episode)
        return self._chunks.publish.call_count - before

    def elapsed(self):
        return int(self.answers[0].answer[0, 2])


def told(node, text):
    return partial(PolicyNode._take_instruction, node, text)


def test_the_rate_falls_once_no_chunk_comes(monkeypatch):
    clock = Mock(return_value=10.0)
    monkeypatch.setattr("vla_ros.nodes.policy_node.time.monotonic", clock)
    node = Node()
    assert PolicyNode._rate(node) == 0
    for step in range(20):
        clock.return_value += 0.1
        node.ask(step)
    assert PolicyNode._rate(node) == pytest.approx(10)
    clock.return_value += 5.0
    assert PolicyNode._rate(node) == pytest.approx(0.2)


def test_no_figure_of_before_is_left_at_an_activation():
    node, times = Node(), ("inference_time", "encode_time", "act_time", "flight_time", "observation_age")
    node._status = PolicyStatus(chunks=3, inferences=3, refused_observations=3, **dict.fromkeys(times, 2.0))
    node._chunk_times += [1.0, 2.0]
    node._set_status, node._publish_status = partial(PolicyNode._set_status, node), Mock()
    node._infer_forever = Mock()
    PolicyNode.activate(node)
    assert not any(getattr(node._status, name) for name in (*times, "chunks", "inferences", "refused_observations"))
    assert PolicyNode._rate(node) == 0


def test_within_an_episode_every_answer_is_published_and_steps_are_counted():
    node = Node()
    assert [node.ask(step) for step in (1, 2, 4)] == [1, 1, 1] and node.elapsed() == 2
    told(node, "touch")()  # the same text again begins nothing
    assert node.ask(5) == 1 and node.elapsed() == 1 and node._episode == 0


@pytest.mark.parametrize("what", ["instruction", "clock"])
def test_what_begins_during_an_inference_drops_its_answer(what):
    node = Node()
    node.ask(1)
    node.meanwhile = told(node, "pick") if what == "instruction" else partial(PolicyNode._clock_jumped, node, None)
    assert node.ask(2) == 0
    node.meanwhile = None
    assert node.ask(3, node._instruction) == 1 and node.elapsed() == 0


def test_the_first_inference_waits_until_those_that_want_its_chunk_are_connected(monkeypatch):
    """One that is published before is lost, and in lockstep there is no other."""
    clock = Mock(return_value=10.0)
    monkeypatch.setattr("vla_ros.nodes.policy_node.time.monotonic", clock)
    node = Node()
    node._read, node._activated, node.count_subscribers = False, 10.0, Mock(return_value=0)
    connected = node._chunks.get_subscription_count
    for known, count, ready in ((0, 0, False), (2, 1, False), (2, 2, True), (3, 0, True)):  # only the first one waits
        node.count_subscribers.return_value, connected.return_value = known, count
        assert PolicyNode._is_read(node) is ready
    node._read, clock.return_value = False, 12.1
    assert PolicyNode._is_read(node)  # nobody wants them, or somebody cannot be reached


def test_a_chunk_that_no_executor_follows_is_not_continued():
    """While somebody else leads the robot it would go on from chunk to chunk, away from where the robot is."""
    node, delivered = Node(), Mock()
    node._session.delivered = delivered
    E = ExecutorStatus
    for state, cause, counts in (
        (E.EXECUTING, 0, True), (E.TAKEN_OVER, 0, False), (E.HOLDING, E.CAUSE_TAKEOVER_PAUSED, False),
        (E.HOLDING, E.CAUSE_NO_CHUNK, True), (E.STOPPED, E.CAUSE_RIVAL, False), (E.APPROACHING, 0, True),
    ):  # fmt: skip
        delivered.reset_mock()
        PolicyNode._take_executor(node, E(state=state, cause=cause))
        assert node.ask(1) == 1 and delivered.called == counts, (state, cause)


def test_what_begins_before_its_observation_is_asked_drops_the_answer_too():
    """The session began with a sample of what was before: it begins once more."""
    node = Node()
    node.ask(1)
    told(node, "pick")()
    assert node.ask(2, "touch", episode=0) == 0 and node.elapsed() == 0
    assert node.ask(3, "pick") == 1 and node.elapsed() == 0


def test_it_waits_for_nothing_while_it_infers():
    """However long that takes: an executor would take it for a policy without images."""
    node, said = Node(), []
    node._status.state = PolicyStatus.WAITING
    node.meanwhile = lambda: said.extend(node._set_status.call_args_list)
    assert node.ask(1) == 1
    ((state,), values), = said  # fmt: skip
    assert state == PolicyStatus.RUNNING and values == {"waiting_for": [], "message": ""}


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_leap_back_while_an_observation_is_built_leaves_nothing_used_up(when):
    node = Node()
    node._trigger, node.now_ns = Trigger(["front"], ["joint_states"]), lambda: 1
    node._builder.streams = {}
    node._arrivals = Arrivals(node._builder, node._trigger, 0.5)

    def arrive(step):
        for stream in ("front", "joint_states"):
            node._trigger.add(stream, step * STEP)

    arrive(1000)
    if when == "before":
        PolicyNode._clock_jumped(node, None)
    else:
        node._builder.build = lambda *given: (PolicyNode._clock_jumped(node, None), node.observation(*given))[1]
    assert node.ask(1000, episode=0) == 0
    arrive(1)
    assert node._trigger.target(STEP) == STEP


def test_a_policy_that_must_not_pad_meets_an_instruction_before_it_is_followed(monkeypatch):
    node = Node(Speaker)
    meet = Mock(wraps=node._session.meet)
    monkeypatch.setattr(node._session, "meet", meet)
    assert [node.ask(step) for step in (1, 2, 3)] == [0, 1, 1] and meet.call_count == 1
    told(node, "go " * 12)()
    assert [node.ask(step, node._instruction) for step in (4, 5)] == [0, 1] and meet.call_count == 2


def test_an_instruction_that_the_policy_refused_to_meet_is_not_answered_afterwards(monkeypatch):
    """An engine that answers otherwise than torch is found out there."""
    node = Node(Speaker)
    monkeypatch.setattr(node._session, "meet", Mock(side_effect=InputError("its actions differ")))
    for step in (1, 2):
        with pytest.raises(InputError, match="its actions differ"):
            node.ask(step)
    assert not node._chunks.publish.called
