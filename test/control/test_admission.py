"""A refusal names reason, joint, value and limit; nothing of a refused chunk is used."""

import numpy as np
import pytest
from control.fakes import HOME, NS, World

from vla_ros.control.admission import Reason, Refusal
from vla_ros.core.chunk import ActionChunk, Part, Space, Targets

ROWS = np.tile(HOME, (10, 1))


def spoiled(row: int, joint: int, value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[row, joint] = value
    return rows


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"space": Space.JOINT_DELTA}, Reason.SPACE, "JOINT_DELTA, expected JOINT_POSITION alone"),
        (
            {"targets": Targets((Part(("turn",), ROWS[:, :1]), Part(("x",), ROWS[:, :1], Space(2), "base")))},
            Reason.SPACE,
            "base in END_EFFECTOR_DELTA, expected JOINT_POSITION alone: the robot file has no `tool`",
        ),
        (
            {"names": ("turn", "lift", "claw")},
            Reason.NAMES,
            "unknown ['claw'], expected some of ['turn', 'lift', 'grip']",
        ),
        ({"names": ("turn", "turn", "lift")}, Reason.NAMES, "'turn' is duplicated"),
        ({"targets": Targets((Part(("turn",), ROWS[:, :1]),) * 2)}, Reason.NAMES, "'turn' is duplicated"),
        ({"names": ()}, Reason.NAMES, "a part without names"),
        ({"targets": Targets(())}, Reason.NAMES, "no parts"),
        ({"names": ("turn", "lift")}, Reason.SHAPE, "part of turn: (10, 3), expected one row or more"),
        ({"rows": np.zeros((0, 3))}, Reason.SHAPE, "(0, 3), expected one row or more"),
        (
            {"targets": Targets((Part(("turn",), ROWS[:, :1]), Part(("lift",), ROWS[:9, 1:2])))},
            Reason.SHAPE,
            "part of lift: (9, 1), expected one row or more, as many as turn has, x 1 names",
        ),
        ({"rows": np.zeros((1001, 3))}, Reason.HORIZON, "1001 rows, limit 1000"),
        ({"step_dt": 1e-5}, Reason.STEP_DT, "1e-05 s, expected 0.0001 s or more"),
        ({"step_dt": 0.0}, Reason.STEP_DT, "0.0 s"),
        ({"step_dt": -0.1}, Reason.STEP_DT, "-0.1 s"),
        ({"step_dt": float("nan")}, Reason.STEP_DT, "nan s"),
        ({"step_dt": 1e9}, Reason.STEP_DT, "limit 2.0 s"),
        ({"rows": spoiled(3, 1, np.nan)}, Reason.NON_FINITE, "lift, row 3: nan"),
        ({"rows": spoiled(9, 0, -np.inf)}, Reason.NON_FINITE, "turn, row 9: -inf"),
        ({"stamp_ns": 1000 * NS + 3600 * NS}, Reason.FUTURE, "stamped 3600.000 s ahead, limit 0.1 s"),
        ({"stamp_ns": -(2**31) * NS}, Reason.TOO_OLD, "limit 3.0 s"),
        ({"age": 1.0}, Reason.TOO_OLD, "stamped 1.000 s ago, its rows were over 1.000 s after that"),
        ({"instruction_id": 5}, Reason.INSTRUCTION, "follows instruction 5, current is"),
        ({"rows": spoiled(0, 1, 0.7)}, Reason.POSITION, "joint lift, row 0: 0.7 m, limits 0 to 0.5 with a tol"),
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
    assert status.refused == {str(reason): 1} and status.accepted_chunks == 0
    assert status.last_refusal == str(refusal)
    world.tick(20)
    assert np.array_equal(world.measured, HOME)


def test_columns_are_found_by_name():
    world = World().activate()
    assert isinstance(world.send(ROWS[:, [2, 0, 1]] + [0, 0.2, 0], names=("grip", "turn", "lift")), ActionChunk)
    world.tick(40)
    assert np.array_equal(world.measured, HOME + [0.2, 0, 0])


@pytest.mark.parametrize("joint", range(3))
def test_every_rule_judges_the_joints_that_are_there(joint):
    world = World().activate()
    name, here = world.names[joint], ROWS[:, [joint]]
    assert isinstance(world.send(here, names=(name,)), ActionChunk)
    out = world.send(here + 1e3, names=(name,))
    assert out.reason == Reason.POSITION and f"joint {name}, row 0" in out.text
    wild = world.send(here + np.where(np.arange(10)[:, None] % 2, [1.1, 0.3, 0.3][joint], 0.0), names=(name,))
    jump = world.send(here + [0.82, 0.22, 0.3][joint], names=(name,))
    if name == "grip":  # discrete
        assert isinstance(wild, ActionChunk) and isinstance(jump, ActionChunk)
    else:
        assert (wild.reason, f"joint {name}, row" in wild.text) == (Reason.OUTLIER, True), wild
        assert (jump.reason, f"joint {name}: begins" in jump.text) == (Reason.JUMP, True), jump


def test_a_chunk_of_one_row_holds_for_a_step():
    world = World().activate()
    assert world.send(HOME[None] + [0.1, 0, 0], age=0.1).reason == Reason.TOO_OLD
    assert isinstance(world.send(HOME[None] + [0.1, 0, 0], step_dt=0.3, age=0.05), ActionChunk)
    world.tick(24)
    assert world.executor.status(world.now_ns).live_chunks == 1
    world.tick(1)
    assert world.executor.status(world.now_ns).live_chunks == 0
    assert world.measured[0] == pytest.approx(0.2)


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


def test_a_later_observation_is_followed_whatever_its_number():
    world = World().activate()
    assert isinstance(world.send(sequence=2**64 - 1), ActionChunk)
    for sequence in (7, 1, 0):
        assert world.send(sequence=sequence, age=0.01).reason == Reason.SEQUENCE
        world.tick(2)
        assert isinstance(world.send(sequence=sequence), ActionChunk)
    assert isinstance(world.send(sequence=9, age=0.5), ActionChunk)  # late, but never followed before
    assert world.send(sequence=8, age=0.1).reason == Reason.SEQUENCE  # older than the newest that was followed


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
    assert world.send(space=Space.END_EFFECTOR_POSE).reason == Reason.SPACE
    world.executor.e_stop("test")
    assert world.send().reason == Reason.E_STOPPED


def test_without_an_instruction_nothing_is_accepted():
    world = World().activate()
    world.executor.set_instruction("  ")
    assert world.send(instruction_id=0).reason == Reason.INSTRUCTION
    assert world.send().reason == Reason.INSTRUCTION


def test_names_of_a_stranger_do_not_flood_the_log():
    world = World().activate()
    refusal = world.send(np.zeros((1, 10_000)), names=tuple(f"joint{i}" * 100 for i in range(10_000)))
    assert refusal.reason == Reason.NAMES and len(refusal.text) < 400
