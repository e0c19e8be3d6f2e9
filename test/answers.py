"""What a policy answers to a made-up observation of the cameras and joints that its processor reads."""

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.chunk import Targets
from vla_ros.core.observation import Sample
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.registry import LoadedPolicy


def sample(processor: StandardProcessor, seed: int = 0, text: str = "touch the red cube") -> Sample:
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (1, 30, 40, 3), np.uint8) for name in processor.cameras}
    return Sample(images, rng.uniform(-0.2, 0.2, (1, len(processor.joints))), text)


def answered(loaded: LoadedPolicy, one: Sample) -> tuple[Tensor, Targets]:
    """The network's answer, with noise of seed 0, and what the processor makes of it."""
    torch.manual_seed(0)
    with torch.no_grad():
        answer = loaded.policy.predict(loaded.processor.inputs([one]))
    return answer, loaded.processor.outputs(answer, [one])[0]
