"""Configuration of a policy that plans."""

from dataclasses import dataclass
from typing import Annotated

from vla_ros.core.errors import InputError
from vla_ros.core.records import Cameras, Count, Dimensions, Pixels, Range, Rows, Width
from vla_ros.policies.world_model.rssm import KINDS

PLANNERS = ("cem", "mppi", "random_shooting", "proposed", "none")
ENCODERS = ("keypoint_stem", "convolutions")
UNJUDGED = ("", "success", "failure")
LARGEST_PLAN = 4096  # numbers
Scale = Annotated[float, Range(0, 1e6)]


@dataclass(frozen=True)
class WorldModelConfig:
    """Sizes of the model, and how it plans.

    Attributes:
        vocabulary: words of the instructions.
        image: side of the square images, pixels; each of `channels` halves it in convolutions and decoder.
        encoder: "keypoint_stem", which locates what the instruction names, or "convolutions".
        embedding: width of an encoded step; `words`: of an encoded instruction.
        rssm: "gaussian", or "two_cells" without a stochastic part; with the widths `deterministic`, `stochastic` and
            `hidden`.
        window: L, consecutive steps in training. On the robot the belief starts again after as many steps, so that it
            never covers more than in training.
        horizon: H, rows of a plan.
        components: K, number of principal directions of the data in which plans differ.
        plans: candidates that training imagines from each step: the demonstrated plan, and others.
        discount: factor per step that remains until the end.
        tolerance: distance from the demonstration at which a candidate has half its value, in the deviations of the
            data, root mean square over a row.
        misled: share of samples that training shows with the instruction of another one, as failures.
        kl_scale, free_nats: of the divergence between prior and posterior.
        ensemble: number of models of the latent dynamics; their disagreement times `doubt` is subtracted from a plan's
            value; 0: none.
        unjudged: "success" or "failure" for episodes without an outcome in the dataset; "": they are an error.
        planner: "cem" (de Boer et al. 2005), "mppi" (Williams et al. 2017), "random_shooting"; "proposed", the plan
            with which cem and mppi begin; or "none", which draws a plan from the data's distribution without using the
            model.
        candidates: N plans per round; `rounds`: number of rounds; `elites`: number of best plans with which cem
            continues.
        temperature: of mppi, relative to the deviation of the candidates' values.
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
    misled: Annotated[float, Range(0, 1)] = 0.3
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
    searches = property(lambda self: self.planner not in ("proposed", "none"))
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
        search = f"{self.planner}, {self.rounds} x {self.candidates} plans" if self.searches else self.planner
        return {
            "vision": self.encoder,
            "world model": f"{self.rssm}, {self.deterministic} deterministic{drawn}",
            "language": f"{len(self.vocabulary)} words",
            "planner": f"{search} of {self.horizon} rows",
            "denoising": "none",
        }
