"""Peak memory of loading a policy in bfloat16, in a process of its own, beside the size of its files.

    python benchmarks/loading_memory.py [--family openvla|groot|go1] [--share 0.1]

Writes a made-up checkpoint with about this share of the parameters of OpenVLA-7B (7.54 billion), GR00T N1.7-3B (3.14)
or GO-1 (2.82), in four shards, under the folder for temporary files; the whole one takes as much memory, too.
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

import groot_folders
import openvla_folders
import torch
from safetensors.torch import save_file

from vla_ros.policies.groot.sizes import PUBLISHED

ROOT = Path(__file__).parents[1]
WIDTHS = (1024, 1536, 2048, 3072, 4096, 6144, 8192)  # of GR00T's and GO-1's matrices
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


def openvla(folder: Path, share: float) -> dict[str, tuple[int, ...]]:
    """The small files of a folder, and the shapes of its tensors."""
    sizes = scaled(share)
    openvla_folders.write(folder, openvla_folders.TINY)
    statistics = {"tiny": openvla_folders.norm_stats(7)}
    said = openvla_folders.config_json(sizes, norm_stats=statistics)
    (folder / "config.json").write_text(json.dumps(said))
    return openvla_folders.shapes_of(sizes)


def groot(folder: Path, share: float) -> dict[str, tuple[int, ...]]:
    """As `openvla`: N1.7 in LeRobot's layout, whose head's sizes follow from the tensors."""
    divisor, said = _divisor(share), json.loads(json.dumps(PUBLISHED["n1.7"]))
    groot_folders.make_lerobot(folder)
    (folder / "tokenizer.json").unlink()  # of another vocabulary; none is needed to measure
    for name in ("config.json", "policy_preprocessor.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace('_dim": 8', '_dim": 132'))
    for part, names in {"vision_config": ("num_heads",), "text_config": ("num_attention_heads", "num_key_value_heads")
                        }.items():
        for name in ("hidden_size", "intermediate_size", "out_hidden_size", *names):
            if name in said[part]:
                said[part][name] //= divisor
    (folder / "vlm" / "config.json").write_text(json.dumps(said))
    shapes = groot_folders.small_shapes({n: n // divisor for n in WIDTHS}, {})
    return {f"_groot_model.{key}": shape for key, shape in shapes.items()}


def go1(folder: Path, share: float) -> dict[str, tuple[int, ...]]:
    """As `openvla`, with the latent planner."""
    divisor, published = _divisor(share), json.loads((ROOT / "test" / "data" / "keys" / "GO-1.json").read_text())
    smaller, said = {n: n // divisor for n in (64, 128, *WIDTHS)}, published["config"]
    said["latent_planner_config"] |= {"hidden_size": 1024, "intermediate_size": 2048}
    for part in ("vision_config", "llm_config", "action_config", "latent_planner_config"):
        said[part] |= {name: smaller[said[part][name]] for name in ("hidden_size", "intermediate_size")}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "go1"} | said))
    return {key.replace("*", str(layer)): tuple(smaller.get(n, n) for n in shape)
            for key, shape in published["keys"].items() for layer in range(24 if "*" in key else 1)}


def _divisor(share: float) -> int:
    """What widths are divided by: a power of two, so that heads stay whole."""
    return 1 << round(math.log2(1 / share) / 2)


def write(folder: Path, family: str, share: float) -> int:
    """The checkpoint; its weights in bytes."""
    shapes, places = FAMILIES[family](folder, share), {}
    for file in folder.glob("*.safetensors"):
        if not file.name.startswith("policy_"):
            file.unlink()
    for n in range(4):
        file = f"model-0000{n + 1}-of-00004.safetensors"
        keys = list(shapes)[n * len(shapes) // 4 : (n + 1) * len(shapes) // 4]
        save_file({key: torch.ones(shapes[key], dtype=torch.bfloat16) for key in keys}, folder / file)
        places |= dict.fromkeys(keys, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return sum(file.stat().st_size for file in folder.glob("model-*.safetensors"))


FAMILIES = {"openvla": openvla, "groot": groot, "go1": go1}


def measured(family: str, share: float) -> tuple[int, int]:
    """Bytes of a checkpoint's files, and by how much loading it raises the peak of a process's memory."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / family
        size = write(folder, family, share)
        said = subprocess.run(
            [sys.executable, "-c", MEASURE, str(folder)], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
        ).stdout
    return size, int(re.findall(r"\d+", said)[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=sorted(FAMILIES), default="openvla")
    parser.add_argument("--share", type=float, default=0.1)
    args = parser.parse_args()
    size, grown = measured(args.family, args.share)
    print(f"files {size / 1e9:.3f} GB, loading takes {grown / 1e9:.3f} GB: {grown / size:.3f} times as much")


if __name__ == "__main__":
    main()
