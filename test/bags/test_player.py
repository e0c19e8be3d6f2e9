"""What is published when, in explicit time."""

import itertools

import pytest
from bags.factory import ARM, HAND, IMAGE, JOINTS, TEXT, TYPES, messages, write_bag

from vla_ros.bags.player import PlayOptions, schedule, selected_topics
from vla_ros.bags.reader import Bag
from vla_ros.core.errors import InputError


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    with Bag(write_bag(tmp_path_factory.mktemp("player") / "bag", messages(1.0))) as bag:
        yield bag


def test_times_and_order(bag):
    rows = list(schedule(bag, PlayOptions(rate=2.0, moving=True)))
    assert [record.data for _, record in rows] == [data for _, _, data in messages(1.0)]
    assert all(due == (record.log_ns - bag.start_ns) / 1e9 / 2 for due, record in rows)


def test_part_of_it(bag):
    rows = list(schedule(bag, PlayOptions(start=0.5, duration=0.2, topics=[JOINTS])))
    assert [round(due, 6) for due, _ in rows] == [round(0.02 * k, 6) for k in range(10)]
    assert {record.topic for _, record in rows} == {JOINTS}


def test_what_moves_a_robot_is_left_out_unless_asked_for(bag):
    assert selected_topics(bag, PlayOptions()) == {IMAGE, JOINTS, TEXT}
    assert selected_topics(bag, PlayOptions(moving=True)) == set(TYPES)
    assert selected_topics(bag, PlayOptions(topics=[ARM])) == {ARM}
    assert HAND in TYPES


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
