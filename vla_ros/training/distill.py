"""Train a policy to give in few denoising steps the answers that it gives in many.

Luhman and Luhman 2021, "Knowledge Distillation in Iterative Generative Models": for the same noise, the policy's
actions in few steps are trained towards those of the start checkpoint. It learns one answer for each noise, not a mean
of several, so that a policy with two ways of doing something still chooses one of them.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Batch, Policy


def distilling(policy: Policy, steps: int) -> Callable[[Batch], dict[str, Tensor]]:
    """The loss of a policy that learns to give its present answers in `steps` denoising steps.

    It is the mean squared difference of (B, H, D) normalised actions from the same noise, over the robot's own
    dimensions: those that fill up to D were perhaps never trained. The policy's configuration has `steps` from here on;
    a copy gives the present answers.

    Raises:
        InputError: for a policy that does not denoise, has a memory, was trained to continue a chunk, or takes no more
            steps than that already.
    """
    known = {field.name for field in fields(policy.config)} & {"num_steps", "num_inference_steps"}
    if not known or set(policy.draws(1)) != {"noise"}:
        raise InputError(f"distill {steps}: {type(policy).__name__} has no denoising steps to reduce")
    if policy.begin(1) is not None:
        raise InputError(f"distill {steps}: {type(policy).__name__} has a memory; expected a policy without one")
    if getattr(policy, "trained_rows", 0):
        raise InputError(f"distill {steps}: {type(policy).__name__} was trained to continue a chunk (executed_rows), "
                         "which its answers alone do not teach; expected one that was not")
    if steps >= policy.config.num_steps:
        raise InputError(f"distill {steps}: expected fewer steps than the {policy.config.num_steps} of the start "
                         "checkpoint")
    teacher = deepcopy(policy).eval().requires_grad_(False)
    policy.config = config = replace(policy.config, **dict.fromkeys(known, steps))
    own = getattr(config, getattr(config, "own_dims", "action_width"), None)

    def loss(batch: Batch) -> dict[str, Tensor]:
        actions = batch["actions"]
        draws = {"noise": torch.randn(policy.draws(len(actions))["noise"], device=actions.device)}
        with torch.no_grad():
            wanted = teacher.act(teacher.encode(batch), draws, teacher.prepare()).actions
        actions = policy.act(policy.encode(batch), draws, policy.prepare()).actions
        return {"loss": (actions - wanted)[..., :own].square().mean()}

    return loss
