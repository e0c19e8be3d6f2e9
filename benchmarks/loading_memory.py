"""Peak memory of loading an OpenVLA in bfloat16, in a process of its own, beside the size of its files.

    python benchmarks/loading_memory.py [--share 0.1]

Writes a made-up checkpoint with this share of OpenVLA-7B's 7.54 billion parameters, in four shards, under the
folder for temporary files; the whole one takes 15 GB there and as much memory.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "test"))

import openvla_folders
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[1]
MEASURE = """
import re, sys
from pathlib import Path
import torch
from vla_ros.policies import registry
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
registry.describe(sys.argv[1])  # imports all that is needed
before = peak()
registry.load(sys.argv[1], dtype=torch.bfloat16)
print(peak() - before)
"""


def scaled(share: float) -> dict:
    """OpenVLA's sizes, the widths so much smaller that the matrices hold this share of its parameters."""
    factor = math.sqrt(share)

    def part(size: int) -> int:
        return max(round(size * factor / 64), 1) * 64

    width, layers, mlp = openvla_folders.FULL["llama"]
    sizes = {name: (part(row[0]), row[1], part(row[2])) if share < 1 else row
             for name, row in openvla_folders.FULL.items() if name in ("dino", "siglip")}
    llama = (width, layers, mlp) if share == 1 else (part(width), layers, part(mlp))
    return sizes | {"llama": llama, "patch": 14, "image": 224}


def write(folder: Path, sizes: dict) -> int:
    """The checkpoint; its weights in bytes."""
    openvla_folders.write(folder, openvla_folders.TINY)  # the small files
    statistics = {"tiny": openvla_folders.norm_stats(7)}
    said = openvla_folders.config_json(sizes, norm_stats=statistics)
    (folder / "config.json").write_text(json.dumps(said))
    for file in folder.glob("*.safetensors"):
        file.unlink()
    shapes, places = openvla_folders.shapes_of(sizes), {}
    for n in range(4):
        file = f"model-0000{n + 1}-of-00004.safetensors"
        keys = list(shapes)[n * len(shapes) // 4 : (n + 1) * len(shapes) // 4]
        save_file({key: torch.ones(shapes[key], dtype=torch.bfloat16) for key in keys}, folder / file)
        places |= dict.fromkeys(keys, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.1)
    share = parser.parse_args().share
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "openvla"
        size = write(folder, scaled(share))
        said = subprocess.run(
            [sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout
        grown = int(re.findall(r"\d+", said)[-1])
    print(f"files {size / 1e9:.3f} GB, loading takes {grown / 1e9:.3f} GB: {grown / size:.3f} times as much")


if __name__ == "__main__":
    main()
