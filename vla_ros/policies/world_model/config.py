"""What a policy that plans is made of."""

from dataclasses import dataclass
from typing import Annotated

from vla_ros.core.errors import InputError
from vla_ros.core.records import Cameras, Count, Dimensions, Pixels, Range, Rows, Width
from vla_ros.policies.world_model.rssm import KINDS

PLANNERS = ("cem", "mppi", "random_shooting", "none")
ENCODERS = ("keypoint_stem", "convolutions")
UNJUDGED = ("", "success", "failure")
LARGEST_PLAN = 4096  # numbers
Scale = Annotated[float, Range(0, 1e6)]


@dataclass(frozen=True)
class WorldModelConfig:
    """Sizes of the model, and how it plans.

    Attributes:
        vocabulary: words of the instructions.
        image: side of the square images, pixels; each of `channels` halves it in decoder and convolutions.
        encoder: "keypoint_stem", which locates what the instruction names, or "convolutions".
        embedding: width of what is seen of a step; `words`: of an instruction.
        rssm: "gaussian", or "two_cells" without a stochastic part; with the widths `deterministic`, `stochastic` and
            `hidden`.
        window: L, steps that are seen one after the other in training. On the robot the belief begins anew after as
            many: it is never of more steps than it was in training.
        horizon: H, rows of a plan.
        components: K, directions in which plans differ, the main ones of the data.
        plans: candidates that training imagines from each step: what was demonstrated, and others.
        discount: of a step towards the end.
        tolerance: distance from what was demonstrated at which a candidate is worth half, in the deviations of the
            data, root mean square over a row.
        kl_scale, free_nats: of the divergence between what was expected and found.
        ensemble: models of the latent dynamics, whose disagreement times `doubt` is taken off a plan's worth; 0: none.
        unjudged: "success" or "failure" where a dataset does not say how an episode ended; "": that is an error.
        planner: "cem" (de Boer et al. 2005), "mppi" (Williams et al. 2017), "random_shooting", or "none", which draws
            a plan from the data's distribution and asks no model.
        candidates: N plans of a round; `rounds`: of them; `elites`: of those, from which cem goes on.
        temperature: of mppi, in the deviation of the candidates' worth.
    """

    action_dim: Annotated[int, Range(1, 10_000)]
    state_dim: Annotated[int, Range(1, 10_000)]
    cameras: Cameras
    vocabulary: tuple[str, ...]
    image: Pixels = 64
    encoder: str = "keypoint_stem"
    channels: Annotated[tuple[Width, ...], Range(1, 6)] = (16, 32, 64, 64)
    embedding: Width = 256
    words: Width = 64
    rssm: str = "gaussian"
    deterministic: Width = 256
    stochastic: Width = 32
    hidden: Width = 512
    window: Count = 4
    horizon: Rows = 12
    components: Count = 8
    plans: Annotated[int, Range(2, 1000)] = 4
    discount: Annotated[float, Range(0.01, 1)] = 0.95
    tolerance: Annotated[float, Range(1e-3, 1e3)] = 0.2
    kl_scale: Scale = 1e-3
    free_nats: Scale = 3.0
    ensemble: Dimensions = 0
    doubt: Scale = 0.1
    unjudged: str = ""
    planner: str = "cem"
    candidates: Count = 64
    rounds: Annotated[int, Range(1, 100)] = 3
    elites: Count = 8
    temperature: Annotated[float, Range(1e-3, 1e3)] = 0.5

    n_obs_steps = 1
    past = property(lambda self: self.window - 1)
    image_size = property(lambda self: (self.image, self.image))

    def __post_init__(self) -> None:
        for name, known in (("planner", PLANNERS), ("encoder", ENCODERS), ("unjudged", UNJUDGED), ("rssm", (*KINDS,))):
            if getattr(self, name) not in known:
                raise InputError(f"world_model: {name} {getattr(self, name)!r}, expected one of {known}")
        if not self.cameras or not self.vocabulary:
            raise InputError(f"world_model: {len(self.cameras)} cameras, {len(self.vocabulary)} words of instructions; "
                             "expected one or more of each")
        if self.image % (multiple := 2 ** max(4, len(self.channels))):
            raise InputError(f"world_model: image {self.image}, expected a multiple of {multiple}")
        if self.horizon * self.action_dim > LARGEST_PLAN:
            raise InputError(f"world_model: horizon {self.horizon} x {self.action_dim} numbers of an action, expected "
                             f"at most {LARGEST_PLAN}")
        if self.components > self.horizon * self.action_dim:
            raise InputError(f"world_model: components {self.components}, expected at most "
                             f"{self.horizon * self.action_dim}, the numbers of a plan")
        if self.elites > self.candidates:
            raise InputError(f"world_model: elites {self.elites}, expected at most candidates {self.candidates}")
        if self.ensemble > 100:
            raise InputError(f"world_model: ensemble {self.ensemble}, expected at most 100")

    def summary(self) -> dict[str, str]:
        """Rows for `vla-ros info`."""
        drawn = f", {self.stochastic} drawn" if self.rssm == "gaussian" else ""
        search = f"{self.planner}, {self.rounds} x {self.candidates} plans" if self.planner != "none" else "none"
        return {
            "vision": self.encoder,
            "world model": f"{self.rssm}, {self.deterministic} deterministic{drawn}",
            "language": f"{len(self.vocabulary)} words",
            "planner": f"{search} of {self.horizon} rows",
            "denoising": "none",
        }
