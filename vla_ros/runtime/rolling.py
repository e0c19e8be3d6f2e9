"""The state that the robot will have when the answer is there, in place of the one that was observed.

While the policy computes, the robot goes on with the last chunk; what the policy answers begins where that has led it.
"VLASH: Real-Time VLAs via Future-State-Aware Asynchronous Inference" (arXiv 2512.01031). The images stay those of the
observation: policies that were trained with states ahead of their images know what that means, others may not.
"""

from collections.abc import Sequence
from dataclasses import replace

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.stream import JOINT_STATES
from vla_ros.policies.processor import Interface
from vla_ros.runtime.rtc import RunningChunk


def require_rolling(processor: Interface, remembers: bool, guided: bool) -> None:
    """Raises InputError where the running chunk does not say the state that the policy reads."""
    for there, words in (
        (guided, "and rtc: true, which continues the running chunk in another way; expected one of the two"),
        (remembers, "and the policy remembers what it saw, step by step; expected false"),
        (len(processor.steps().get(JOINT_STATES, ())) > 1, "and the policy reads earlier states too; expected false"),
        (processor.tool, "and the actions are a tool's, which say no joint positions; expected false"),
        (processor.path, "and the actions are a path of the base, which says no velocities; expected false"),
    ):
        if there:
            raise InputError(f"roll_state: true, {words}")


def rolled(samples: Sequence[Sample], running: Sequence[RunningChunk]) -> tuple[list[Sample], list[float]]:
    """The samples as of when their answers may be there, and s until then; as they are, and 0, where no chunk runs."""
    found, leads = list(samples), [0.0] * len(samples)
    for row, (sample, chunk) in enumerate(zip(samples, running, strict=True)):
        if ahead := chunk.ahead(sample):
            leads[row], moved = ahead
            stamp_ns = sample.stamp_ns + round(leads[row] * 1e9)
            found[row] = replace(sample, state=sample.state + moved, stamp_ns=stamp_ns)
    return found, leads
