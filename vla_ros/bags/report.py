"""An evaluation for people and for programs: a plot and a JSON file."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from vla_ros.bags.compare import Comparison
from vla_ros.bags.evaluate import Evaluation
from vla_ros.core.errors import InputError

matplotlib.use("Agg")
from matplotlib import pyplot

pyplot.rcParams["text.parse_math"] = False  # names and instructions are texts as they are


def write_report(folder: str | Path, evaluations: Sequence[Evaluation], comparison: Comparison | None) -> Path:
    """Write `report.json` and `errors.png` into a folder, made if missing. Raises InputError."""
    folder = Path(folder)
    figure = _plot(evaluations)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(as_dict(evaluations, comparison), indent=2), encoding="utf-8")
        figure.savefig(folder / "errors.png", dpi=110)
    except OSError as error:
        raise InputError(f"report {folder}: {error.strerror}") from error
    finally:
        pyplot.close(figure)
    return folder


def as_dict(evaluations: Sequence[Evaluation], comparison: Comparison | None) -> dict:
    """Plain values; errors in rad or m, scores as fractions of the joints' ranges, null where there is no value."""
    return {
        "policies": [
            {
                "name": e.name,
                "step_dt": e.step_dt,
                "chunks": len(e.errors),
                "episodes": len(np.unique(e.episodes)),
                "score": e.score,
                "rows": e.rows,
                "per_joint": dict(zip(e.joint_names, e.per_joint.tolist(), strict=True)),
                "per_step": [[None if np.isnan(v) else v for v in row] for row in e.per_step.tolist()],
                "per_instruction": {
                    text: {"chunks": chunks, "score": score} for text, (chunks, score) in e.per_instruction().items()
                },
            }
            for e in evaluations
        ],
        "comparison": None if comparison is None else {
            key: None if isinstance(value, float) and np.isnan(value) else value
            for key, value in comparison.__dict__.items()
        },
    }  # fmt: skip


def _plot(evaluations: Sequence[Evaluation]) -> pyplot.Figure:
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    joints = np.arange(len(evaluations[0].joint_names))
    texts = list(evaluations[0].per_instruction())
    width = 0.8 / len(evaluations)
    for k, e in enumerate(evaluations):
        steps = np.mean(e.per_step / e.ranges, axis=1) * 100
        style = {"label": e.name, "color": f"C{k}"}
        last = k == len(evaluations) - 1
        axes[0].plot(np.arange(len(steps)) * e.step_dt, steps, ls="--" if last else "-", marker=".", **style)
        place = (k - (len(evaluations) - 1) / 2) * width
        axes[1].bar(joints + place, e.per_joint / e.ranges * 100, width, **style)
        axes[2].barh(np.arange(len(texts)) + place, [e.per_instruction()[t][1] * 100 for t in texts], width, **style)
    axes[0].set(title="by time ahead", xlabel="s after the observation", ylabel="mean error, % of the joint range")
    axes[1].set(title="by joint", ylabel="mean error, % of the joint range")
    axes[1].set_xticks(joints, evaluations[0].joint_names, rotation=30, ha="right")
    axes[2].set(title="by instruction", xlabel="mean error, % of the joint range")
    axes[2].set_yticks(np.arange(len(texts)), [t if len(t) < 36 else t[:33] + "..." for t in texts])
    axes[2].invert_yaxis()
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[0].legend()
    return figure
