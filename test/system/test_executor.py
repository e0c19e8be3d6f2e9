"""What a peer on the graph sees of the executor: commands that follow chunks, and nothing else."""

import numpy as np
import pytest
from system.stage import HOME, PERIOD_NS, START_NS, Stage

from vla_ros.msg import ExecutorStatus


def ramp(start: np.ndarray, velocity: tuple[float, ...], rows: int, step_dt: float) -> np.ndarray:
    """(H, J) rows that begin at `start` and move steadily."""
    return start + np.arange(rows)[:, None] * step_dt * np.array(velocity)


def test_commands_follow_the_chunk_and_hold_after_it(graph, probe):
    stage = Stage(graph, probe)
    stage.activate()
    stage.say("go")
    stage.tick(3)
    assert np.array_equal(stage.positions, np.tile(HOME, (4, 1)))  # it holds where it was measured
    rows = ramp(HOME, (0.2, 0.05, 0.0), 6, 0.1)
    rows[3:, 2] = 0.6  # discrete: steps, to be reached within its limits
    status = stage.send(stage.chunk(rows))
    assert status.accepted_chunks == 1
    begin = stage.now_ns
    stage.tick(25)
    for stamp, position in stage.commands[4:]:
        age = (stamp - begin) * 1e-9
        assert position[:2] == pytest.approx(HOME[:2] + age * np.array([0.2, 0.05]), abs=1e-12)
    stage.wait_status(lambda s: s.state == ExecutorStatus.EXECUTING, "EXECUTING")
    stage.tick(10)  # the chunk is over: brakes and holds
    assert stage.positions[-1][2] == 0.6
    assert np.array_equal(stage.positions[-1], stage.positions[-5])
    status = stage.wait_status(lambda s: s.state == ExecutorStatus.HOLDING, "HOLDING")
    assert status.cause == ExecutorStatus.CAUSE_NO_CHUNK
    stage.check_limits()
    assert START_NS + (len(stage.commands) - 1) * PERIOD_NS == stage.commands[-1][0]
