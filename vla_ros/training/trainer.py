"""The training loop."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from vla_ros.core.errors import InputError
from vla_ros.datasets.check import ERROR, briefly, check
from vla_ros.datasets.lerobot import Dataset, frames_of
from vla_ros.policies import registry
from vla_ros.policies.flow import continuing
from vla_ros.policies.policy import Batch
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.policies.rows import Rows
from vla_ros.policies.tool_actions import ToolActions
from vla_ros.training import adapt, checkpoints, identity
from vla_ros.training.config import OptimizerConfig, TrainConfig
from vla_ros.training.distill import distilling
from vla_ros.training.evaluate import evaluate
from vla_ros.training.log import Log
from vla_ros.training.processes import Processes
from vla_ros.training.samples import Samples, chosen, split
from vla_ros.training.units import bring_to_rad

NEW = "name its checkpoints/last as start of a new run"


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Learning rate at step `step` (0-based): linear warm-up, then half a cosine down to the final rate at the last
    step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def open_policy(config: TrainConfig, dataset: Dataset, notes: list[str] | None = None) -> LoadedPolicy:
    """Fresh weights, or those of the start checkpoint with the statistics that the config chooses; the dataset is
    brought to rad and m. Statistics and words are those of the episodes that the config chooses.

    A checkpoint that does not know its robot's joints and cameras (LeRobot's) is mapped by the dataset's names. `notes`
    gets what was taken of `weights`.
    """
    bring_to_rad(dataset, config.units)
    episodes = chosen(dataset, config.episodes.outcome)
    frames = frames_of(episodes)
    data = registry.TrainingData(
        joints=dataset.joint_names,
        cameras=dataset.camera_names,
        step_dt=config.step_dt or 1.0 / dataset.fps,
        statistics=dataset.statistics_of(episodes),
        instructions=tuple(dict.fromkeys(text for episode in episodes for text in episode.instructions)),
        streams=dataset.streams,
        hold=dataset.hold,
        rows=Rows(
            dataset.joint_names, dataset.states[frames], dataset.targets[frames], tuple(e.length for e in episodes),
            1.0 / dataset.fps,
        ),
        tool=dataset.tool and ToolActions("pose", dataset.tool.rotation, dataset.tool.frame),
        path=config.path or None,
    )
    recompute = config.statistics == "recompute"
    if config.family:
        torch.manual_seed(config.seed)
        loaded = registry.build(config.family, config.policy, data)
        if config.weights:
            taken = adapt.take_weights(loaded, registry.load(config.weights), data.instructions)
            if notes is not None:
                notes.append(f"weights {config.weights}: {taken}")
    else:
        loaded = registry.load(config.start, data=data, without_statistics=recompute)
    embodiment = getattr(loaded.processor, "embodiment", None)
    commanded = embodiment.commanded if embodiment else loaded.processor.joints
    commanded += tuple(embodiment.path.joints.values()) if embodiment and embodiment.path else ()
    if missing := [name for name in commanded if name in dataset.hold]:
        raise InputError(f"dataset {dataset.path}: no actions of {missing}, which the policy commands; `hold` of a "
                         "policy file leaves them alone")
    _check_tool(embodiment.tool if embodiment else None, data.tool, f"dataset {dataset.path}")
    path, base = (embodiment.path if embodiment else None), dataset.base
    if path and base is not None and path.joints != base:
        raise InputError(f"path: velocities {path.joints}, the robot of dataset {dataset.path} has "
                         f"{base or 'no base that follows a path'}; expected the same")
    if recompute:
        loaded = replace(loaded, processor=loaded.processor.with_statistics(data))
    return loaded


def _check_tool(policy: ToolActions | None, data: ToolActions | None, where: str) -> None:
    """Raises InputError if the policy's actions of a tool are not the dataset's, except for the place of the first."""
    said, wanted = (f"{t.space} in {t.frame}, the rotation as {t.rotation}" if t else "none" for t in (data, policy))
    if said != wanted:
        raise InputError(f"{where}: actions of a tool: {said}, the policy's: {wanted}; expected the same of both")


def _optimizer(
    parameters: list[torch.nn.Parameter], config: OptimizerConfig, factors: Mapping[torch.nn.Parameter, float]
) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = []
    for factor in sorted({1.0, *factors.values()}, reverse=True):
        own = [p for p in parameters if factors.get(p, 1.0) == factor]
        for matrices in (True, False):
            groups.append({"params": [p for p in own if (p.ndim >= 2) == matrices], "factor": factor,
                           "weight_decay": config.weight_decay if matrices else 0.0})
    return torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=config.epsilon)


class Trainer:
    """A run of `config`, from its start or, with `resume`, from the last saved state.

    Everything random is a function of the seed, the step and the micro-batch: a resumed run has the same losses as one
    that was not interrupted, and so have several processes that share the micro-batches.

    Raises:
        InputError: for a config, dataset or checkpoint that does not fit, before anything is written.
    """

    def __init__(
        self, config: TrainConfig, processes: Processes | None = None, resume: bool = False,
        cache: str | Path | None = None, progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.config = config
        self.processes = processes or Processes()
        self.device = self.processes.device
        self.output = Path(config.output)
        if config.micro_batches % self.processes.count:
            raise InputError(f"{config.micro_batches} micro-batches (batch_size / micro_batch_size) cannot be shared "
                             f"by {self.processes.count} processes")
        dataset = Dataset(config.dataset, config.instruction)
        found = check(dataset, pictures=False)  # a missing frame is found when images are decoded
        if errors := [finding for finding in found if finding.level == ERROR]:
            raise InputError(f"dataset {dataset.path}: {errors[0]} ({len(errors)} errors in all, see "
                             f"vla-ros dataset check {dataset.path})")
        # `bring_to_rad` checks units, and the statistics used here are computed from the rows.
        others = ("units", "statistics", *(["outcome"] if config.episodes.outcome else []))
        self.warnings = briefly([finding for finding in found if finding.kind not in others])
        self.notes: list[str] = []
        self.loaded = open_policy(config, dataset, self.notes)
        self.rows = hashlib.blake2b(dataset.states.tobytes() + dataset.actions.tobytes()).hexdigest()
        self.texts = hashlib.blake2b(repr(dataset.tasks).encode() + dataset.task_of.tobytes()).hexdigest()
        self.policy = self.loaded.policy.float().to(self.device)
        if config.executed_rows:
            continuing(self.policy, config.executed_rows)
        self.taught = identity.sums(self.policy) if config.distill else None
        self.distilling = distilling(self.policy, config.distill) if config.distill else None
        adapt.freeze(self.policy, config.freeze)
        if config.lora:
            adapt.add_lora(self.policy, config.lora)
        if config.gradient_checkpointing:
            adapt.checkpoint_modules(self.policy, config.gradient_checkpointing)
        if self.processes.main:
            checkpoints.prepare_output(self.output, resume)
        else:
            self.processes.wait()  # the first process decodes the videos, the others map what it wrote
        training, held_out = split(chosen(dataset, config.episodes.outcome), config.held_out, config.seed)
        self.samples = Samples(dataset, training, self.loaded.processor, cache, progress, config.corrections)
        self.seen = identity.seen(self.samples)
        self.held_out = Samples(dataset, held_out, self.loaded.processor, cache) if held_out else None
        if self.processes.main:
            self.processes.wait()
        self.processes.broadcast(self.policy)
        trained = {name: [p for p in group if p.requires_grad] for name, group in self.policy.groups().items()}
        self.groups = {name: group for name, group in trained.items() if group}  # loss -> the parameters that it trains
        factors = adapt.rate_factors(self.policy, config.optimizer.rates)
        self.optimizers = {
            name: _optimizer(parameters, config.optimizer, factors) for name, parameters in self.groups.items()
        }
        self.average = adapt.Average(self.policy, config.ema_decay) if config.ema_decay else None
        self.step = 0
        if resume:
            self._resume()

    def unknown_words(self) -> dict[str, int]:
        """Words of the dataset's instructions that the policy does not know, and the episodes that have them."""
        words: Counter[str] = Counter()
        for episode in self.samples.episodes:
            words.update({word for text in episode.instructions for word in self.loaded.processor.unknown_words(text)})
        return dict(sorted(words.items()))

    def run(self) -> dict[str, float]:
        """Train to the last step; returns the last figures. Checkpoints, state and logs are under `config.output`.

        Raises InputError, also if another process trains into that folder.
        """
        with checkpoints.alone(self.output) if self.processes.main else nullcontext():
            return self._run()

    def _run(self) -> dict[str, float]:
        config, main = self.config, self.processes.main
        if main:
            (self.output / "config.yaml").write_text(yaml.safe_dump(config.to_dict(), sort_keys=False))
        log = Log(self.output, config.steps, self.step) if main else None
        figures: dict[str, float] = {}
        sums: dict[str, float] = {}
        since = self.step
        self.policy.train()
        try:
            with ThreadPoolExecutor(1) as pool:  # the next batch is prepared while this one is trained on
                ahead = pool.submit(self._batches, self.step)
                while self.step < config.steps:
                    batches = ahead.result()
                    ahead = pool.submit(self._batches, self.step + 1)
                    for name, value in self._update(batches).items():
                        sums[name] = sums.get(name, 0.0) + value
                    last = self.step == config.steps
                    if log:
                        log.advance()
                    if self.step % config.log_every == 0 or last:
                        figures = {name: value / (self.step - since) for name, value in sums.items()}
                        if log:
                            log.add(self.step, figures)
                        sums, since = {}, self.step
                    if main and self.held_out and (self.step % config.evaluate_every == 0 or last):
                        figures = self.evaluate()
                        log.add(self.step, figures)
                    if self.step % config.save_every == 0 or last:
                        if main:
                            self.save()
                        self.processes.wait()
        finally:
            if log:
                log.close()
        return figures

    def evaluate(self) -> dict[str, float]:
        """Figures of the averaged weights on the held-out episodes."""
        config = self.config
        with self._served(), self._autocast():
            return evaluate(
                self.loaded, self.held_out, config.evaluate_samples, config.micro_batch_size or config.batch_size,
                config.seed, self.distilling,
            )

    def save(self) -> Path:
        """Write the averaged weights as a checkpoint, and the state to resume from."""
        with self._served():
            folder = checkpoints.save_policy(
                self.output, self.step, self.loaded, self.policy, self.config.lora is not None
            )
        checkpoints.save_state(self.output, {
            "step": self.step,
            "config": self.config.to_dict(),
            "frames": len(self.samples),
            "rows": self.rows,
            "texts": self.texts,
            "seen": self.seen,
            **({} if self.taught is None else {"taught": self.taught}),
            "policy": self.policy.state_dict(),
            "average": self.average.values if self.average else {},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        })
        return folder

    def _served(self):
        """A context in which the policy has the weights that checkpoints hold."""
        return self.average.applied(self.policy) if self.average else nullcontext()

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _batches(self, step: int) -> list[tuple[int, Batch]]:
        """(number, batch) of this process's micro-batches of a step."""
        config, processes = self.config, self.processes
        size = config.batch_size // config.micro_batches
        order = self.samples.order(config.seed, step * config.batch_size, config.batch_size)
        batches = []
        for number in range(processes.rank, config.micro_batches, processes.count):
            rng = np.random.default_rng([config.seed, 3, step, number])
            chosen = self.samples.get(order[number * size : (number + 1) * size], config.augmentation, rng)
            batches.append((number, self.loaded.processor.inputs(chosen)))
        return batches

    def _update(self, batches: list[tuple[int, Batch]]) -> dict[str, float]:
        """One optimiser step; its figures."""
        config = self.config
        share = 1.0 / config.micro_batches
        rate = learning_rate(config.optimizer, self.step, config.steps)
        sums: dict[str, torch.Tensor] = {}
        self.policy.zero_grad(set_to_none=True)
        for number, batch in batches:
            batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
            seed = np.random.SeedSequence([config.seed, 4, self.step, number]).generate_state(1)[0]
            torch.manual_seed(int(seed))
            with self._autocast():
                losses = (self.distilling or self.policy.loss)(batch)
            for k, (name, parameters) in enumerate(self.groups.items()):
                last = k == len(self.groups) - 1
                torch.autograd.backward(losses[name] * share, inputs=parameters, retain_graph=not last)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() * share
        norms = {}
        for name, parameters in self.groups.items():
            self.processes.sum_gradients(parameters)
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm or math.inf)
            norms["gradient_norm" if name == "loss" else f"{name}_gradient_norm"] = float(norm)
        if not all(map(math.isfinite, norms.values())):
            raise InputError(f"step {self.step}: the gradient is not finite; lower learning_rate or check the dataset")
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)  # states of older runs say none
            optimizer.step()
        self.policy.updated()
        self.step += 1
        if self.average:
            self.average.update(self.policy, self.step)
        values = self.processes.sum_values(torch.stack(list(sums.values())))
        return dict(zip(sums, values.tolist(), strict=True)) | norms | {"learning_rate": rate}

    def _resume(self) -> None:
        state = checkpoints.load_state(self.output, self.device)
        mine, default = self.config.to_dict(), TrainConfig().to_dict()  # older runs lack newer fields
        free = ("output", "dataset", "steps", "log_every", "save_every", "evaluate_every", "evaluate_samples")
        differing = [
            f"{name} {state['config'].get(name)!r} -> {mine[name]!r}"
            for name in mine
            if name not in free and mine[name] != state["config"].get(name, default.get(name))
        ]
        if differing:
            raise InputError(f"resume {self.output}: the config has changed: {'; '.join(differing)}")
        if self.config.steps < state["step"]:
            raise InputError(f"resume {self.output}: steps {self.config.steps}, the run has made {state['step']} "
                             "already; expected as many or more")
        if state["frames"] != len(self.samples):
            raise InputError(f"resume {self.output}: {len(self.samples)} training frames, the run had "
                             f"{state['frames']}")
        if state.get("rows", self.rows) != self.rows:
            raise InputError(f"resume {self.output}: the states and actions of dataset {self.config.dataset} are not "
                             f"those of the run; {NEW}")
        if self.config.episodes.outcome and self.config.statistics != "keep" and "seen" not in state:
            raise InputError(f"resume {self.output}: its statistics are those of all episodes, as of an older version; "
                             f"{NEW}")
        if state.get("texts", self.texts) != self.texts:
            raise InputError(f"resume {self.output}: the instructions of dataset {self.config.dataset} are not those "
                             f"of the run; {NEW}")
        if differing := identity.unlike(state.get("seen", self.seen), self.seen):
            raise InputError(f"resume {self.output}: the policy's {differing} of dataset {self.config.dataset} are not "
                             f"those of the run: other images, or another start checkpoint; {NEW}")
        if self.taught is not None and not identity.same(state.get("taught", self.taught), self.taught, 1e-6):
            raise InputError(f"resume {self.output}: start {self.config.start}: its weights are not those whose "
                             f"answers the run learns; {NEW}")
        if state.get("optimizers", {}).keys() != self.optimizers.keys():
            raise InputError(f"resume {self.output}: the state of its optimisers is of an older version; {NEW}")
        self.policy.load_state_dict(state["policy"])
        if self.average:
            self.average.load(state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step = state["step"]
