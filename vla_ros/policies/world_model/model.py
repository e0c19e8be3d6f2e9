"""A policy that plans: it estimates the state of the world (a belief), predicts the effect of plans, and chooses the
plan with the highest value.

The value of a plan is learned from how episodes ended. Closeness to success at step k of an imagined plan is
discount ** (steps that the demonstration had left), times 1 / (1 + d² / tolerance²), where d is the distance of the
plan from the demonstrated one: demonstrations alone contain no failures, so plans that a planner would try beside them
are imagined in training. (Closeness to what an expert does, measured in imagination, as a reward: DeMoss et al. 2023,
https://arxiv.org/abs/2302.03086.)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.keypoint_stem import KeypointStem, KeypointStemSize, Standardised
from vla_ros.nn.words import WordEncoder
from vla_ros.policies.policy import Answer, Batch, Draws, Policy, Steer, Traits, tensors
from vla_ros.policies.robovlms.actions import chunks
from vla_ros.policies.world_model import planning
from vla_ros.policies.world_model.config import WorldModelConfig
from vla_ros.policies.world_model.dynamics import Ensemble
from vla_ros.policies.world_model.latent import Encoder, LatentWorldModel, WorldSize
from vla_ros.policies.world_model.planning import Plans, Proposal
from vla_ros.policies.world_model.rssm import Belief, divergence

WEIGHTS = {"closeness": 10.0, "reward": 1.0, "ending": 0.1, "reconstruction": 1.0, "joints": 1.0, "proposed": 1.0,
           "dynamics": 1e-3}


@tensors
class Remembered:
    """The belief after the last observation, the plan (B, H, D) of the last answer, and (B,) int64 steps of the belief;
    0: no observation yet."""

    belief: Belief
    plan: Tensor
    steps: Tensor


@tensors
class Scene:
    """The current belief with its (B,) int64 steps, the instruction (B, W), the action (B, D) that keeps the current
    position, the last plan (B, H, D) shifted to now, and (B,) bool whether there is one."""

    belief: Belief
    steps: Tensor
    words: Tensor
    here: Tensor
    plan: Tensor
    known: Tensor


class Eyes(nn.Module):
    """From images, joints and instruction of a step to its embedding."""

    def __init__(self, config: WorldModelConfig, size: WorldSize) -> None:
        super().__init__()
        if config.encoder == "keypoint_stem":
            grid = 3 if config.image % 24 == 0 else 2
            stem = KeypointStemSize(image=config.image, grid=grid)
            self.stem = KeypointStem(stem, len(config.cameras), config.words, 64)
            width = len(config.cameras) * stem.tokens * 64
        else:
            self.convolutions, width = Encoder(size), config.embedding
        read = width + config.state_dim + config.words
        self.join = nn.Sequential(nn.Linear(read, config.hidden), nn.LayerNorm(config.hidden), nn.ELU())
        self.out = nn.Linear(config.hidden, config.embedding)

    def forward(self, images: Tensor, state: Tensor, words: Tensor) -> Tensor:
        """(N, cameras, 3, image, image) in [-1, 1], (N, S) and (N, W) to (N, E)."""
        seen = self.stem(images, words).flatten(1) if hasattr(self, "stem") else self.convolutions(images)
        return self.out(self.join(torch.cat([seen, state, words], dim=-1)).to(self.out.weight.dtype)).float()


class Closeness(nn.Module):
    """(..., F) features to (...) in [0, 1]: a maximum, which decreases with the norm of a vector."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(features, hidden), nn.ELU(), nn.Linear(hidden, 1 + 16))

    def forward(self, features: Tensor) -> Tensor:
        out = self.net(features)
        return out[..., 0].sigmoid() / (1 + out[..., 1:].square().sum(dim=-1))


class WorldModel(Policy):
    """A batch contains
        images: (B, L, N, 3, image, image) uint8; L steps, oldest first, 1 when serving.
        state: (B, L, S) normalised; here: (B, L, D), the normalised action that keeps the robot's position.
        words: (B, W) word counts of the instruction.
    and in training, besides "actions" (B, L - 1 + H, D), from the window's first step on,
        remaining: (B,) int64, steps from the newest one to the last of the episode.
        success: (B,) float32, 1 if the episode succeeded, else 0.
    """

    config: WorldModelConfig
    traits = Traits(paced=True)
    # A search compares numbers that differ little; images are only inputs.
    float32 = (r"(?!world\.decoder\.|world\.encoder\.out\.)",)

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        size = WorldSize(
            config.action_dim, config.image, len(config.cameras), config.channels, config.embedding, config.rssm,
            config.deterministic, config.stochastic, config.hidden, config.words,
        )
        self.words = WordEncoder(len(config.vocabulary), config.words)
        self.standardised = Standardised(config.words)
        self.world = LatentWorldModel(size, Eyes(config, size))
        self.joints = nn.Linear(self.world.features, config.state_dim)
        self.closeness = Closeness(self.world.features + config.words, config.hidden)
        self.demonstrated = Plans(config.horizon * config.action_dim)
        self.propose = nn.Linear(self.world.features + config.words, config.components)
        if config.ensemble:
            sizes = {"state_dim": self.world.features, "action_dim": config.action_dim, "hidden": config.embedding}
            self.ensemble = Ensemble(config.ensemble, **sizes)

    def prepare(self, num_steps: int | None = None) -> Proposal:
        """`num_steps`: rounds of the search, overrides the config."""
        rounds = self.config.rounds if num_steps is None else num_steps
        if rounds < 1 or num_steps is not None and self.config.planner not in ("cem", "mppi"):
            return super().prepare(rounds)
        return self.demonstrated.proposal(self.config.components, rounds)

    def begin(self, size: int) -> Remembered:
        belief, config = self.world.rssm.begin(size), self.config
        plan = belief.h.new_zeros(size, config.horizon, config.action_dim)
        return Remembered(belief, plan, torch.zeros(size, dtype=torch.int64, device=plan.device))

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        c = self.config
        count = (c.rounds, c.candidates) if c.searches else (1, 1)
        return {"candidates": (size, *count, c.components)}

    def encode(self, batch: Batch, memory: Remembered, draws: Draws | None = None) -> Scene:
        """The current belief: continued, or started again after a gap and after as many steps as in training."""
        elapsed, kept = batch["elapsed"], memory.steps
        kept = torch.where((elapsed == 1) & (kept < self.config.window), kept, 0)
        last = Belief(*(rows * (kept > 0)[:, None] for rows in (memory.belief.h, memory.belief.s)))
        before = memory.plan[:, 0] * (kept > 0)[:, None]
        words = self.told(batch)
        belief, _, _ = self.world.rssm.update(last, before, self.seen(batch, words)[:, -1])
        rows = (torch.arange(self.config.horizon, device=elapsed.device) + elapsed[:, None])
        rows = rows.clamp(max=self.config.horizon - 1)[..., None].expand_as(memory.plan)
        known = (memory.steps > 0) & (elapsed < self.config.horizon)
        return Scene(belief, kept + 1, words, batch["here"][:, -1].clone(), memory.plan.gather(1, rows), known)

    def act(
        self, context: Scene, draws: Draws | None = None, fixed: Proposal | None = None, steer: Steer | None = None
    ) -> Answer:
        """(B, H, D)."""
        proposal = self.prepare() if fixed is None else fixed
        plan = self.plans(context.here, proposal, self.searched(context, proposal, draws["candidates"]))
        return Answer(plan, Remembered(context.belief, plan, context.steps))

    def searched(self, scene: Scene, proposal: Proposal, candidates: Tensor) -> Tensor:
        """(B, K) coefficients of the chosen plan, from (B, R, N, K) standard normal numbers."""
        config = self.config
        if config.planner == "none":
            return candidates[:, 0, 0]
        proposed = self.proposed(scene.belief.features, scene.words).clamp(-planning.MOST, planning.MOST)
        if config.planner == "proposed":
            return proposed
        last = proposal.coefficients((scene.plan - scene.here[:, None]).flatten(1))
        mean = torch.where(scene.known[:, None], (last + proposed) / 2, proposed)
        std = torch.full_like(mean, planning.FIRST)

        def worth(coefficients: Tensor) -> Tensor:
            plans = self.plans(scene.here[:, None], proposal, coefficients)
            return self.worth(scene.belief, scene.words, plans)

        if config.planner == "random_shooting":
            return planning.best(worth, last * scene.known[:, None], candidates.flatten(1, 2))
        if config.planner == "mppi":
            return planning.path_integral(worth, mean, std, candidates, proposal.least, config.temperature)
        return planning.cross_entropy(worth, mean, std, candidates, proposal.least, config.elites)

    def plans(self, here: Tensor, proposal: Proposal, coefficients: Tensor) -> Tensor:
        """Plans (..., H, D) from (..., K) coefficients, relative to (..., D)."""
        return here[..., None, :] + proposal.plan(coefficients).unflatten(-1, (self.config.horizon, -1))

    def proposed(self, features: Tensor, words: Tensor) -> Tensor:
        """(..., K) coefficients of the plan with which a search begins, from (..., F) of a belief and (..., W)."""
        return self.propose(torch.cat([features, words], dim=-1))

    def worth(self, belief: Belief, words: Tensor, plans: Tensor) -> Tensor:
        """(B, N) values of (B, N, H, D) plans: the mean over k of the expected return with rewards of k steps and the
        closeness after them, minus the doubt."""
        count, shape, config = plans.shape[1], plans.shape[:2], self.config
        start = Belief(*(rows.repeat_interleave(count, dim=0) for rows in (belief.h, belief.s)))
        features = self.world.rssm.imagine(start, plans.flatten(0, 1)).features
        read = torch.cat([features, _along(words.repeat_interleave(count, dim=0), features)], dim=-1)
        fade = config.discount ** torch.arange(1, config.horizon + 1, device=features.device)
        goes_on = self.world.continues(features).sigmoid().cumprod(dim=1)
        alive = fade * torch.cat([torch.ones_like(goes_on[:, :1]), goes_on[:, :-1]], dim=1)
        rewards = (alive * self.world.reward(read).clamp(0, 1)).cumsum(dim=1)
        before = torch.cat([torch.zeros_like(rewards[:, :1]), rewards[:, :-1]], dim=1)
        value = (before + alive * self.closeness(read)).mean(dim=1)
        if config.ensemble:
            known = torch.cat([start.features[:, None], features[:, :-1]], dim=1)
            value = value - config.doubt * self.ensemble(known, plans.flatten(0, 1)).epistemic.mean(dim=(1, 2))
        return value.unflatten(0, shape)

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """`draws`: "noise" (B, L, S) of the beliefs; of the imagined plans their noise "candidates"
        (plans - 1, B * L, K), its "share", how far they are on the "way" to another step's plan, and the number of that
        step, "other" (int64), each (plans - 1, B * L)."""
        batch = self._misled(batch) if self.training else batch
        steps, config, words = batch["state"].shape[1], self.config, self.told(batch)
        rows = chunks(batch["actions"], steps, config.horizon)  # (B, L, H, D)
        before = functional.pad(batch["actions"][:, : steps - 1], (0, 0, 1, 0))
        embeddings, start = self.seen(batch, words), self.world.rssm.begin(len(words))
        noise = draws.get("noise", embeddings.new_empty(*embeddings.shape[:2], start.s.shape[-1]).normal_())
        beliefs, prior, posterior = self.world.rssm.observe(start, before, embeddings, noise)
        ahead = torch.arange(steps - 1, -1 - config.horizon, -1, device=before.device)
        ahead = (batch["remaining"][:, None] + ahead).clamp(min=0)  # (B, L + H), steps left at each
        value = batch["success"][:, None] * config.discount**ahead
        terms = self._seen_again(batch, beliefs) | {"kl": divergence(posterior, prior, config.free_nats).mean()}
        judged = [self._judged(beliefs.features, words, value[:, :steps], ahead[:, :steps], batch["success"], 1.0)]
        each = Belief(beliefs.h.flatten(0, 1), beliefs.s.flatten(0, 1))
        tried, near, shown = self._tried(batch["here"].flatten(0, 1), rows.flatten(0, 1), draws)
        error = self.proposed(beliefs.features, _along(words, beliefs.features)) - shown.unflatten(0, (-1, steps))
        terms["proposed"] = (error.square().mean(dim=-1) * batch["success"][:, None]).mean()
        # (plans * B * L, H, ...), the plans of all steps as one batch
        features = self.world.rssm.imagine(
            Belief(*(one.repeat(config.plans, 1) for one in (each.h, each.s))), tried.flatten(0, 1)
        ).features
        after = [one.unfold(1, config.horizon, 1)[:, 1:].flatten(0, 1).repeat(config.plans, 1)
                 for one in (value, ahead)]
        told = [one.repeat_interleave(steps, dim=0).repeat(config.plans, *[1] * (one.dim() - 1))
                for one in (words, batch["success"])]
        judged.append(self._judged(features, told[0], *after, told[1], near.flatten(0, 1)))
        terms |= {name: judged[0][name] + judged[1][name] for name in judged[0]}
        if config.ensemble:
            known = beliefs.features.detach()
            terms["dynamics"] = self.ensemble.loss(known[:, :-1], before[:, 1:], known[:, 1:]).mean()
        weights = WEIGHTS | {"kl": config.kl_scale}
        return {"loss": sum(weights[name] * value for name, value in terms.items())} | terms

    def _misled(self, batch: Batch) -> Batch:
        """The batch with the instruction of another sample in some rows, which count as failures there: episodes of
        other tasks (Kalashnikov et al. 2021, https://arxiv.org/abs/2104.08212)."""
        words, success = batch["words"], batch["success"]
        other = words[torch.randperm(len(words), device=words.device)]
        wrong = (torch.rand_like(success) < self.config.misled) & (other != words).any(dim=1)
        return batch | {"words": torch.where(wrong[:, None], other, words), "success": success * ~wrong}

    def _judged(
        self, features: Tensor, words: Tensor, value: Tensor, left: Tensor, success: Tensor, near: Tensor | float
    ) -> dict[str, Tensor]:
        """Losses of the values of (N, T, F) features: (N, T) value and steps left, (N,) success, and `near`, the factor
        on them for the distance from the demonstration."""
        words, done = _along(words, features), (left == 0).float()
        reward, ending = self.world.judged(features, done * success[:, None] * near, done, words).mean(dim=(1, 2))
        error = (self.closeness(torch.cat([features, words], dim=-1)) - value * near).square().mean()
        return {"closeness": error, "reward": reward, "ending": ending}

    def _seen_again(self, batch: Batch, beliefs: Belief) -> dict[str, Tensor]:
        """Losses of joints decoded from beliefs, and of the newest step's images (decoding all would be slow); and the
        same for the steps that are imagined from the first belief."""
        found, state = [beliefs.features], batch["state"]
        if state.shape[1] > 1:
            first = Belief(beliefs.h[:, 0], beliefs.s[:, 0])
            found.append(self.world.rssm.imagine(first, batch["actions"][:, : state.shape[1] - 1]).features)
        images = scaled(batch["images"][:, -1])
        pictures = sum((self.world.decoder(rows[:, -1]) - images).square().mean() for rows in found)
        joints = sum((self.joints(rows) - state[:, -rows.shape[1] :]).square().mean() for rows in found)
        return {"reconstruction": pictures, "joints": joints}

    def _tried(self, here: Tensor, rows: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """(plans, N, H, D): the demonstrated plan of N steps, (N, H, D), plans near it and plans on the way to that of
        another step; the factor on the value of each of their rows, (plans, N, H); and the coefficients (N, K) of the
        demonstrated plan."""
        config = self.config
        shown = (rows - here[:, None]).flatten(1)
        if self.training:
            self.demonstrated.add(shown.detach())
        proposal, size = self.prepare(), (config.plans - 1, len(here))
        mine = proposal.coefficients(shown)
        noise = draws.get("candidates", shown.new_empty(*size, config.components).normal_())
        share, way = (draws.get(name, shown.new_empty(size).uniform_()) for name in ("share", "way"))
        other = draws.get("other", torch.randint(len(here), size, device=here.device))
        way = way * (torch.arange(size[0], device=here.device) % 2)[:, None]  # 0 for every second one
        drawn = mine + way[..., None] * (mine[other] - mine) + share[..., None] * noise
        tried = torch.cat([rows[None], self.plans(here, proposal, drawn)])
        distance = (tried - rows).square().mean(dim=-1)
        return tried, 1 / (1 + distance / config.tolerance**2), mine

    def told(self, batch: Batch) -> Tensor:
        """The instruction, (B, W), standardised: what sentences share would hide the one word that differs."""
        return self.standardised(self.words(batch["words"]))

    def seen(self, batch: Batch, words: Tensor) -> Tensor:
        """(B, L, E)."""
        steps = batch["state"].shape[1]
        told = words.repeat_interleave(steps, dim=0)
        found = self.world.encoder(scaled(batch["images"].flatten(0, 1)), batch["state"].flatten(0, 1), told)
        return found.unflatten(0, (-1, steps))


def scaled(images: Tensor) -> Tensor:
    """uint8 to [-1, 1]."""
    return images.float() / 127.5 - 1


def _along(words: Tensor, features: Tensor) -> Tensor:
    """(N, W) at each of T steps of (N, T, F)."""
    return words[:, None].expand(-1, features.shape[1], -1)
