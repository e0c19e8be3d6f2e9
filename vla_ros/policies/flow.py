"""Flow matching: the velocity's error in training, Euler steps from noise to actions at inference. If a chunk is
running, the steps are guided towards it, or continue its rows if the policy was trained to.

Time runs from 1 (noise) to 0 (actions), and the network's velocity is noise - actions, as in openpi and LeRobot.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vla_ros.core.errors import InputError
from vla_ros.core.records import Range, Rows
from vla_ros.policies.policy import Answer, Batch, Context, Draws, Fixed, Policy, Steer, Traits

POWERS, SCALE, OFFSET = (1.5, 1.0), 0.999, 0.001  # of the times of training
Velocity = Callable[[Tensor, int], Tensor]  # (B, H, D) noisy actions and the number of the step -> (B, H, D)

# Weights of guidance after the frozen rows, as a function of c, which falls linearly from 1 to 0.
SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": lambda c: c * torch.expm1(c) / math.expm1(1.0), "linear": lambda c: c, "ones": torch.ones_like,
    "zeros": torch.zeros_like,
}


@dataclass(frozen=True)
class Guidance:
    """How the running chunk guides the next one.

    Attributes:
        schedule: of the weights after the frozen rows, a key of `SCHEDULES`.
        horizon: largest number of rows of the running chunk that are used; None: all that overlap.
        maximum: the bound β of the guidance weight, if the session sets none.
        trained_rows: largest number of first rows that were given in training, as rows that are already executed; they
            replace guidance, and `maximum` has no effect. 0: none.
    """

    schedule: str = "exp"
    horizon: Rows | None = None
    maximum: Annotated[float, Range(0, 1e6)] = 5.0
    trained_rows: Annotated[int, Range(0, 10_000)] = 0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InputError(f"guidance: schedule {self.schedule!r}, expected one of {sorted(SCHEDULES)}")

    def check(self, horizon: int) -> None:
        """Raises InputError if `trained_rows` could be all of the `horizon` rows of a chunk."""
        if self.trained_rows >= horizon:
            raise InputError(f"guidance: trained_rows {self.trained_rows}, expected fewer than the {horizon} rows of a "
                             "chunk")


USUAL = Guidance()


class FlowPolicy(Policy):
    """A policy whose network predicts the velocity noise - actions of (B, H, D) noisy actions at a time.

    `prepare` computes what depends only on the times of the steps; `config.num_steps` is their default number, and
    `config.guidance`, if present, how the running chunk guides the next one.

    Attributes:
        time_draw: (a, b), scale, offset of the times in training: scale · Beta(a, b) + offset, more of them near 1.
    """

    traits = Traits(guidance=("prior", "exact"))
    compiled = ("encode", "velocity")
    time_draw: tuple[tuple[float, float], float, float] = POWERS, SCALE, OFFSET

    @abstractmethod
    def step_constants(self, time: Tensor) -> Fixed:
        """What depends on (N,) times; its `len` is N, and a slice of it belongs to these times.

        If `config.guidance` has `trained_rows`, every tensor in it is (N, 1, width), or (N, H, width) for (N, H)
        times, one for each row.
        """

    @abstractmethod
    def velocity(self, ready: Any, noisy: Tensor, constants: Fixed) -> Tensor:
        """noise - actions, (B, H, D), with the constants of one time or of B."""

    def ready(self, context: Context) -> Any:
        """The context in the form that the steps of one `act` use."""
        return context

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"noise": (size, self.config.horizon, self.config.action_dim)}

    @property
    def trained_rows(self) -> int:
        return getattr(self.config, "guidance", USUAL).trained_rows

    def require_guidance(self, form: str) -> None:
        super().require_guidance(form)
        if form == "exact" and self.trained_rows:
            raise InputError(f"real-time chunking, guidance 'exact': this {type(self).__name__} was trained to "
                             "continue a chunk, which takes no guidance; leave it out")

    def prepare(self, num_steps: int | None = None) -> Fixed:
        """Constants of each step and, last, those of given rows, if there are any."""
        steps = times(num_steps or self.config.num_steps, next(self.parameters()).device)
        return self.step_constants(torch.cat([steps, steps.new_zeros(1)]) if self.trained_rows else steps)

    def act(
        self, context: Context, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None
    ) -> Answer:
        """Actions (B, H, D) from the noise (B, H, D), in a fixed number of steps that never wait for the device."""
        constants, ready = self.prepare() if fixed is None else fixed, self.ready(context)
        if self.trained_rows and steer is not None:
            return Answer(self._continued(ready, draws["noise"], constants, steer))

        def velocity(x: Tensor, step: int) -> Tensor:
            return self.velocity(ready, x, constants[step : step + 1])

        guidance, num_steps = getattr(self.config, "guidance", USUAL), len(constants) - bool(self.trained_rows)
        return Answer(sample(velocity, draws["noise"], num_steps, steer, guidance))

    def _continued(self, ready: Any, noise: Tensor, constants: Fixed, steer: Steer) -> Tensor:
        """Actions (B, H, D) whose first rows are those of the running chunk: at every step the network gets them
        without noise, at the time of clean actions, and the other rows at the time of the step.

        Black, Ren, Equi, Levine 2025, "Training-Time Action Conditioning for Efficient Real-Time Chunking". At most as
        many rows as in training are given; the rows after them are new.
        """
        rows = torch.minimum(steer.frozen, steer.overlap).clamp(max=self.trained_rows)
        given = (torch.arange(noise.shape[1], device=noise.device) < rows[:, None])[..., None]
        target, num_steps = steer.actions.to(noise.dtype), len(constants) - 1
        at_zero = constants[num_steps : num_steps + 1]

        def mixed(zero: Any, now: Any) -> Any:
            return torch.where(given, zero, now) if isinstance(now, Tensor) else now

        def velocity(x: Tensor, step: int) -> Tensor:
            now = pytree.tree_map(mixed, at_zero, constants[step : step + 1])
            return self.velocity(ready, torch.where(given, target, x), now)

        return torch.where(given, target, sample(velocity, noise, num_steps))

    def denoise(self, context: Context, noisy: Tensor, time: Tensor) -> Tensor:
        """The velocity, (B, H, D), at (B,), (1,) or (B, H) times."""
        return self.velocity(self.ready(context), noisy, self.step_constants(time))

    def element_loss(
        self, batch: Batch, noise: Tensor | None = None, time: Tensor | None = None, given: Tensor | None = None
    ) -> Tensor:
        """(B, H, D) squared error of the velocity at x = t · noise + (1 - t) · actions; arguments that are None are
        drawn.

        For the `given` (B,) first rows, 0 to `trained_rows`, t is 0 and the error is 0; that of the other rows is
        scaled so that the mean over all rows is the mean over these.
        """
        actions = batch["actions"]
        noise = torch.randn_like(actions) if noise is None else noise
        time = self.draw_time(actions) if time is None else time
        counted = None
        if self.trained_rows:
            if given is None:
                given = torch.randint(self.trained_rows + 1, (len(actions),), device=actions.device)
            counted = torch.arange(actions.shape[1], device=actions.device) >= given[:, None]
            time = time[:, None] * counted
        noisy = noisy_at(actions, noise, time)
        error = (self.denoise(self.encode(batch), noisy, time) - (noise - actions)).square()
        return error if counted is None else error * (counted / counted.float().mean())[..., None]

    def draw_time(self, actions: Tensor) -> Tensor:
        """(B,) times in (0, 1]."""
        return draw_time(actions, *self.time_draw)


def continuing(policy: Policy, rows: int) -> None:
    """Give up to `rows` first rows in training, see `Guidance.trained_rows`. Raises InputError if that is not
    possible."""
    if not isinstance(getattr(policy.config, "guidance", None), Guidance):
        raise InputError(f"executed_rows {rows}: {type(policy).__name__} cannot be trained to continue a chunk, "
                         "expected π0, π0.5 or SmolVLA; leave it out")
    policy.config = replace(policy.config, guidance=replace(policy.config.guidance, trained_rows=rows))


def draw_time(
    actions: Tensor, powers: tuple[float, float] = POWERS, scale: float = SCALE, offset: float = OFFSET
) -> Tensor:
    """(B,) times in (0, 1] for B actions: scale · Beta(powers) + offset."""
    a, b = torch.tensor(powers, device=actions.device)
    return torch.distributions.Beta(a, b).sample((len(actions),)) * scale + offset


def noisy_at(actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """t · noise + (1 - t) · actions, (B, H, D), at (B,) or (B, H) times."""
    t = time.reshape(len(time), -1, 1)
    return t * noise + (1 - t) * actions


def times(num_steps: int, device: torch.device) -> Tensor:
    """(num_steps,) float32 times of the steps: 1, ... down to 1 / num_steps.

    Rounded once, from float64, as in the published loops: the fastest time feature has 250 periods in [0, 1], so a
    rounding error in the last digit of a time would change the sixth digit of the actions.
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
    """Actions (B, H, D) from noise (B, H, D) in a fixed number of steps; it never waits for the device."""
    x = noise
    weights = None if steer is None else prior_weights(steer, noise.shape[1], guidance).to(noise.dtype)
    for step in range(num_steps):
        time = 1 - step / num_steps
        v = velocity(x, step) if steer is None else guided(velocity, x, step, time, steer, weights)
        x = torch.sub(x, v, alpha=1 / num_steps)
    return x


def guided(velocity: Velocity, x: Tensor, step: int, time: float, steer: Steer, weights: Tensor) -> Tensor:
    """The velocity (B, H, D), corrected so that the resulting actions agree with the running chunk, as strongly as the
    (B, H, 1) weights say.

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
