"""Random changes of images, for a whole batch at once."""

from dataclasses import dataclass

import numpy as np

from vla_ros.training.config import AugmentationConfig

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Draws:
    """What is drawn for B samples: factors (B,) around 1."""

    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray


def draw(config: AugmentationConfig, count: int, rng: np.random.Generator) -> Draws:
    """Factors of `count` samples, uniform in 1 ± the configured value."""
    return Draws(*(
        rng.uniform(1 - width, 1 + width, count).astype(np.float32)
        for width in (config.brightness, config.contrast, config.saturation)
    ))


def colour(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Change (B, ..., h, w, 3) uint8 images by the factors of their sample; new uint8 array.

    Brightness multiplies, contrast stretches about the image's mean luma, saturation about each pixel's luma.
    """
    shape = (-1,) + (1,) * (images.ndim - 1)
    values = images.astype(np.float32)
    values *= draws.brightness.reshape(shape)
    luma = values @ LUMA
    mean = luma.mean(axis=(-2, -1), keepdims=True)[..., None]
    # saturation, then contrast: contrast * (luma + saturation * (value - luma) - mean) + mean, in place
    luma = luma[..., None]
    values -= luma
    values *= (draws.saturation * draws.contrast).reshape(shape)
    values += (luma - mean) * draws.contrast.reshape(shape) + mean
    np.clip(values, 0, 255, out=values)
    return np.rint(values, out=values).astype(np.uint8)


def shift(images: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Move (B, T, h, w, 3) images by up to ± `pixels` in x and y, a draw for each sample, the border repeated."""
    count, _, height, width, _ = images.shape
    moves = rng.integers(-pixels, pixels + 1, (count, 2))
    moved = np.empty_like(images)
    for k, (dy, dx) in enumerate(moves):
        rows = np.clip(np.arange(height) + dy, 0, height - 1)
        columns = np.clip(np.arange(width) + dx, 0, width - 1)
        moved[k] = images[k][:, rows[:, None], columns]
    return moved
