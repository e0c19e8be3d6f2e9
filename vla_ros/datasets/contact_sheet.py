"""A picture of a dataset: some frames of some episodes, to look at before training."""

from pathlib import Path

import cv2
import numpy as np

from vla_ros.core.files import new_file
from vla_ros.datasets.lerobot import Dataset

COLUMNS = 6
TILE, TEXT_HEIGHT, GAP = 160, 22, 4  # pixels
INK, PAPER = (20, 20, 20), 245


def contact_sheet(dataset: Dataset, path: str | Path, episodes: int = 8) -> None:
    """Write a PNG: for each of up to `episodes` (spread over the dataset) and each camera a row of frames.

    Raises InputError when it cannot be written.
    """
    chosen = np.unique(np.linspace(0, len(dataset.episodes) - 1, min(episodes, len(dataset.episodes))).astype(int))
    strips = []
    for number in chosen:
        episode = dataset.episodes[number]
        frames = np.unique(np.linspace(0, episode.length - 1, min(COLUMNS, episode.length)).astype(int))
        title = f"episode {episode.index}: {episode.instruction!r}, {episode.length} frames at {dataset.fps:g} Hz"
        strips.append(_text(title))
        for camera in dataset.camera_names:
            images = dataset.episode_frames(episode, camera)[frames]
            labels = [f"{camera} {k / dataset.fps:.1f} s" for k in frames]
            strips.append(_row(images, labels))
    done, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(strips), cv2.COLOR_RGB2BGR))
    assert done
    with new_file(path, "contact sheet") as part:
        part.write_bytes(data.tobytes())


def _strip(height: int) -> np.ndarray:
    return np.full((height, COLUMNS * (TILE + GAP) + GAP, 3), PAPER, np.uint8)


def _text(text: str) -> np.ndarray:
    strip = _strip(TEXT_HEIGHT)
    cv2.putText(strip, text, (GAP, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    return strip


def _row(images: np.ndarray, labels: list[str]) -> np.ndarray:
    """(h, w, 3) uint8: the images (T, H, W, 3) side by side, with their labels."""
    height = round(images.shape[1] / images.shape[2] * TILE)
    strip = _strip(height + TEXT_HEIGHT)
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        left = GAP + k * (TILE + GAP)
        strip[:height, left : left + TILE] = cv2.resize(image, (TILE, height), interpolation=cv2.INTER_AREA)
        cv2.putText(strip, label, (left, height + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
    return strip
