"""Random changes of images, for a whole batch at once."""

import numpy as np

from vla_ros.training.config import AugmentationConfig

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def draw(config: AugmentationConfig, count: int, rng: np.random.Generator) -> np.ndarray:
    """(3, B) factors of brightness, contrast and saturation, uniform in 1 ± the configured value."""
    widths = np.array([config.brightness, config.contrast, config.saturation])[:, None]
    return rng.uniform(1 - widths, 1 + widths, (3, count)).astype(np.float32)


def colour(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Change (B, ..., h, w, 3) uint8 images by the (3, B) factors of their samples; new uint8 array.

    Brightness multiplies, contrast stretches about the image's mean luma, saturation about each pixel's luma.
    """
    brightness, contrast, saturation = factors.reshape(3, -1, *(1,) * (images.ndim - 1))
    values = images.astype(np.float32)
    values *= brightness
    luma = values @ LUMA
    mean = luma.mean(axis=(-2, -1), keepdims=True)[..., None]
    # saturation, then contrast: contrast * (luma + saturation * (value - luma) - mean) + mean, in place
    luma = luma[..., None]
    values -= luma
    values *= saturation * contrast
    values += (luma - mean) * contrast + mean
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
