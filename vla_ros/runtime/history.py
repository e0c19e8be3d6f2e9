"""The last observation steps of a policy, on the policy's clock."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation, Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import COMMAND, JOINT_STATES
from vla_ros.policies.processor import Interface

Steps = Mapping[int, Observation]


def history_length(processor: Interface) -> float:
    """s of messages to keep, so that the oldest observation step can be built."""
    return -min(_offsets(processor)) * processor.step_dt


def observed_streams(processor: Interface) -> tuple[str, ...]:
    """Names of the streams that the policy reads, the state among them."""
    return tuple(dict.fromkeys((*processor.steps(), JOINT_STATES)))


def observe(build: Callable[[int, Collection[str]], Observation], stamp_ns: int, processor: Interface) -> Steps:
    """Offset in `step_dt` -> the observation at `stamp_ns + offset * step_dt`, of the streams that have this offset.

    Steps without data (just after the start) are absent.

    Args:
        build: makes the observation of an instant, ns, of some streams; raises InputError when there is none.

    Raises:
        InputError: there is no observation at `stamp_ns` itself.
    """
    wanted, step_ns = processor.steps(), round(processor.step_dt * 1e9)
    steps = {0: build(stamp_ns, observed_streams(processor))}
    for offset in _offsets(processor)[:-1]:
        names = [name for name, offsets in wanted.items() if offset in offsets]
        try:
            steps[offset] = build(stamp_ns + offset * step_ns, names)
        except InputError:
            continue
    return steps


def make_sample(steps: Steps | Sequence[Observation], processor: Interface, instruction: str) -> Sample:
    """One Sample of what the policy reads.

    A step that is absent repeats the one that follows it, as the published policies with a history do; a command
    that is absent is the state at the start. An optional stream that the newest step lacks is absent.

    Args:
        steps: as `observe` gives them, or observations `step_dt` apart, the newest last.
    """
    if not isinstance(steps, Mapping):
        steps = {k - len(steps) + 1: step for k, step in enumerate(steps)}
    newest = steps[0]
    images, values, state = {}, {}, newest.state[None]
    for name, offsets in processor.steps().items():
        if name in processor.optional and not _has(newest, name):
            continue
        there = [k for k in sorted(steps) if _has(steps[k], name)]
        chosen = [steps[min(k for k in there if k >= offset)] for offset in offsets]
        if name == JOINT_STATES:
            state = _stacked([step.state for step in chosen])
        elif name in processor.cameras:
            images[name] = _stacked([step.images[name] for step in chosen])
        for reading in (name, f"{name}_count"):
            if reading in newest.values:
                values[reading] = _stacked([step.values[reading] for step in chosen])
        if name.startswith(COMMAND):
            rows = [step.values[name] if offset in steps else step.state[list(step.columns[name])]
                    for offset, step in zip(offsets, chosen, strict=True)]  # fmt: skip
            values[name] = np.stack(rows)
    return Sample(images=images, state=state, instruction=instruction, values=values, stamp_ns=newest.stamp_ns)


def _has(step: Observation, name: str) -> bool:
    return step.state.size > 0 if name == JOINT_STATES else name in step.images or name in step.values


def example_sample(robot: RobotSpec, processor: Interface, instruction: str = "warm up") -> Sample:
    """A sample of the right shapes: black images as large as the robot file says, every joint mid-range."""
    images, values, steps = {}, {}, processor.steps()
    for name in set(steps) - {JOINT_STATES}:
        if name in processor.optional and name not in robot.all_streams:
            continue
        for reading, (shape, dtype) in robot.stream(name).readings.items():
            kind = images if reading in processor.cameras else values
            kind[reading] = np.zeros((len(steps[name]), *shape), dtype if dtype != "string" else np.str_)
    middle = np.array([(joint.lower + joint.upper) / 2 for joint in robot.joints])
    state = np.tile(middle, (len(steps.get(JOINT_STATES, (0,))), 1))
    return Sample(images=images, state=state, instruction=instruction, values=values)


def _offsets(processor: Interface) -> list[int]:
    return sorted({0}.union(*processor.steps().values()))


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """(T, ...), a view of a single step: images are large. Raises InputError if a camera changed its size."""
    shapes = list(dict.fromkeys(array.shape for array in arrays))
    if len(shapes) > 1:
        raise InputError(f"the policy looks back at {' and '.join(map(str, shapes))}, expected one shape")
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
