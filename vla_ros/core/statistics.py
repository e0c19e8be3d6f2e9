"""Statistics of rows of numbers, as datasets and policies name them."""

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def of_rows(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of (N, D) values over N: each (D,) float64, count (1,)."""
    rows = np.asarray(rows, dtype=np.float64)
    return {
        "mean": rows.mean(0),
        "std": rows.std(0),
        "min": rows.min(0),
        "max": rows.max(0),
        **dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True)),
        "count": np.array([len(rows)]),
    }
