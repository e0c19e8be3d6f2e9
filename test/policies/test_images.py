import numpy as np
import pytest
import torch

from vla_ros.core.errors import InputError
from vla_ros.policies.images import resize_with_pad, resize_within


def published(image, height, width):
    """The published rule written with torch, before its rounding: ratio, cut sizes, bilinear, centred black."""
    rows, columns = image.shape[:2]
    ratio = max(columns / width, rows / height)
    size = (int(rows / ratio), int(columns / ratio))
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    fitted = torch.nn.functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)
    top, bottom_extra = divmod(height - size[0], 2)
    left, right_extra = divmod(width - size[1], 2)
    padded = torch.nn.functional.pad(fitted, (left, left + right_extra, top, top + bottom_extra))
    return padded[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (224, 224), (100, 333), (50, 50), (448, 448), (97, 95)])
@pytest.mark.parametrize("size", [(224, 224), (96, 96), (64, 96)])
def test_follows_the_published_rule(shape, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    ours, theirs = resize_with_pad(image, *size), published(image, *size)
    assert ours.shape == (*size, 3) and ours.dtype == np.uint8
    assert np.abs(ours - theirs).max() <= 0.52  # the nearest level; OpenCV places samples to about 1e-4 pixel


def test_is_idempotent():
    image = np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    once = resize_with_pad(image, 96, 96)
    assert np.array_equal(resize_with_pad(once, 96, 96), once)


@pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (1080, 1920), (240, 424), (640, 480), (30, 40), (97, 95)])
@pytest.mark.parametrize("size", [(96, 96), (224, 224), (512, 512), (480, 640)])
@pytest.mark.parametrize("centred", [True, False])
def test_a_stored_image_looks_to_a_policy_as_the_camera_does(shape, size, centred):
    image = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    stored = resize_within(image, *size)
    assert stored.shape[0] == size[0] or stored.shape[1] == size[1]
    served = resize_with_pad(image, *size, centred)
    assert np.array_equal(resize_with_pad(stored, *size, centred), served)


def test_keeps_the_aspect_and_pads_with_black():
    image = np.full((480, 640, 3), 255, dtype=np.uint8)
    result = resize_with_pad(image, 96, 96)
    assert (result[12:84] == 255).all() and (result[:12] == 0).all() and (result[84:] == 0).all()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_names_what_is_wrong(image):
    with pytest.raises(InputError, match="expected"):
        resize_with_pad(image, 96, 96)
