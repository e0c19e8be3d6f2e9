"""Images as policies take them: resized with their aspect kept, padded with black."""

from functools import cache

import numpy as np
from PIL import Image

from vla_ros.core.errors import InputError


def resize_with_pad(image: np.ndarray, height: int, width: int, centred: bool = True) -> np.ndarray:
    """Fit an image into height x width pixels, centred on black (or in the lower right corner).

    The semantics are those of openpi's and LeRobot's torch code for the published π0 models: the larger of the two
    ratios shrinks both sides (sizes cut to whole pixels), bilinear sampling at pixel centres without antialiasing,
    values rounded to the nearest level, an odd pixel of padding goes to the bottom or the right.

    An image of the right size comes back unchanged (the same values), so the function is idempotent: images may be
    stored at the policy's size and pass through it again when served.

    Args:
        image: (H, W, 3) uint8.
        height, width: of the result, pixels.
        centred: False puts all the padding at the top and the left, as SmolVLA does.

    Returns:
        (height, width, 3) uint8.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    fitted = resize_within(image, height, width)
    rows, columns = fitted.shape[:2]
    if (rows, columns) == (height, width):
        return fitted
    result = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = height - rows, width - columns
    if centred:
        top, left = top // 2, left // 2
    result[top : top + rows, left : left + columns] = fitted
    return result


def resize_within(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image as `resize_with_pad` does, without the padding: (h, w, 3) with h = height or w = width.

    How an image is stored that policies will see in this size: each pads it as it does when it serves, in the middle
    or at one side. An image that fits exactly comes back unchanged.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    _check(image)
    rows, columns = image.shape[:2]
    ratio = max(columns / width, rows / height)
    fit_rows, fit_columns = max(int(rows / ratio), 1), max(int(columns / ratio), 1)
    if (rows, columns) == (fit_rows, fit_columns):
        return image
    # In float32: OpenCV's uint8 path interpolates with 11-bit weights and would differ from the published code.
    import cv2  # here, so that a benchmark of the network alone runs without OpenCV

    fitted = cv2.resize(image.astype(np.float32), (fit_columns, fit_rows), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.rint(fitted), 0, 255).astype(np.uint8)


def resize_same_aspect(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image to (height, width, 3) pixels without padding or distortion.

    For policies that were trained on whole images of one size. An image of that size comes back unchanged.

    Raises InputError unless it is an (H, W, 3) uint8 image of that aspect, but for a pixel.
    """
    _check(image)
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if abs(columns * height / rows - width) > 1:
        raise InputError(f"image of {columns}x{rows} pixels, the policy was trained on {width}x{height}: expected the "
                         "same aspect")
    import cv2

    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def squash(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image to (height, width, 3) pixels whatever its aspect: PIL's bicubic, as OpenVLA does.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    _check(image)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def letterbox(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`squash` of an image on a grey square; an odd pixel of padding is left out, as OpenVLA does."""
    _check(image)
    rows, columns = image.shape[:2]
    top, left = (int((max(rows, columns) - n) / 2) for n in (rows, columns))
    return squash(np.pad(image, ((top, top), (left, left), (0, 0)), constant_values=127), height, width)


def cover(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`squash` to the smallest size of its own aspect that covers (height, width, 3) pixels, and of that the centre."""
    _check(image)
    rows, columns = image.shape[:2]
    if columns * height >= rows * width:
        fitted = squash(image, height, max(int(height * columns / rows), width))
    else:
        fitted = squash(image, max(int(width * rows / columns), height), width)
    top, left = (round((a - b) / 2) for a, b in zip(fitted.shape, (height, width), strict=False))
    return fitted[top : top + height, left : left + width]


def centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The central nine tenths of an image's area, (height, width, 3): what a policy sees that was trained on random
    crops of that size. Scaled first, by Lanczos's kernel of three lobes, then cropped, both as TensorFlow does.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    _check(image)
    x = image
    if image.shape[:2] != (height, width):
        rows, columns = (_lanczos(*pair) for pair in zip(image.shape, (height, width), strict=False))
        x = np.tensordot(rows, np.tensordot(columns, image.astype(np.float32), (1, 1)), (1, 1))
        x = np.clip(np.rint(x), 0, 255)
    x = x.astype(np.float32) / np.float32(255)
    for axis, size in ((1, width), (0, height)):
        share = np.sqrt(np.float32(0.9))
        places = (1 - share) / 2 * (size - 1) + np.arange(size, dtype=np.float32) * (share * (size - 1) / (size - 1))
        below = np.floor(places).astype(int)
        first, second = (x.take(np.minimum(index, size - 1), axis) for index in (below, below + 1))
        x = first + (second - first) * np.expand_dims((places - below).astype(np.float32), (2, 1 - axis))
    return (np.clip(x, 0, 1) * np.float32(255.5)).astype(np.uint8)


@cache
def _lanczos(size: int, wanted: int) -> np.ndarray:
    """(wanted, size) float32 weights of the pixels of a line, antialiased."""
    scale = size / wanted
    away = (np.arange(size) + 0.5 - (np.arange(wanted)[:, None] + 0.5) * scale) / max(scale, 1.0)
    weights = np.where(np.abs(away) < 3, np.sinc(away) * np.sinc(away / 3), 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"image of shape {image.shape}, {image.dtype}: expected (height, width, 3) uint8")
