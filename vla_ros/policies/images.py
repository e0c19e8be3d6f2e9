"""Images in the form that policies take: resized with their aspect ratio kept, padded with black."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vla_ros.core.errors import InputError

# Of ImageNet, on which most backbones were pretrained.
IMAGENET = {"mean": np.array([0.485, 0.456, 0.406]), "std": np.array([0.229, 0.224, 0.225])}


def resize_with_pad(image: np.ndarray, height: int, width: int, centred: bool = True) -> np.ndarray:
    """Fit an image into height x width pixels, centred on black (or in the lower right corner).

    As openpi's and LeRobot's torch code for the published π0 models: both sides are divided by the larger of the two
    ratios (sizes are truncated to whole pixels), bilinear sampling at pixel centres without antialiasing, values are
    rounded to the nearest level, an odd pixel of padding goes to the bottom or the right.

    An image of the right size is returned unchanged, so the function is idempotent: images may be stored at the
    policy's size and resized again when they are used.

    Args:
        image: (H, W, 3) uint8.
        height, width: of the result, pixels.
        centred: False puts all the padding at the top and the left, as SmolVLA does.

    Returns:
        (height, width, 3) uint8.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    return _padded(resize_within(image, height, width), height, width, centred, 0)


def resize_with_pad_unrounded(
    image: np.ndarray, height: int, width: int, centred: bool = True, padding: float | np.ndarray = -1.0
) -> np.ndarray:
    """`resize_with_pad` without its rounding to whole levels, as LeRobot does: it resizes floats in [0, 1].

    Args:
        image: (H, W, 3) uint8.
        padding: value around the image, or one for each channel; LeRobot 0.4's was -3, darker than black.

    Returns:
        (height, width, 3) float32, the image in [-1, 1].

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    size = _size_within(image, height, width)
    scaled = torch.from_numpy(image.astype(np.float32) / np.float32(255))
    if size != image.shape[:2]:  # not by OpenCV, which places its samples to about 1e-4 pixel
        scaled = functional.interpolate(scaled.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)
        scaled = scaled[0].permute(1, 2, 0)
    return _padded(scaled.numpy() * 2 - 1, height, width, centred, padding)


def resize_within(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image as `resize_with_pad` does, without the padding: (h, w, 3) with h = height or w = width.

    Datasets store images in this way; each policy then pads them as it does when it runs, in the middle or at one side.
    An image that fits exactly is returned unchanged.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    size = _size_within(image, height, width)
    if size == image.shape[:2]:
        return image
    # In float32: OpenCV's uint8 path interpolates with 11-bit weights and would differ from the published code.
    import cv2  # here, so that a benchmark of the network alone runs without OpenCV

    fitted = cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(np.rint(fitted), 0, 255).astype(np.uint8)


def resize_same_aspect(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image to (height, width, 3) pixels without padding or distortion.

    For policies that were trained on whole images of one size. An image of that size is returned unchanged.

    Raises InputError unless it is an (H, W, 3) uint8 image of that aspect ratio, up to one pixel.
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


def signed(images: Tensor) -> Tensor:
    """(...) uint8 images to float32 in [-1, 1]; floats are in that range already and returned unchanged. Called on the
    device, so that bytes are uploaded."""
    return images.float() / 255 * 2 - 1 if images.dtype == torch.uint8 else images


def _size_within(image: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of the image when it is scaled to fit into height x width. Raises InputError."""
    _check(image)
    rows, columns = image.shape[:2]
    ratio = max(columns / width, rows / height)
    return max(int(rows / ratio), 1), max(int(columns / ratio), 1)


def _padded(image: np.ndarray, height: int, width: int, centred: bool, value: float | np.ndarray) -> np.ndarray:
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    result = np.full((height, width, 3), value, dtype=image.dtype)
    top, left = height - rows, width - columns
    if centred:
        top, left = top // 2, left // 2
    result[top : top + rows, left : left + columns] = image
    return result


def resize_bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image to (height, width, 3) pixels without keeping its aspect ratio, bicubic with antialiasing, as
    Pillow does.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    _check(image)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def letterbox(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`resize_bicubic` of an image on a grey square; an odd pixel of padding is omitted, as in OpenVLA."""
    _check(image)
    rows, columns = image.shape[:2]
    top, left = (int((max(rows, columns) - n) / 2) for n in (rows, columns))
    return resize_bicubic(np.pad(image, ((top, top), (left, left), (0, 0)), constant_values=127), height, width)


def cover(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The centre, (height, width, 3), of the image that `resize_bicubic` makes just large enough to cover it."""
    _check(image)
    rows, columns = image.shape[:2]
    if columns * height >= rows * width:
        fitted = resize_bicubic(image, height, max(int(height * columns / rows), width))
    else:
        fitted = resize_bicubic(image, max(int(width * rows / columns), height), width)
    top, left = (round((a - b) / 2) for a, b in zip(fitted.shape, (height, width), strict=False))
    return fitted[top : top + height, left : left + width]


def centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The central nine tenths of an image's area, (height, width, 3), for policies that were trained on random crops of
    that size. First scaled by `resize_lanczos`, then cropped, both as TensorFlow does.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    x = resize_lanczos(image, height, width).astype(np.float32) / np.float32(255)
    for axis, size in ((1, width), (0, height)):
        share = np.sqrt(np.float32(0.9))
        places = (1 - share) / 2 * (size - 1) + np.arange(size, dtype=np.float32) * (share * (size - 1) / (size - 1))
        below = np.floor(places).astype(int)
        first, second = (x.take(np.minimum(index, size - 1), axis) for index in (below, below + 1))
        x = first + (second - first) * np.expand_dims((places - below).astype(np.float32), (2, 1 - axis))
    return (np.clip(x, 0, 1) * np.float32(255.5)).astype(np.uint8)


def resize_lanczos(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image to (height, width, 3) pixels without keeping its aspect ratio, by Lanczos's kernel with three
    lobes, antialiased.

    Raises InputError unless it is an (H, W, 3) uint8 image with pixels.
    """
    _check(image)
    if image.shape[:2] == (height, width):
        return image
    rows, columns = (_lanczos(*pair) for pair in zip(image.shape, (height, width), strict=False))
    x = np.tensordot(rows, np.tensordot(columns, image.astype(np.float32), (1, 1)), (1, 1))
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def through_jpeg(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image after JPEG compression (quality 95, 4:2:0) and `resize_lanczos`, as in OpenVLA's evaluations. An image
    that has the size already is returned unchanged.

    The JPEG file is the same as TensorFlow's; TensorFlow decodes it with a faster transform, whose levels differ from
    ours by up to 10.
    """
    _check(image)
    if image.shape[:2] == (height, width):
        return image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95, subsampling="4:2:0")
    return resize_lanczos(np.asarray(Image.open(file)), height, width)


def centre_through_jpeg(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`centre` of the result of `through_jpeg`."""
    return centre(through_jpeg(image, height, width), height, width)


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


@dataclass(frozen=True)
class Fit:
    """How an image is resized for a policy.

    Attributes:
        title: for users.
        resize: (image (H, W, 3) uint8, height, width) -> (height, width, 3) of `dtype`.
        dtype: uint8, or float32 with the image in [-1, 1].
    """

    title: str
    resize: Callable[[np.ndarray, int, int], np.ndarray]
    dtype: type = np.uint8


FITS = {
    "exact": Fit("scaled whole", resize_same_aspect),
    "pad": Fit("scaled and padded", resize_with_pad),
    "pad_top_left": Fit("scaled, padded at top and left", partial(resize_with_pad, centred=False)),
    "pad_unrounded": Fit("scaled without rounding, padded", resize_with_pad_unrounded, np.float32),
    "pad_unrounded_top_left": Fit(
        "scaled without rounding, padded at top and left", partial(resize_with_pad_unrounded, centred=False), np.float32
    ),
    "pad_unrounded_mean": Fit(
        "scaled without rounding, padded with ImageNet's mean at top and left",
        partial(resize_with_pad_unrounded, centred=False, padding=IMAGENET["mean"] * 2 - 1), np.float32
    ),
    "pad_unrounded_minus_3": Fit(
        "scaled without rounding, padded with -3", partial(resize_with_pad_unrounded, padding=-3.0), np.float32
    ),
    "bicubic": Fit("scaled to this aspect", resize_bicubic),
    "letterbox": Fit("padded to a square and scaled", letterbox),
    "cover": Fit("scaled, centre kept", cover),
    "jpeg": Fit("through JPEG, scaled to this aspect", through_jpeg),
    "jpeg_centre": Fit("through JPEG, scaled to this aspect, central 90 % of the area", centre_through_jpeg),
    "centre": Fit("scaled to this aspect, central 90 % of the area", centre),
}
