"""A planner: it improves the plan that it carries, by candidates that it draws and a value that it has learned."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foreign_policies.parts import Look, Sizes, mean_error
from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Answer, Batch, Draws, Policy, Traits, tensors
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.registry import Family


@dataclass(frozen=True)
class PlannerSizes(Sizes):
    """`candidates` (N) in each of `rounds`; `rate`: how fast the target network follows."""

    candidates: int = 16
    rounds: int = 2
    rate: float = 0.1


@tensors
class Plan:
    """The last answer, (B, H, D) float32, and whether there was one, (B,) bool."""

    actions: Tensor
    known: Tensor


@tensors
class Scene:
    """What the world is like, drawn from what is believed of it, (B, W); and the plan, moved on to now."""

    world: Tensor
    plan: Plan


class PlannerPolicy(Policy):
    traits = Traits(paced=True)

    def __init__(self, config: PlannerSizes) -> None:
        super().__init__()
        self.config, size = config, config.horizon * config.action_dim
        self.look, self.spread = Look(config), nn.Linear(config.width, config.width)
        self.habit = nn.Linear(config.width, size)
        self.value = nn.Sequential(nn.Linear(config.width + size, config.width), nn.ReLU(), nn.Linear(config.width, 1))
        self.slow_value = deepcopy(self.value).requires_grad_(False)

    def prepare(self, num_steps: int | None = None) -> Tensor:
        """(R,) float32, how far the candidates of each round spread."""
        rounds = self.config.rounds if num_steps is None else num_steps
        if rounds < 1:
            raise InputError(f"num_steps {rounds}, expected at least 1")
        return 0.5 / torch.arange(1, rounds + 1, device=self.habit.weight.device)

    def begin(self, size: int) -> Plan:
        shape, device = (size, self.config.horizon, self.config.action_dim), self.habit.weight.device
        return Plan(torch.zeros(shape, device=device), torch.zeros(size, dtype=torch.bool, device=device))

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        c = self.config
        return {"world": (size, c.width), "candidates": (size, c.candidates, c.horizon, c.action_dim)}

    def encode(self, batch: Batch, memory: Plan, draws: Draws) -> Scene:
        rows = torch.arange(self.config.horizon, device=memory.actions.device) + batch["elapsed"][:, None]
        rows = rows.clamp(max=self.config.horizon - 1)[..., None].expand_as(memory.actions)
        return Scene(self.world(batch, draws["world"]), Plan(memory.actions.gather(1, rows), memory.known.clone()))

    def world(self, batch: Batch, draw: Tensor) -> Tensor:
        seen = self.look(batch)
        return seen + 0.1 * torch.sigmoid(self.spread(seen)) * draw.to(seen.dtype)

    def act(self, context: Scene, draws: Draws, fixed: Tensor | None = None, steer=None) -> Answer:
        world, plan = context.world, context.plan
        mean = self.habit(world).float().unflatten(1, plan.actions.shape[1:])
        mean = torch.where(plan.known[:, None, None], (mean + plan.actions) / 2, mean)
        for spread in (self.prepare() if fixed is None else fixed).unbind(0):
            tried = mean[:, None] + spread * draws["candidates"]
            worth = self.worth(self.value, world[:, None].expand(-1, tried.shape[1], -1), tried)
            mean = (worth.softmax(1)[:, :, None, None] * tried).sum(1)
        return Answer(mean, Plan(mean, torch.ones_like(plan.known)))

    def worth(self, value: nn.Module, world: Tensor, actions: Tensor) -> Tensor:
        """(..., W) and (..., H, D) to (...) float32."""
        return value(torch.cat([world, actions.flatten(-2).to(world.dtype)], dim=-1))[..., 0].float()

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        actions = batch["actions"]
        world = self.world(batch, draws["world"] if "world" in draws else torch.randn_like(self.look(batch)))
        habit = mean_error(self.habit(world).unflatten(1, actions.shape[1:]), batch)
        tried = actions + (draws["tried"] if "tried" in draws else torch.randn_like(actions)) / 2
        world, error = world.detach(), (tried - actions).square().mean(dim=(1, 2))
        aim = 0.5 * self.worth(self.slow_value, world, actions) - error
        value = (self.worth(self.value, world, tried) - aim).square().mean()
        return {"habit": habit, "value": value}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        habit = [*self.look.parameters(), *self.spread.parameters(), *self.habit.parameters()]
        return {"habit": habit, "value": list(self.value.parameters())}

    def updated(self) -> None:
        for slow, fast in zip(self.slow_value.parameters(), self.value.parameters(), strict=True):
            slow.data.lerp_(fast.data, self.config.rate)


FAMILY = Family("planner", PlannerSizes, PlannerPolicy, StandardProcessor, title="planner")
