from dataclasses import replace

import families
import numpy as np
import pytest
from runtime.tiny_policy import TinyProcessor, sample

from vla_ros.core.chunk import Part, Space, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.rotations import from_matrix, to_matrix
from vla_ros.core.tool import pose_names
from vla_ros.runtime.rtc import RunningChunk, _at

STEP = 100_000_000  # ns
CHUNK = Targets((Part(("j0", "j1"), np.stack([np.arange(8.0), -np.arange(8.0)], axis=1)),))


def at(rows, state=(0.0, 0.0)):
    """A sample `rows` after the clock's zero."""
    return sample(state=state, stamp_ns=round(rows * STEP))


def test_the_tail_starts_at_the_new_observation_in_the_new_states_frame():
    processor = TinyProcessor()
    running = RunningChunk(processor)
    assert running.tail(at(0)) is None
    running.remember(10 * STEP, CHUNK, delay=0.15)
    new = at(12.5, (2.0, -2.0))
    actions, frozen, overlap = running.tail(new)
    (targets,) = processor.outputs(actions[None], [new])
    # Between two rows it is between their values, and the last one holds for its whole step.
    np.testing.assert_allclose(targets.parts[0].data[:6, 0], [2.5, 3.5, 4.5, 5.5, 6.5, 7.0], atol=1e-6)
    np.testing.assert_allclose(targets.parts[0].data[:6, 1], [-2.5, -3.5, -4.5, -5.5, -6.5, -7.0], atol=1e-6)
    assert (frozen, overlap) == (2, 6)  # 0.15 s are two rows begun


def test_nothing_left_gone_back_and_reset():
    running = RunningChunk(TinyProcessor())
    running.remember(10 * STEP, CHUNK, delay=0.05)
    assert running.tail(at(18)) is None and running.tail(at(9)) is None
    assert running.tail(at(17))[2] == 1 and running.tail(at(17.5))[2] == 1 and running.tail(at(10))[2] == 8
    running.reset()
    assert running.tail(at(11)) is None


def test_the_largest_recent_delay_counts():
    running = RunningChunk(TinyProcessor(), window=2)
    for delay, frozen in ((0.05, 1), (0.31, 4), (0.05, 4), (0.05, 1)):
        running.remember(0, CHUNK, delay)
        assert running.tail(at(1))[1] == frozen


def test_how_far_the_chunk_moves_the_joints_until_an_answer_may_be_there():
    running = RunningChunk(TinyProcessor())
    assert running.ahead(at(0)) is None
    running.remember(10 * STEP, CHUNK, delay=0.3)
    running.remember(10 * STEP, CHUNK, delay=0.15)
    lead, moved = running.ahead(at(12.5, (2.0, -2.0)))
    assert lead == 0.15
    np.testing.assert_allclose(moved, [1.5, -1.5], atol=1e-9)
    np.testing.assert_allclose(running.ahead(at(16.5))[1], [0.5, -0.5], atol=1e-9)  # the last row holds
    assert running.ahead(at(16.6)) is None and running.ahead(at(9.9)) is None
    running.remember(0, Targets((replace(CHUNK.parts[0], space=Space.JOINT_DELTA),)), delay=0.1)
    with pytest.raises(InputError, match=r"roll_state: \['j0', 'j1'\] are JOINT_DELTA, expected joint positions"):
        running.ahead(at(1))


@pytest.mark.parametrize("form", ["vector", "euler_xyz", "quaternion_xyzw"])
def test_between_two_rows_of_a_pose_that_turns_through_half_a_turn_lies_no_third_rotation(form):
    angles = np.pi - 0.15 + 0.1 * np.arange(4)  # about x, beyond half a turn from the third row on
    turns = to_matrix(np.stack([angles, 0 * angles, 0 * angles], axis=1), "vector")
    rows = np.concatenate([np.arange(12.0).reshape(4, 3), from_matrix(turns, form)], axis=1)
    part = Part(pose_names(form), rows, Space.END_EFFECTOR_POSE, "", "base")
    times = np.array([0.4, 1.4, 1.6, 2.5, 9.0])
    found = _at(part, times)
    np.testing.assert_allclose(found[:, 0], [1.2, 4.2, 4.8, 7.5, 9.0])
    expected = to_matrix(np.outer(np.interp(times, range(4), angles), [1.0, 0.0, 0.0]), "vector")
    away = to_matrix(found[:, 3:], form) @ expected.swapaxes(-1, -2)
    assert np.arccos(np.clip((np.trace(away, axis1=1, axis2=2) - 1) / 2, -1, 1)).max() < 0.06


def test_what_is_no_joint_position_is_refused():
    running = RunningChunk(TinyProcessor())
    running.remember(0, Targets((replace(CHUNK.parts[0], space=Space.JOINT_DELTA),)), delay=0.0)
    with pytest.raises(InputError, match="JOINT_DELTA, expected joint positions or poses"):
        running.tail(at(1))


@pytest.mark.parametrize("family", families.GUIDED)
def test_the_tail_ends_where_a_row_does_not_survive_the_way_into_the_policys_space(family, monkeypatch):
    processor = families.fresh(family).processor
    one = families.sample(processor, stamp_ns=STEP)
    rows = np.tile(one.state[-1], (processor.horizon, 1)) + np.linspace(0, 0.1, processor.horizon)[:, None]
    running = RunningChunk(processor)
    running.remember(0, Targets((Part(processor.joints, rows),)), delay=0.0)
    actions, _, overlap = running.tail(one)
    assert actions.shape[0] == processor.horizon and overlap == processor.horizon - 1
    normalise = type(processor).normalise

    def clipped(self, targets, samples):
        actions, survives = normalise(self, targets, samples)
        survives[:, 2] = False
        return actions, survives

    monkeypatch.setattr(type(processor), "normalise", clipped)
    assert running.tail(one)[2] == 2


@pytest.mark.parametrize("words, said", [
    (["--modes", "rtc", "wait,limited"], "--modes 'wait,limited', expected ensemble; latest; rtc; wait; wait, limited"),
    (["--modes", "rolled rtc"], "--modes 'rolled rtc'"), (["--delays", "0.1", "0.005"], "--delays 0.005 s, expected"),
])  # fmt: skip
def test_the_sweep_of_delays_refuses_what_it_would_take_for_something_else(words, said, monkeypatch, capsys):
    pytest.importorskip("mujoco")
    import latency_sweep

    monkeypatch.setattr("sys.argv", ["latency_sweep.py", *words])
    with pytest.raises(SystemExit):
        latency_sweep.main()
    assert said in capsys.readouterr().err
