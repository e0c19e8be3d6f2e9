"""Flow matching: the velocity's error in training, Euler steps from noise to actions at inference, guided towards a
running chunk where there is one.

Time runs from 1 (noise) to 0 (actions), and the network's velocity is noise - actions, as in openpi and LeRobot.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.records import Range, Rows
from vla_ros.policies.policy import Answer, Batch, Context, Draws, Fixed, Policy, Steer, Traits

POWERS, SCALE, OFFSET = (1.5, 1.0), 0.999, 0.001  # of the times of training
Velocity = Callable[[Tensor, int], Tensor]  # (B, H, D) noisy actions and the number of the step -> (B, H, D)

# How the weights of guidance go on behind the frozen rows, as a function of c, which falls evenly from 1 to 0.
SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": lambda c: c * torch.expm1(c) / math.expm1(1.0), "linear": lambda c: c, "ones": torch.ones_like,
    "zeros": torch.zeros_like,
}


@dataclass(frozen=True)
class Guidance:
    """How the running chunk draws the next one.

    Attributes:
        schedule: of the weights behind the frozen rows, a key of `SCHEDULES`.
        horizon: rows of the running chunk that count at most; None: all that overlap.
        maximum: the bound β of the guidance weight, where the session is given none.
    """

    schedule: str = "exp"
    horizon: Rows | None = None
    maximum: Annotated[float, Range(0, 1e6)] = 5.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InputError(f"guidance: schedule {self.schedule!r}, expected one of {sorted(SCHEDULES)}")


USUAL = Guidance()


class FlowPolicy(Policy):
    """A policy whose network predicts the velocity noise - actions of (B, H, D) noisy actions at a time.

    `prepare` computes what depends on the times of the steps alone; `config.num_steps` is their usual number, and
    `config.guidance`, where there is one, how the running chunk draws the next.

    Attributes:
        time_draw: (a, b), scale, offset of the times of training: scale · Beta(a, b) + offset, more of them near 1.
    """

    traits = Traits(guidance=("prior", "exact"))
    compiled = ("encode", "velocity")
    time_draw: tuple[tuple[float, float], float, float] = POWERS, SCALE, OFFSET

    @abstractmethod
    def step_constants(self, time: Tensor) -> Fixed:
        """What (N,) times decide; `len` is N, and a slice of it is for these times."""

    @abstractmethod
    def velocity(self, ready: Any, noisy: Tensor, constants: Fixed) -> Tensor:
        """noise - actions, (B, H, D), with the constants of one time or of B."""

    def ready(self, context: Context) -> Any:
        """The context as the steps of one `act` read it."""
        return context

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"noise": (size, self.config.horizon, self.config.action_dim)}

    def prepare(self, num_steps: int | None = None) -> Fixed:
        return self.step_constants(times(num_steps or self.config.num_steps, next(self.parameters()).device))

    def act(
        self, context: Context, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None
    ) -> Answer:
        """Actions (B, H, D) from the noise (B, H, D): a fixed number of steps, nothing that waits for the device."""
        constants, ready = self.prepare() if fixed is None else fixed, self.ready(context)

        def velocity(x: Tensor, step: int) -> Tensor:
            return self.velocity(ready, x, constants[step : step + 1])

        guidance = getattr(self.config, "guidance", USUAL)
        return Answer(sample(velocity, draws["noise"], len(constants), steer, guidance))

    def denoise(self, context: Context, noisy: Tensor, time: Tensor) -> Tensor:
        """The velocity, (B, H, D), at (B,) or (1,) times."""
        return self.velocity(self.ready(context), noisy, self.step_constants(time))

    def element_loss(self, batch: Batch, noise: Tensor | None = None, time: Tensor | None = None) -> Tensor:
        """(B, H, D) squared error of the velocity at x = t · noise + (1 - t) · actions; draws what is not given."""
        actions = batch["actions"]
        noise = torch.randn_like(actions) if noise is None else noise
        time = self.draw_time(actions) if time is None else time
        noisy = noisy_at(actions, noise, time)
        return (self.denoise(self.encode(batch), noisy, time) - (noise - actions)).square()

    def draw_time(self, actions: Tensor) -> Tensor:
        """(B,) times in (0, 1]."""
        return draw_time(actions, *self.time_draw)


def draw_time(
    actions: Tensor, powers: tuple[float, float] = POWERS, scale: float = SCALE, offset: float = OFFSET
) -> Tensor:
    """(B,) times in (0, 1] for B actions: scale · Beta(powers) + offset."""
    a, b = torch.tensor(powers, device=actions.device)
    return torch.distributions.Beta(a, b).sample((len(actions),)) * scale + offset


def noisy_at(actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """t · noise + (1 - t) · actions, (B, H, D), at (B,) times."""
    t = time[:, None, None]
    return t * noise + (1 - t) * actions


def times(num_steps: int, device: torch.device) -> Tensor:
    """(num_steps,) float32 times of the steps: 1, ... down to 1 / num_steps.

    Rounded once, from float64, as in the published loops: the fastest time feature turns 250 times over [0, 1], so an
    error in the last place of a time would be seen in the sixth of the actions.
    """
    step = torch.arange(num_steps, device=device, dtype=torch.float64)
    return (1 - step * (1 / num_steps)).float()


def prior_weights(steer: Steer, horizon: int, guidance: Guidance = USUAL) -> Tensor:
    """(B, H, 1) float32 guidance weights: 1 for frozen rows, then as scheduled, 0 from the overlap's end on.

    With d = `frozen`, E = `overlap` and c = (E - i) / (E - d + 1) for d <= i < E: W_i = c (e^c - 1) / (e - 1) where it
    falls exponentially, c where it falls linearly.
    """
    rows = torch.arange(horizon, device=steer.overlap.device, dtype=torch.float64)
    overlap = steer.overlap.clamp(max=guidance.horizon or horizon)[:, None].double()
    frozen = torch.minimum(steer.frozen[:, None].double(), overlap)
    c = ((overlap - rows) / (overlap - frozen + 1)).clamp(0, 1)
    weights = torch.where(rows < frozen, 1.0, SCHEDULES[guidance.schedule](c))
    return torch.where(rows < overlap, weights, 0.0).float()[..., None]


def sample(
    velocity: Velocity, noise: Tensor, num_steps: int, steer: Steer | None = None, guidance: Guidance = USUAL
) -> Tensor:
    """Actions (B, H, D) from noise (B, H, D) in a fixed number of steps; nothing waits for the device."""
    x = noise
    weights = None if steer is None else prior_weights(steer, noise.shape[1], guidance).to(noise.dtype)
    for step in range(num_steps):
        time = 1 - step / num_steps
        v = velocity(x, step) if steer is None else guided(velocity, x, step, time, steer, weights)
        x = torch.sub(x, v, alpha=1 / num_steps)
    return x


def guided(velocity: Velocity, x: Tensor, step: int, time: float, steer: Steer, weights: Tensor) -> Tensor:
    """The velocity (B, H, D), corrected so that the actions it leads to agree with the running chunk where the
    (B, H, 1) weights ask for it.

    Black, Galliker, Levine 2025, "Real-Time Execution of Action Chunking Flow Policies", with time reversed: from the
    estimate Â = x - t v of the actions, v ← v - min(β, (t² + (1-t)²) / (t (1-t))) g. Exactly, g is the
    vector-Jacobian product of Â with respect to x applied to W (Y - Â); without the Jacobian, which costs a backward
    pass, it is W (Y - Â) itself.
    """
    target = steer.actions.to(x.dtype)
    strength = steer.max_guidance
    if time < 1:
        strength = min(strength, (time**2 + (1 - time) ** 2) / (time * (1 - time)))
    if steer.exact:
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
