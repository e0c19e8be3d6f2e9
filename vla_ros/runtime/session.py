"""A loaded policy, ready to serve: warm, timed, with its buffers in place."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import JOINT_STATES
from vla_ros.policies.policy import DenoisingPolicy, Prior
from vla_ros.policies.processor import Processor
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.runtime.network import PlainNetwork, RecordedNetwork, shapes_of
from vla_ros.runtime.stages import StageTimer

# Prompts of so many words are tried in the warm-up, so that every length of prompt the processor distinguishes
# has been run (and recorded) before the robot moves.
_WARM_WORDS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)


@dataclass(frozen=True)
class SessionOptions:
    """How to run a policy.

    Attributes:
        num_steps: denoising steps; None for the checkpoint's own number.
        graph: record CUDA graphs (on a GPU; a CPU has none).
        compile: let torch.compile fuse the network's operations; the warm-up takes minutes for a large policy.
        guided: the policy will be given priors (real-time chunking). Recorded graphs then always compute the
            guidance; without a prior its weights are zero, which adds exactly nothing.
        exact_guidance: guide with the vector-Jacobian product; runs without recorded graphs.
        max_guidance: the bound β of the guidance weight.
        seed: of the noise that actions are made from.
        max_graphs: recorded sets of input shapes that are kept.
    """

    num_steps: int | None = None
    graph: bool = True
    compile: bool = False
    guided: bool = False
    exact_guidance: bool = False
    max_guidance: float = 5.0
    seed: int = 0
    max_graphs: int = 8


@dataclass(frozen=True)
class Inference:
    """What a policy answered.

    Attributes:
        actions: (H, J) float64 absolute joint targets, rad or m.
        normalised: (H, D) float32 on the CPU, in the policy's own space.
        prefix_time: s, images, text and state; 0 for a policy that does not denoise.
        denoise_time: s, all denoising steps; for a policy that does not denoise its whole network.
        total_time: s, from the sample to the joint targets.
    """

    actions: np.ndarray
    normalised: Tensor
    prefix_time: float
    denoise_time: float
    total_time: float


def example_sample(robot: RobotSpec, processor: Processor, instruction: str = "warm up") -> Sample:
    """A sample of the right shapes: black images as large as the robot file says, every joint mid-range."""
    images, values, steps = {}, {}, processor.steps()
    for name in set(steps) - {JOINT_STATES}:
        for reading, (shape, dtype) in robot.stream(name).readings.items():
            kind = images if reading in processor.cameras else values
            kind[reading] = np.zeros((len(steps[name]), *shape), dtype if dtype != "string" else np.str_)
    middle = np.array([(joint.lower + joint.upper) / 2 for joint in robot.joints])
    state = np.tile(middle, (len(steps.get(JOINT_STATES, (0,))), 1))
    return Sample(images=images, state=state, instruction=instruction, values=values)


@contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("vla_ros")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class PolicySession:
    """Runs one policy on one device; not for several threads at once.

    Args:
        loaded: from `vla_ros.policies.load`, on the device where it shall run.
    """

    def __init__(self, loaded: LoadedPolicy, options: SessionOptions | None = None) -> None:
        self.loaded = loaded
        self.options = options or SessionOptions()
        self.processor = loaded.processor
        self.policy = loaded.policy.eval().requires_grad_(False)
        self.device = next(self.policy.parameters()).device
        if self.options.num_steps is not None and not isinstance(self.policy, DenoisingPolicy):
            raise InputError(f"num_steps {self.options.num_steps}: the family {loaded.family} does not denoise")
        if self.options.guided and not isinstance(self.policy, DenoisingPolicy):
            raise InputError(f"real-time chunking: the family {loaded.family} does not denoise")
        if isinstance(self.policy, DenoisingPolicy):
            self.policy.prepare(self.options.num_steps)
        if self.options.compile:
            self._compile()
        steps = self.options.num_steps
        # Recording cannot hold the backward pass of the exact guidance.
        self.recorded = self.device.type == "cuda" and self.options.graph and not self.options.exact_guidance
        if self.recorded:
            self._network = RecordedNetwork(self.policy, self.device, steps, self.options.max_graphs)
        else:
            self._network = PlainNetwork(self.policy, self.device, steps)
        config = self.policy.config
        self._action_shape = (1, config.horizon, config.action_dim)
        self._noise = torch.empty(self._action_shape, device=self.device)
        self._generator = torch.Generator(self.device)
        self.reset()

    def _compile(self) -> None:
        """Compiled for fixed shapes; a new length of prompt would compile again, so the warm-up visits them all."""
        for name in self.policy.compiled:
            setattr(self.policy, name, torch.compile(getattr(self.policy, name), dynamic=False))

    def reset(self, seed: int | None = None) -> None:
        """Start the noise anew: the same seed and the same samples give the same actions."""
        self._generator.manual_seed(self.options.seed if seed is None else seed)

    def warm_up(self, sample: Sample, rounds: int = 2) -> int:
        """Run every shape of input that instructions can lead to. Returns their number.

        Raises InputError when the sample does not fit the policy.
        """
        samples = {}
        for words in _WARM_WORDS:
            longer = Sample(sample.images, sample.state, " ".join(["go"] * words))
            try:
                with _without_warnings():  # some of these prompts are longer than the policy takes
                    samples.setdefault(shapes_of(self.processor.inputs([longer])), longer)
            except InputError:
                if not samples:
                    raise
                break
        for each in samples.values():
            for _ in range(rounds):
                self.infer(each)
        self.reset()
        return len(samples)

    def infer(self, sample: Sample, prior: Prior | None = None, noise: Tensor | None = None) -> Inference:
        """A chunk for one sample.

        Args:
            prior: with (1, H, D) actions and (1, H) weights on any device; needs the option `guided`.
            noise: (1, H, D), in place of the session's own.

        Raises:
            InputError: the sample does not fit, or the policy answered with numbers that are not finite.
        """
        begin = time.perf_counter()
        batch = self.processor.inputs([sample])
        mode = torch.no_grad() if self.options.exact_guidance else torch.inference_mode()
        with mode:
            if noise is None:
                self._noise.normal_(generator=self._generator)
            else:
                self._noise.copy_(noise)
            timer = StageTimer(self.device)
            result = self._network.run(batch, self._noise, self._with_options(prior), timer)
            normalised = result[0].to("cpu", torch.float32, copy=True)  # the one wait for the device
        prefix_time, denoise_time = timer.seconds()
        targets = self.processor.outputs(normalised[None], [sample])[0]
        actions = targets.joint_positions(self.processor.joints, sample.state[-1])
        if not np.isfinite(actions).all():
            row, column = np.argwhere(~np.isfinite(actions))[0]
            joint = self.processor.joints[column]
            raise InputError(f"policy: row {row} of joint {joint} is {actions[row, column]}, expected a finite number")
        if not isinstance(self.policy, DenoisingPolicy):
            prefix_time, denoise_time = 0.0, prefix_time + denoise_time
        return Inference(actions, normalised, prefix_time, denoise_time, time.perf_counter() - begin)

    def _with_options(self, prior: Prior | None) -> Prior | None:
        if not self.options.guided:
            if prior is not None:
                raise ValueError("a prior needs the session option `guided`")
            return None
        if prior is None:
            if not self.recorded:
                return None
            zeros = torch.zeros(self._action_shape, device=self.device)
            return self._prior(zeros, zeros[..., 0])
        return self._prior(prior.actions.to(self.device), prior.weights.to(self.device).expand(1, -1))

    def _prior(self, actions: Tensor, weights: Tensor) -> Prior:
        return Prior(actions, weights, self.options.exact_guidance, self.options.max_guidance)
