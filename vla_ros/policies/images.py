"""Images as policies take them: resized with their aspect kept, padded with black."""

import numpy as np

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


def resize_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image to (height, width, 3) pixels whatever its aspect, bicubic with antialiasing, as Pillow does.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    _check(image)
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"image of shape {image.shape}, {image.dtype}: expected (height, width, 3) uint8")
