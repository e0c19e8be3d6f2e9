"""Samples to the batches of a composed policy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vla_ros.core.errors import InputError, shown
from vla_ros.core.observation import Sample
from vla_ros.policies.parts.registry import ENCODERS
from vla_ros.policies.policy import Batch
from vla_ros.policies.tokenizer import filled
from vla_ros.policies.window import WindowProcessor

STEP = 8  # tokens: instructions are padded to few lengths


@dataclass(frozen=True)
class ModularProcessor(WindowProcessor):
    """The batch is described at `Modular`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        head = self.config.head
        if head.part.bounded and self.actions.mode in ("mean_std", "identity"):
            raise InputError(f"{head.title} answers within [-1, 1], actions are normalised by {self.actions.mode}; "
                             "expected normalisation: quantiles or min_max")

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.config.encoders)

    @property
    def optional(self) -> tuple[str, ...]:
        return tuple(self.config.missing)

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states, most = self.states(samples), self.config.text_length
        rows = self.embedded(self.ask_tokenizer().prompts([s.instruction for s in samples], most), samples)
        tokens, mask = filled(rows, most, STEP, self.ask_tokenizer().padding)
        batch = {"images": self.images(samples), "tokens": tokens, "token_mask": mask}
        if self.state_width:
            batch["state"] = self.policy_states(states)
        for name in self.streams:
            if name in self.optional:
                there = np.array([name in sample.values for sample in samples])
                batch[f"there {name}"] = torch.from_numpy(there)[:, None].repeat(1, self.depth(samples, name))
            batch[f"stream {name}"] = self._values(samples, name)
            if ENCODERS[self.config.encoders[name].kind].counted:
                batch[f"count {name}"] = self._counts(samples, name)
        return batch | self.targets(samples, states)

    def _values(self, samples: Sequence[Sample], name: str) -> torch.Tensor:
        """(B, T, *shape) float32 of a stream, zeros where it may be absent and is. Raises InputError for another shape,
        and for what is not finite."""
        shape = (self.depth(samples, name), *self.config.shapes[name])
        absent = np.zeros(shape, np.float32) if name in self.optional else None
        rows = [sample.values.get(name, absent) for sample in samples]
        for row in rows:
            found = None if row is None else row.shape
            if found != shape:
                raise InputError(f"stream {name!r} of shape {found}, the policy reads {shape}")
        values = np.stack([np.asarray(row, np.float32) for row in rows])
        if not np.isfinite(values).all():
            raise InputError(f"stream {name!r}: a number that is not finite, expected finite ones")
        return torch.from_numpy(values)

    def _counts(self, samples: Sequence[Sample], name: str) -> torch.Tensor:
        """(B, T) int64, how many rows are real; all where the stream does not say it, none where it is absent."""
        shape = (len(samples), self.depth(samples, name))
        rows = [s.values.get(f"{name}_count", np.full(shape[1], self.config.shapes[name][0] * (name in s.values)))
                for s in samples]
        counts = np.stack(rows).astype(np.int64).reshape(shape)
        most = self.config.shapes[name][0]
        if ((counts < 0) | (counts > most)).any():
            raise InputError(f"stream {name!r}: {shown(counts.tolist())} of its rows are said to be real, expected 0 "
                             f"to {most}")
        return torch.from_numpy(counts)
