"""Flow matching at inference: Euler steps from noise to actions, guided towards a prior where there is one.

Time runs from 1 (noise) to 0 (actions), and the network's velocity is noise - actions, as in openpi and LeRobot.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vla_ros.policies.policy import Prior

Velocity = Callable[[Tensor, int], Tensor]  # (B, H, D) noisy actions and the number of the step -> (B, H, D)


def times(num_steps: int, device: torch.device) -> Tensor:
    """(num_steps,) float32 times of the steps: 1, ... down to 1 / num_steps.

    Rounded once, from float64, as in the published loops: the fastest time feature turns 250 times over [0, 1], so an
    error in the last place of a time would be seen in the sixth of the actions.
    """
    step = torch.arange(num_steps, device=device, dtype=torch.float64)
    return (1 - step * (1 / num_steps)).float()


def sample(velocity: Velocity, noise: Tensor, num_steps: int, prior: Prior | None = None) -> Tensor:
    """Actions (B, H, D) from noise (B, H, D) in a fixed number of steps; nothing waits for the device."""
    x = noise
    for step in range(num_steps):
        time = 1 - step / num_steps
        v = velocity(x, step) if prior is None else guided(velocity, x, step, time, prior)
        x = x - v / num_steps
    return x


def guided(velocity: Velocity, x: Tensor, step: int, time: float, prior: Prior) -> Tensor:
    """The velocity, corrected so that the actions it leads to agree with the prior where its weights ask for it.

    Black, Galliker, Levine 2025, "Real-Time Execution of Action Chunking Flow Policies", with time reversed: from the
    estimate Â = x - t v of the actions, v ← v - min(β, (t² + (1-t)²) / (t (1-t))) g. Exactly, g is the
    vector-Jacobian product of Â with respect to x applied to W (Y - Â); without the Jacobian, which costs a backward
    pass, it is W (Y - Â) itself.
    """
    target = prior.actions.to(x.dtype)
    weights = prior.weights.to(x.dtype).expand(x.shape[:2])[..., None]
    strength = prior.max_guidance
    if time < 1:
        strength = min(strength, (time**2 + (1 - time) ** 2) / (time * (1 - time)))
    if prior.exact:
        with torch.enable_grad():
            start = x.detach().requires_grad_()
            v = velocity(start, step)
            estimate = start - time * v
            error = (weights * (target - estimate)).detach()
            (g,) = torch.autograd.grad(estimate, start, error)
        v = v.detach()
    else:
        v = velocity(x, step)
        g = weights * (target - (x - time * v))
    return v - strength * g
