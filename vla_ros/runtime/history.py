"""The last observation steps of a policy, on the policy's clock and not the cameras'."""

from collections.abc import Callable, Sequence

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation, Sample
from vla_ros.policies.processor import Processor


def history_length(processor: Processor) -> float:
    """s of messages to keep, so that the oldest observation step can still be built."""
    return (processor.n_obs_steps - 1) * processor.step_dt


def observe(build: Callable[[int], Observation], stamp_ns: int, processor: Processor) -> list[Observation]:
    """The observations at `stamp_ns - k * step_dt`, k = T-1 .. 0, oldest first.

    Steps for which there is nothing (just after the start) repeat the step that follows them, as the published
    policies with a history do.

    Args:
        build: makes the observation of an instant, ns; raises InputError when there is none.

    Raises:
        InputError: there is none at `stamp_ns` itself.
    """
    step_ns = round(processor.step_dt * 1e9)
    steps = [build(stamp_ns)]
    for k in range(1, processor.n_obs_steps):
        try:
            steps.insert(0, build(stamp_ns - k * step_ns))
        except InputError:
            steps.insert(0, steps[0])
    return steps


def make_sample(steps: Sequence[Observation], processor: Processor, instruction: str) -> Sample:
    """One Sample from T observations, oldest first; only the cameras that the policy looks at."""
    if len(steps) == 1:  # a view, no copy: images are large
        images = {name: steps[0].images[name][None] for name in processor.cameras}
    else:
        images = {name: np.stack([step.images[name] for step in steps]) for name in processor.cameras}
    return Sample(images=images, state=np.stack([step.state for step in steps]), instruction=instruction)
