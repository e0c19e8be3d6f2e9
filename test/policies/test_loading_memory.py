"""Loading takes hardly more memory than the files have, at about a tenth of the published sizes."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import loading_memory


@pytest.mark.parametrize("family", ["groot", "go1"])
def test_loading_stays_within_five_per_cent_above_the_size_of_the_files(family):
    size, grown = loading_memory.measured(family, 0.1)
    print(f"{grown / size:.3f} x the files")
    assert size > 0.45e9
    assert 0.5 * size < grown < 1.05 * size
