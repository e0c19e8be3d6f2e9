"""Draw docs/architecture.png: the packages in their layers, and which imports which.

Layers come from the import contract in pyproject.toml, arrows from the imports themselves. The picture keeps the list
of its arrows in its metadata, so that a test can tell when it is out of date.
"""

import tomllib
from pathlib import Path

import grimp
import matplotlib

matplotlib.use("Agg")

import networkx
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "architecture.png"
PACKAGE = "vla_ros"
NEEDS = {  # what a package needs besides numpy
    "messages": "opencv", "nn": "torch", "policies": "torch", "datasets": "av, pyarrow", "bags": "rosbags",
    "runtime": "torch", "training": "torch", "sim": "mujoco", "nodes": "rclpy", "graph": "rclpy", "bench": "torch",
    "core": "pyyaml",
}


def layers() -> list[list[str]]:
    """Packages of each layer, the highest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layered = next(contract for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in layer.split(":")] for layer in layered["layers"]]


def imports() -> list[tuple[str, str]]:
    """(importing package, imported package), sorted."""
    graph = grimp.build_graph(PACKAGE)
    pairs = set()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            names = [name.split(".")[1] for name in (module, other) if name.count(".")]
            if len(names) == 2 and names[0] != names[1]:
                pairs.add(tuple(names))
    known = {name for layer in layers() for name in layer}
    return sorted(pair for pair in pairs if known.issuperset(pair))


def text(pairs: list[tuple[str, str]]) -> str:
    """What the picture's metadata says of the arrows."""
    return "\n".join(f"{one} -> {other}" for one, other in pairs)


def draw(path: Path) -> None:
    pairs = imports()
    # An import that follows from two others is not drawn.
    drawn = networkx.transitive_reduction(networkx.DiGraph(pairs)).edges
    rows = layers()
    figure, axis = pyplot.subplots(figsize=(9, 1.25 * len(rows)))
    axis.set_xlim(-5.4, 5.4)
    axis.set_ylim(-0.5, len(rows) - 0.5)
    axis.axis("off")
    boxes = {}
    for height, row in enumerate(reversed(rows)):
        # A layer of one package stands aside, so that the arrows that pass the layer are not behind its box.
        aside = 1.5 if len(row) == 1 and 0 < height < len(rows) - 1 else 0.0
        for index, name in enumerate(row):
            boxes[name] = axis.text(
                (index + 0.5 - len(row) / 2) * 3.0 + aside, height,
                f"{name}/\n{NEEDS[name]}" if name in NEEDS else f"{name}/",
                ha="center", va="center", fontsize=10, zorder=3,
                bbox={"boxstyle": "round,pad=0.45", "facecolor": "#e8f1f8", "edgecolor": "#0072B2"},
            )
    figure.canvas.draw()  # gives the boxes their sizes, at whose edges the arrows end
    for one, other in drawn:
        axis.annotate(
            "", xy=boxes[other].get_position(), xytext=boxes[one].get_position(), zorder=1,
            arrowprops={
                "arrowstyle": "-|>", "color": "#5b6b7a", "lw": 1.2, "shrinkA": 0, "shrinkB": 0,
                "patchA": boxes[one].get_bbox_patch(), "patchB": boxes[other].get_bbox_patch(),
            },
        )
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Imports": text(pairs)})


if __name__ == "__main__":
    draw(PICTURE)
