"""Ours: a backbone small enough for training on a CPU, with a vision tower that locates what the text names."""

from dataclasses import dataclass
from operator import attrgetter

from torch import Tensor

from vla_ros.core.records import Words
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.keypoint_stem import KeypointStem, KeypointStemSize
from vla_ros.policies.robovlms.paligemma import Gemma, check_gemma


@dataclass(frozen=True)
class StemSize:
    """Sizes of both parts."""

    vision: KeypointStemSize
    text: GemmaSize
    vocabulary: Words

    def __post_init__(self) -> None:
        check_gemma(self.text)

    width = property(attrgetter("text.width"))
    image = property(attrgetter("vision.image"))


class Stem(Gemma):
    Size = StemSize
    float32 = ("vision",)

    def __init__(self, size: StemSize, cameras: int) -> None:
        super().__init__(size, cameras)
        self.vision = KeypointStem(size.vision, cameras, size.width, size.width, long_prompts=True)

    def see(self, images: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        return self.vision(images, self.vision.summary(text * self.scale, valid)) / self.scale
