"""Frames as GR00T sees them."""

import warnings

import numpy as np
import pytest

from vla_ros.policies.groot.images import PATHS


@pytest.mark.parametrize("path", PATHS)
def test_a_frame_that_others_read_too_is_taken_without_a_warning(path):
    """The observations of a running robot share their frames, which are read-only; torch warns of such."""
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = PATHS[path](frame.copy(), (24, 24), 0.9)
    frame.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(PATHS[path](frame, (24, 24), 0.9), expected)
