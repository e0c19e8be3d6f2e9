"""How a camera's frame is resized for GR00T: one function for each method of the published code.

The result may have another aspect ratio than the frame, or another size than the other cameras'; the number of its
tokens follows from its size.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.policies.images import resize_bicubic

Size = tuple[int, int]


def isaac(image: np.ndarray, size: Size, crop: float) -> np.ndarray:
    """N1.5's (and N1's) training pipeline: centre crop, bilinear with antialias, truncated to whole levels."""
    rows, columns = image.shape[:2]
    kept = _centre(image, int(crop * rows), int(crop * columns), rounded=True)
    x = torch.from_numpy(kept.copy()).permute(2, 0, 1)[None].float() / 255
    x = functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    return (x[0].clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()


def lerobot(image: np.ndarray, size: Size, crop: float) -> np.ndarray:
    """LeRobot's N1.5: the whole frame, bicubic with antialias."""
    return _bicubic(image, size)


def pil(image: np.ndarray, size: Size, crop: float) -> np.ndarray:
    """N1's own processor: the whole frame, as Pillow scales it."""
    return resize_bicubic(image, *size)


def letterbox(image: np.ndarray, size: Size, crop: float) -> np.ndarray:
    """N1.6: padded to a square with black, then as `shortest`."""
    return shortest(_square(image), size, crop)


def shortest(image: np.ndarray, size: Size, crop: float) -> np.ndarray:
    """N1.6 and N1.7 as published: shortest side to size, centre crop, shortest side to size again; keeps the aspect
    ratio."""
    edge = min(size)
    image = _shortest_edge(image, edge)
    rows, columns = image.shape[:2]
    return _shortest_edge(_centre(image, int(rows * crop), int(columns * crop)), edge)


def square(image: np.ndarray, size: Size, crop: float) -> np.ndarray:
    """N1.7 as LeRobot trains it: to size without keeping the aspect ratio, centre crop, to size again, bicubic with
    antialias."""
    image = _bicubic(image, size)
    return _bicubic(_centre(image, round(size[0] * crop), round(size[1] * crop)), size)


PATHS: dict[str, Callable[[np.ndarray, Size, float], np.ndarray]] = {
    "isaac": isaac, "lerobot": lerobot, "pil": pil, "letterbox": letterbox, "shortest": shortest, "square": square,
    "letterbox_square": lambda image, size, crop: square(_square(image), size, crop),
}


def prepared(image: np.ndarray, path: str, size: Size, crop: float, unit: int) -> np.ndarray:
    """Resize a (H, W, 3) uint8 frame for the network: (h, w, 3) uint8, both multiples of `unit` pixels.

    Raises InputError unless it is such a frame.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"image of shape {image.shape}, {image.dtype}: expected (height, width, 3) uint8")
    if max(image.shape[:2]) > 100 * min(image.shape[:2]):
        raise InputError(f"image of {image.shape[1]}x{image.shape[0]} pixels, expected sides within a factor of 100")
    image = PATHS[path](image, size, crop)
    rows, columns = (max(unit, round(n / unit) * unit) for n in image.shape[:2])
    return image if image.shape[:2] == (rows, columns) else pil(image, (rows, columns), crop)


def _bicubic(image: np.ndarray, size: Size) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    x = functional.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True)
    return np.ascontiguousarray(x[0].permute(1, 2, 0).numpy())


def _centre(image: np.ndarray, rows: int, columns: int, rounded: bool = False) -> np.ndarray:
    spare = [(n - kept) / 2 for n, kept in zip(image.shape[:2], (rows, columns), strict=True)]
    top, left = (round(n) if rounded else math.floor(n) for n in spare)
    return image[top : top + rows, left : left + columns]


def _shortest_edge(image: np.ndarray, edge: int) -> np.ndarray:
    import cv2  # here, so that a benchmark of the network alone runs without OpenCV

    rows, columns = image.shape[:2]
    scale = edge / min(rows, columns)
    rows, columns = round(rows * scale), round(columns * scale)
    if (rows, columns) == image.shape[:2]:
        return image
    return cv2.resize(np.ascontiguousarray(image), (columns, rows), interpolation=cv2.INTER_AREA)


def _square(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape[:2]
    side = max(rows, columns)
    result = np.zeros((side, side, 3), np.uint8)
    top, left = (side - rows) // 2, (side - columns) // 2
    result[top : top + rows, left : left + columns] = image
    return result
