"""The peer of benchmarks/soak.py: what it says of a start whose commands it has heard, and of one that it has not."""

import numpy as np
from command_check import ACCELERATION_STAMPS, Bounds
from soak_watch import Heard, Trail, Watch

MS = 1_000_000
ROBOT = {
    "control_rate": 100.0,
    "joints": [{"name": "turn", "lower": -1.0, "upper": 1.0, "velocity": 3.0, "acceleration": 20.0}],
}
# as fast as may be to 1 rad/s and back
BRAKING = np.cumsum([0.0, 0.002, 0.004, 0.006, 0.008, 0.010, 0.008, 0.006, 0.004, 0.002, 0.0, 0.0])
LATER = 200  # ms, in which the executor is deactivated and activated


def judged(first: np.ndarray, then: np.ndarray, stamps: list[float], begin: int = 1) -> Watch:
    """Two publishers' (K,) commands, every 10 ms and at `stamps` (ms); the second one's are numbered from `begin`."""
    watch = Watch(Bounds.of(ROBOT))
    watch.pending.extend(Heard(k * 10 * MS, np.array([x]), "a", k + 1) for k, x in enumerate(first))
    watch.pending.extend(
        Heard(round((LATER + at) * MS), np.array([x]), "b", begin + k)
        for k, (at, x) in enumerate(zip(stamps, then, strict=True))
    )
    watch.settle(10_000 * MS, [], [150 * MS], [])
    watch.check.end()
    return watch


def test_a_start_from_the_last_command_is_right_and_one_from_elsewhere_is_not():
    rest = np.full(3, BRAKING[-1])
    watch = judged(BRAKING, rest, [0, 10, 20])
    assert not watch.check.violations and not watch.jumps and not watch.lost
    assert watch.after_silence == {"at the last command": 1}
    assert len(judged(BRAKING, rest + 0.009, [0, 10, 20]).jumps) == 1


def test_what_a_lost_end_of_braking_looks_like():
    """As what was found in an hour of faults: a start 0.009 rad off, and 24.6 rad/s² (limit 20) by stamps where the
    first stamp of a start was 3.7 ms late and only the last step was lost."""
    rest = np.full(3, BRAKING[-1])
    assert len(judged(BRAKING[:-4], rest, [0, 10, 20]).jumps) == 1
    watch = judged(BRAKING[:-3], rest, [0, 10, 20])
    assert not watch.jumps and not watch.check.violations
    watch = judged(BRAKING[:-3], rest, [3.7448, 10, 20])
    assert watch.check.violations == {ACCELERATION_STAMPS: 1}
    assert "+1: turn -24.6" in watch.check.first[ACCELERATION_STAMPS]
    assert watch.check.around[ACCELERATION_STAMPS] == (round((LATER + 3.7448) * MS), (LATER + 20) * MS)


def test_a_start_that_was_not_heard_is_counted_and_what_follows_is_judged():
    moving = BRAKING[-1] + 0.001 * np.arange(12) ** 2  # 20 rad/s², from rest
    stamps = [10.0 * k for k in range(12)]
    watch = judged(BRAKING, moving[3:], stamps[3:], begin=4)
    assert watch.after_silence == {"not heard": 1} and watch.lost == 3
    assert not watch.check.violations and not watch.jumps
    moving[8:] += 0.01
    assert judged(BRAKING, moving[3:], stamps[3:], begin=4).check.violations[ACCELERATION_STAMPS] > 0


def test_lost_commands_within_a_motion_are_counted_and_break_no_limit():
    x, watch = 0.001 * np.arange(12) ** 2, Watch(Bounds.of(ROBOT))
    for k in (0, 1, 2, 5, 6, 9, 10, 11):
        watch.pending.append(Heard(k * 10 * MS, np.array([x[k]]), "a", k + 1))
    watch.settle(10_000 * MS, [], [], [])
    watch.check.end()
    assert watch.lost == 4 and not watch.check.violations


def test_a_finding_comes_with_what_was_heard_around_it_once():
    trail = Trail()
    trail.note(0, 0, "fault", "rival")
    for k in range(10):
        trail.note(k * MS, (k + 1) * MS, "command", [k])
    for _ in range(2):
        trail.keep("a jump", 4 * MS, 5 * MS)
    assert [finding["what"] for finding in trail.findings] == ["a jump"]
    assert trail.findings[0]["fault before"] == "rival"
    assert [row[3] for row in trail.findings[0]["stamp, arrival, what, value"]] == [[3], [4], [5]]
    trail.note(0, 200_000 * MS, "command", [0])
    trail.keep("another", 4 * MS, 5 * MS)
    assert trail.findings[1]["stamp, arrival, what, value"] == []
