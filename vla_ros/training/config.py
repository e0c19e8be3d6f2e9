"""Configuration of a training run: one YAML file, the same for one process and for many."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from vla_ros.core.errors import InputError
from vla_ros.core.records import Range, read_mapping, record

OUTCOMES = ("success", "failure", "aborted")  # of an episode
PRECISIONS = ("float32", "bfloat16")
STATISTICS = ("keep", "recompute")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up, then half a cosine from `learning_rate` to `final_learning_rate`.

    Attributes:
        rates: regular expression -> factor of the learning rate for the parameters whose names match (searched); if
            several match, the last one applies.
    """

    learning_rate: Annotated[float, Range(1e-12, 1000)] = 3e-4
    final_learning_rate: Annotated[float, Range(0, 1000)] = 1e-5
    warmup_steps: Annotated[int, Range(0, 10**9)] = 200
    weight_decay: Annotated[float, Range(0, 1000)] = 0.01  # on matrices; not on biases and norms
    beta1: Annotated[float, Range(0, 0.999999)] = 0.9
    beta2: Annotated[float, Range(0, 0.999999)] = 0.95
    epsilon: Annotated[float, Range(0, 1)] = 1e-8
    clip_norm: Annotated[float, Range(0, 1e9)] = 1.0  # of the gradient over all parameters; 0 = not clipped
    rates: dict[str, Annotated[float, Range(1e-6, 1000)]] = field(default_factory=dict)


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of the images of a sample, drawn again each time it is seen.

    Brightness, contrast and saturation are factors in 1 ± value, the same for all cameras of a sample. `shift` is
    in pixels, drawn for each camera, the border repeated; it makes positions less precise, so keep it small for a fixed
    camera.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    shift: Annotated[int, Range(0, 1000)] = 0


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (peft) on the linear layers whose names match `target`; everything else is frozen, except for
    the parameters whose names match one of `full` (searched), which are trained as they are."""

    rank: Annotated[int, Range(1, 10_000)]
    target: str  # regular expression on module names, matched whole
    alpha: Annotated[float, Range(1e-6, 1e6)] = 16.0
    dropout: Annotated[float, Range(0, 0.999)] = 0.0
    full: tuple[str, ...] = ()


@dataclass(frozen=True)
class EpisodesConfig:
    """Which episodes of the dataset are learnt and evaluated on.

    Attributes:
        outcome: only episodes that ended so: success, failure or aborted; "": all.
    """

    outcome: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        dataset: LeRobot dataset folder.
        units: of the dataset's joints where they are not rad or m: rows as in `state` of a policy file.
        instruction: which text of a row to use: its "task", or the "subtask" if the dataset has them.
        episodes: which of its episodes.
        corrections: how many times as often frames that a person commanded are sampled as those of a policy.
        output: folder of the run: checkpoints, state to resume from, logs.
        family: policy family of a policy with fresh weights; `policy` is its configuration.
        weights: with `family`, checkpoint of the same family whose weights are taken where name and shape are the
            policy's; those that are not, such as those of actions of another space, stay fresh. Embeddings of words
            are taken word by word.
        start: checkpoint folder or policy file to start from instead, of any family and layout that loads.
        statistics: with `start`, "keep" the checkpoint's normalisation or "recompute" it from the dataset.
        path: with `family`, "x", "y", "yaw" -> velocity of the base: the policy answers the path that the dataset's
            velocities drive, in place of these.
        step_dt: s between the rows of a chunk, with `family`, a whole number of the dataset's frames (0 = one frame).
        distill: with `start`, denoising steps of a policy that learns the checkpoint's answers (0 = it learns the
            dataset's actions).
        executed_rows: largest number of first rows of a chunk that are given in training as already executed, so that
            real-time chunking needs no guidance (0 = none, or the start checkpoint's).
        steps: optimiser steps.
        batch_size: samples per optimiser step, over all processes.
        micro_batch_size: samples per forward pass (0 = batch_size); smaller ones accumulate gradients, and several
            processes share them.
        ema_decay: of the moving average of the weights that checkpoints hold (0 = the weights themselves).
        precision: "bfloat16" runs the loss under autocast; weights stay float32.
        gradient_checkpointing: recompute the modules whose names match this regular expression.
        freeze: regular expressions; parameters whose names match one (searched) are not trained.
        held_out: share of the episodes kept for evaluation, at least one when above 0.
        evaluate_samples: at most so many held-out frames, spread evenly.
    """

    dataset: str = ""
    units: tuple[dict[str, Any], ...] = ()
    instruction: str = "task"
    episodes: EpisodesConfig = EpisodesConfig()
    corrections: Annotated[float, Range(0.01, 1000)] = 1.0
    output: str = ""
    family: str = ""
    policy: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    start: str = ""
    statistics: str = ""
    path: dict[str, str] = field(default_factory=dict)
    step_dt: Annotated[float, Range(0, 60)] = 0.0
    distill: Annotated[int, Range(0, 1000)] = 0
    executed_rows: Annotated[int, Range(0, 10_000)] = 0
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    steps: int = 10000
    batch_size: Annotated[int, Range(1, 1_000_000)] = 64
    micro_batch_size: int = 0
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_decay: float = 0.999
    precision: str = "float32"
    gradient_checkpointing: str = ""
    freeze: tuple[str, ...] = ()
    lora: LoraConfig | None = None
    augmentation: AugmentationConfig = AugmentationConfig()
    held_out: float = 0.05
    evaluate_samples: int = 512
    evaluate_every: int = 500
    save_every: int = 1000
    log_every: int = 50

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> "TrainConfig":
        """Read a YAML file; `overrides` replace its fields where they are not None. Raises InputError."""
        data = read_mapping(path, "training config")
        data |= {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls.from_dict(data)
        except InputError as error:
            raise InputError(f"training config {path}: {error}") from None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "TrainConfig":
        """Raises InputError that names the field, its value and what was expected."""
        config = record(cls, data)
        config._check()
        return config

    def to_dict(self) -> dict[str, Any]:
        """The mapping for `from_dict`, with plain values for YAML."""
        return asdict(self) | {"freeze": list(self.freeze), "units": list(self.units)}

    @property
    def micro_batches(self) -> int:
        """Forward passes per optimiser step, over all processes."""
        return self.batch_size // (self.micro_batch_size or self.batch_size)

    def _check(self) -> None:
        if not self.dataset or not self.output:
            raise InputError(f"{'output' if self.dataset else 'dataset'} is not given")
        if bool(self.family) == bool(self.start):
            raise InputError(f"family {self.family!r} and start {self.start!r}: expected one of the two")
        if self.start and self.statistics not in STATISTICS:
            raise InputError(f"statistics {self.statistics!r}: with a start checkpoint choose 'keep' (the "
                             "checkpoint's) or 'recompute' (the dataset's)")
        if self.family and self.statistics:
            raise InputError(f"statistics {self.statistics!r}: only with start; fresh weights use the dataset's")
        if self.distill and self.statistics != "keep":
            raise InputError(f"distill {self.distill}, family {self.family!r}, statistics {self.statistics!r}: expected"
                             " a start checkpoint with its own statistics (keep)")
        if self.start and self.weights:
            raise InputError(f"weights {self.weights!r}: only with family; start uses all weights of its checkpoint")
        if self.start and self.step_dt:
            raise InputError(f"step_dt {self.step_dt}: only with family; a start checkpoint has its own")
        if self.start and self.path:
            raise InputError("path: only with family; `path` of a policy file says it of a start checkpoint")
        if self.start and self.policy:
            raise InputError("policy: only with family; a start checkpoint has its own configuration")
        if self.episodes.outcome and self.episodes.outcome not in OUTCOMES:
            raise InputError(f"episodes: outcome {self.episodes.outcome!r}, expected one of {OUTCOMES}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r}, expected one of {PRECISIONS}")
        for name in ("steps", "batch_size", "evaluate_samples", "evaluate_every", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}, expected 1 or more")
        if self.micro_batch_size < 0 or self.batch_size % (self.micro_batch_size or self.batch_size):
            raise InputError(f"micro_batch_size {self.micro_batch_size}, expected a divisor of batch_size "
                             f"{self.batch_size}")
        for name in ("ema_decay", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}, expected 0 to below 1")
        rates = self.optimizer
        if rates.final_learning_rate > rates.learning_rate:
            raise InputError(f"optimizer.final_learning_rate {rates.final_learning_rate:g}, expected at most "
                             f"learning_rate, {rates.learning_rate:g}: the rate falls to it")
        if self.lora and (self.lora.rank < 1 or not self.lora.target):
            raise InputError(f"lora: rank {self.lora.rank} and target {self.lora.target!r}, expected both")
        a = self.augmentation
        if not (0 <= a.brightness < 1 and 0 <= a.contrast < 1 and 0 <= a.saturation <= 1 and a.shift >= 0):
            raise InputError(f"augmentation {asdict(a)}: expected brightness and contrast in [0, 1), shift 0 or more")
