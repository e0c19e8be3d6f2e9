"""A policy that learns to answer in few denoising steps what it answers in many.

Luhman and Luhman 2021, "Knowledge Distillation in Iterative Generative Models": from the same noise, the policy's
actions in few steps come near those of the checkpoint that it began as. What is learned is one answer for each noise,
no mean of several, so a policy that can do a thing in two ways still does it in one of them.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Batch, Policy


def distilling(policy: Policy, steps: int) -> Callable[[Batch], dict[str, Tensor]]:
    """The loss of a policy that is to answer in `steps` denoising steps what it answers now.

    It is the mean squared difference of (B, H, D) normalised actions from the same noise. The policy's configuration
    says `steps` from here on; what it answers now is kept in a copy.

    Raises:
        InputError: for a policy that does not denoise, that remembers, that was trained to continue a chunk, or that
            takes no more steps than that already.
    """
    known = {field.name for field in fields(policy.config)} & {"num_steps", "num_inference_steps"}
    if not known or set(policy.draws(1)) != {"noise"}:
        raise InputError(f"distill {steps}: {type(policy).__name__} has no denoising steps that can be made fewer")
    if policy.begin(1) is not None:
        raise InputError(f"distill {steps}: {type(policy).__name__} remembers; expected a policy that does not")
    if getattr(policy, "trained_rows", 0):
        raise InputError(f"distill {steps}: {type(policy).__name__} was trained to continue a chunk (executed_rows), "
                         "which its answers alone do not teach; expected one that was not")
    if steps >= policy.config.num_steps:
        raise InputError(f"distill {steps}: expected fewer steps than the {policy.config.num_steps} of the start "
                         "checkpoint")
    teacher = deepcopy(policy).eval().requires_grad_(False)
    policy.config = replace(policy.config, **dict.fromkeys(known, steps))

    def loss(batch: Batch) -> dict[str, Tensor]:
        actions = batch["actions"]
        draws = {"noise": torch.randn(policy.draws(len(actions))["noise"], device=actions.device)}
        with torch.no_grad():
            wanted = teacher.act(teacher.encode(batch), draws, teacher.prepare()).actions
        actions = policy.act(policy.encode(batch), draws, policy.prepare()).actions
        return {"loss": (actions - wanted).square().mean()}

    return loss
