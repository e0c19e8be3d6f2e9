"""Samples to X-VLA's batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.family import IMAGENET
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import FITS, StandardProcessor
from vla_ros.policies.tokenizer import filled
from vla_ros.policies.xvla.config import DOMAIN


@dataclass(frozen=True)
class XvlaProcessor(StandardProcessor):
    """The batch is described at `Xvla`. Absent cameras are left out: as published, those that are there move up."""

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        config, tokenizer, states = self.config, self.ask_tokenizer(), self.states(samples)
        if config.domain_id is None:
            raise InputError(f"policy: {DOMAIN}")
        texts = [sample.instruction for sample in samples]
        most = config.text_length
        tokens, _ = filled(tokenizer.prompts(texts, most), most, most, tokenizer.padding)
        present = [name for name in self.image_names if self.embodiment.cameras[name] is not None]
        batch = {
            "images": self.images(samples, present)[:, -1],
            "image_mask": torch.ones(len(samples), len(present), dtype=torch.bool),
            "tokens": tokens,
            "domain": torch.full((len(samples),), config.domain_id),
        }
        if self.state_width:
            batch["state"] = self.policy_states(states)[:, -1]
        return batch | self.targets(samples, states)

    def images(self, samples: Sequence[Sample], names: Sequence[str] | None = None) -> Tensor:
        """(B, 1, N, 3, height, width) float32 of the named images, ImageNet's mean where they are padded.

        Raises InputError.
        """
        cameras = [self.embodiment.cameras[name] for name in (self.image_names if names is None else names)]
        rows = []
        for sample in samples:
            for camera in cameras:
                if camera not in sample.images:
                    raise InputError(f"no image of camera {camera!r}, only of {sorted(sample.images)}")
                if len(sample.images[camera]) != 1:
                    raise InputError(f"{len(sample.images[camera])} images of camera {camera!r}, expected 1")
                try:
                    rows.append(self.fitted(sample.images[camera][0]))
                except InputError as error:
                    raise InputError(f"camera {camera!r}: {error}") from None
        return torch.cat(rows).unflatten(0, (len(samples), 1, len(cameras)))

    def fitted(self, image: np.ndarray) -> Tensor:
        """An (H, W, 3) uint8 image to (1, 3, height, width): normalised, then scaled, then padded at top and left.

        Raises InputError for what is no such image.
        """
        height, width = self.config.image_size
        if self.fit == "exact":
            image = FITS[self.fit](image, height, width)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise InputError(f"image of shape {image.shape}, {image.dtype}: expected (height, width, 3) uint8")
        pixels = torch.from_numpy(image.astype(np.float32) / np.float32(255)).permute(2, 0, 1)[None]
        mean, deviation = (torch.from_numpy(IMAGENET[name]).float()[:, None, None] for name in ("mean", "std"))
        pixels, (rows, columns) = (pixels - mean) / deviation, image.shape[:2]
        ratio = max(columns / width, rows / height)
        if (rows, columns) != (height, width):
            size = max(int(rows / ratio), 1), max(int(columns / ratio), 1)
            pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
        return functional.pad(pixels, (width - pixels.shape[3], 0, height - pixels.shape[2], 0))
