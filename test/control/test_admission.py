"""A refusal names reason, joint, value and limit; nothing of a refused chunk is used."""

import numpy as np
import pytest
from control.fakes import HOME, NS, World

from vla_ros.control.admission import Reason, Refusal
from vla_ros.core.chunk import ActionChunk

ROWS = np.tile(HOME, (10, 1))


def spoiled(row: int, joint: int, value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[row, joint] = value
    return rows


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"space": 3}, Reason.SPACE, "space 3, expected 0"),
        ({"names": ("turn", "lift")}, Reason.NAMES, "missing ['grip']"),
        ({"names": ("turn", "lift", "claw")}, Reason.NAMES, "missing ['grip'], unknown ['claw']"),
        ({"names": ("turn", "turn", "lift", "grip")}, Reason.NAMES, "more than once ['turn']"),
        ({"names": ()}, Reason.NAMES, "missing ['turn', 'lift', 'grip']"),
        ({"horizon": 9}, Reason.SHAPE, "30 numbers, expected horizon 9 x 3"),
        ({"horizon": 0, "data": np.zeros(0)}, Reason.SHAPE, "0 numbers, expected horizon 0 x 3"),
        ({"horizon": 4_000_000_000}, Reason.HORIZON, "4000000000 rows, limit 1000"),
        ({"step_dt": 0.0}, Reason.STEP_DT, "0.0 s"),
        ({"step_dt": -0.1}, Reason.STEP_DT, "-0.1 s"),
        ({"step_dt": float("nan")}, Reason.STEP_DT, "nan s"),
        ({"step_dt": 1e9}, Reason.STEP_DT, "limit 2.0 s"),
        ({"data": spoiled(3, 1, np.nan).ravel()}, Reason.NON_FINITE, "joint lift, row 3: nan"),
        ({"data": spoiled(9, 0, -np.inf).ravel()}, Reason.NON_FINITE, "joint turn, row 9: -inf"),
        ({"stamp_ns": 1000 * NS + 3600 * NS}, Reason.FUTURE, "stamped 3600.000 s ahead, limit 0.1 s"),
        ({"stamp_ns": -(2**31) * NS}, Reason.TOO_OLD, "limit 3.0 s"),
        ({"age": 0.95}, Reason.TOO_OLD, "its last row was for 0.900 s after that"),
        ({"instruction_id": 5}, Reason.INSTRUCTION, "follows instruction 5, current is"),
        ({"rows": spoiled(0, 1, 0.7)}, Reason.POSITION, "joint lift, row 0: 0.7 m, limits 0.01 to 0.49 with 0.12"),
        ({"rows": spoiled(5, 0, 1e300)}, Reason.POSITION, "joint turn, row 5: 1e+300 rad"),
        ({"rows": spoiled(4, 0, -1.0)}, Reason.OUTLIER, "joint turn, row 4: 11 rad/s from the row before, limit 5 x 2"),
        ({"rows": ROWS + [0.85, 0, 0]}, Reason.JUMP, "joint turn: begins at 0.95 rad, measured 0.1, limit 0.8 away"),
    ],
)
def test_what_is_refused_and_why(change, reason, words):
    world = World().activate()
    change = dict(change)
    refusal = world.send(change.pop("rows", ROWS), **change)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, words in refusal.text) == (reason, True), refusal
    status = world.executor.status(world.now_ns)
    assert status.refused == {str(reason): 1} and status.accepted == 0
    assert status.last_refusal == str(refusal)
    world.tick(20)
    assert np.array_equal(world.measured, HOME)


def test_columns_are_found_by_name():
    world = World().activate()
    result = world.send(ROWS[:, [2, 0, 1]], names=("grip", "turn", "lift"))
    assert isinstance(result, ActionChunk) and result.names == world.names
    assert np.array_equal(result.data, ROWS)


def test_what_is_tolerated():
    world = World().activate()
    slightly_out = ROWS + np.arange(10)[:, None] * [0, 0.033, 0]  # is clipped by the limits, later
    gripper_steps = spoiled(0, 2, 1.0)
    for rows in (slightly_out, gripper_steps):
        assert isinstance(world.send(rows, age=0.3), ActionChunk)
    assert isinstance(world.send(ROWS, stamp_ns=world.now_ns + NS // 20), ActionChunk)


def test_the_jump_is_judged_where_the_chunk_is_now():
    world = World().activate()
    passed = ROWS.copy()
    passed[:3, 0] = [-0.9, -0.8, 0.0]  # rows that are over already
    assert isinstance(world.send(passed, age=0.25), ActionChunk)


def test_sequences_count_upwards_within_a_session():
    world = World().activate()
    assert isinstance(world.send(sequence=5), ActionChunk)
    for sequence in (5, 4):
        assert world.send(sequence=sequence).reason == Reason.SEQUENCE
    assert isinstance(world.send(sequence=6), ActionChunk)


def test_one_session_leads_until_it_is_silent():
    world = World().activate()
    assert isinstance(world.send(session=1), ActionChunk)
    rival = world.send(session=2)
    assert rival.reason == Reason.RIVAL_POLICY and "session 1 leads" in rival.text
    world.tick(101)
    assert isinstance(world.send(session=2), ActionChunk)
    assert world.send(session=1).reason == Reason.RIVAL_POLICY


def test_a_policy_that_says_goodbye_is_replaced_at_once():
    world = World().activate()
    world.send(session=1)
    world.executor.policy_session_over(9)
    assert world.send(session=2).reason == Reason.RIVAL_POLICY
    world.executor.policy_session_over(1)
    assert isinstance(world.send(session=2, sequence=0), ActionChunk)


def test_without_activation_nothing_is_accepted_but_malformed_is_still_named():
    world = World()
    assert world.send().reason == Reason.INACTIVE
    assert world.send(space=1).reason == Reason.SPACE
    world.executor.e_stop("test")
    assert world.send().reason == Reason.E_STOPPED


def test_without_an_instruction_nothing_is_accepted():
    world = World().activate()
    world.executor.set_instruction("  ")
    assert world.send(instruction_id=0).reason == Reason.INSTRUCTION
    assert world.send().reason == Reason.INSTRUCTION


def test_names_of_a_stranger_do_not_flood_the_log():
    world = World().activate()
    refusal = world.send(names=tuple(f"joint{i}" for i in range(10_000)), horizon=1)
    assert refusal.reason == Reason.NAMES and len(refusal.text) < 400
