"""Stamps that cannot be: the policy is asked as before, and what waits for the clock comes when it is there."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from messages.test_observation import ROBOT, image, joints

from vla_ros.bags.definitions import standard_store
from vla_ros.messages.observation import JOINT_STATES, NotReady, ObservationBuilder, message_stamp
from vla_ros.messages.stamps import NS, set_stamp
from vla_ros.runtime.arrivals import Arrivals
from vla_ros.runtime.trigger import Trigger

STREAMS = ("front", "wrist", JOINT_STATES)
DAY = 86_400.0


class Inputs:
    """What the policy node keeps of its inputs, and the node's loop around them."""

    def __init__(self, pace: float = 0.0) -> None:
        self.builder = ObservationBuilder(ROBOT, max_age=0.5, history=1.0)
        self.trigger = Trigger(["front", "wrist"], [JOINT_STATES], max_ahead=0.5, pace=pace)
        self.arrivals = Arrivals(self.builder, self.trigger, 0.5)
        self.has_history = False  # whether the policy sees half a second back, too
        self.said = []

    def add(self, stream: str, stamp: float, now: float) -> None:
        message = joints(stamp, 0.1) if stream == JOINT_STATES else image(stream, stamp, 7)
        if why := self.arrivals.add(stream, message, round(stamp * NS), round(now * NS)):
            self.said.append(why)

    def asked(self, now: float) -> bool:
        """Whether the policy is asked now, on images and joints that are fresh, with the history it needs."""
        now_ns = round(now * NS)
        if self.arrivals.advance(now_ns):
            self.arrivals.clear()
        target = self.trigger.target(now_ns)
        if target is None:
            return False
        try:
            observation = self.builder.build(target)
            if self.has_history:
                self.builder.build(target - NS // 2)
        except NotReady:
            return False
        self.trigger.began(self.trigger.newest())
        self.trigger.began(observation.stamps_ns)
        return abs(observation.stamp_ns - now_ns) < NS // 2


@pytest.mark.parametrize("stamp", [3600.0, 0.7, DAY, -DAY, 0.0, -3600.0, 2.0e9 - 100.0])
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("pace", [0.0, 0.1])
def test_one_wrong_stamp_changes_nothing(stream, stamp, pace):
    """After the clock or before it, or not set at all (zero): as many inferences as without it."""
    inputs, count = Inputs(pace), 0
    for k in range(100):
        now = 100.0 + 0.1 * k
        inputs.has_history = k >= 6
        if k == 30:
            inputs.add(stream, stamp if stamp in (0.0, -DAY) else now + stamp, now)
        for name in STREAMS:
            inputs.add(name, now, now)
        count += inputs.asked(now)
    assert count == 100
    assert len(inputs.said) == (stamp > 0.5)
    if inputs.said:
        ahead = "does not use the system clock" if stream != JOINT_STATES else "do not use the system clock"
        assert inputs.said[0].startswith(f"{stream}: stamp")
        assert (ahead if stamp > 5 else " s ahead of the clock") in inputs.said[0]


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_whose_clock_is_wrong_is_named_and_used_once_it_is_right(stream):
    inputs = Inputs()

    def play(begin, error):
        count = 0
        for k in range(50):
            now = begin + 0.1 * k
            for name in STREAMS:
                inputs.add(name, now + (error if name == stream else 0.0), now)
            count += inputs.asked(now)
        return count

    assert play(100.0, 0.0) == 50
    assert play(105.0, 3600.0) <= 5  # what was there before is used up or stale soon
    now = round(109.9 * NS)
    said = inputs.arrivals.explained(inputs.builder.problems(now), now)[stream]
    assert said.startswith("stamped 3709.900, arrived at 109.900: ")
    assert ("set `stamps: arrival` for it in the robot file" in said) == (stream != JOINT_STATES)
    assert len(inputs.said) == 1
    assert play(110.0, 0.0) == 50
    assert sum(len(waiting) for waiting in inputs.arrivals._waiting.values()) <= 8  # bounded


@pytest.mark.parametrize("error", [3600.0, 1.0, 0.4])
def test_a_clock_that_is_set_back_starts_over(error):
    inputs = Inputs()
    for begin in (5000.0, 5001.0 - error):
        asked = [k for k in range(50) if [inputs.add(name, begin + 0.1 * k, begin + 0.1 * k) for name in STREAMS]
                 and inputs.asked(begin + 0.1 * k)]  # fmt: skip
        assert len(asked) > 40 if error == 0.4 else len(asked) >= 49


def test_what_outruns_the_clock_is_used_when_the_clock_is_there():
    """In lockstep nothing newer comes: of a simulator that is held at 100 s the last stamps must be used."""
    for seed in range(50):
        inputs = Inputs()
        arriving = [(name, stamp) for name in STREAMS for stamp in (99.8, 99.9, 100.0)]
        random.Random(seed).shuffle(arriving)
        for name, stamp in arriving:
            inputs.add(name, stamp, 0.0)
        assert not inputs.asked(0.0)
        assert inputs.asked(100.0) and not inputs.asked(100.0)
        assert inputs.trigger.newest() == dict.fromkeys(STREAMS, 100 * NS)


def test_stamps_of_zero_are_named():
    inputs = Inputs()
    for k in range(5):
        for name in STREAMS:
            inputs.add(name, 0.0 if name == "front" else 100.0 + k, 100.0 + k)
        assert not inputs.asked(100.0 + k)
    now = 104 * NS
    (said,) = inputs.arrivals.explained(inputs.builder.problems(now), now).items()
    assert said[0] == "front" and said[1].startswith("stamped 0.000, arrived at 104.000: this camera does not use the")


def test_a_camera_with_a_clock_of_its_own_is_stamped_by_arrival():
    front, header = ROBOT.all_streams["front"], standard_store().types["std_msgs/msg/Header"]
    message = set_stamp(standard_store().types[front.type](header(SimpleNamespace(), ""), *[None] * 6), 3 * NS)
    assert message_stamp(front, message, 100 * NS) == 3 * NS
    assert message_stamp(replace(front, stamps="arrival"), message, 100 * NS) == 100 * NS
