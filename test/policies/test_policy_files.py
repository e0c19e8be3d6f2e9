"""Every shipped policy file serves a folder of its family, made small, on the robot file that it is written for."""

from pathlib import Path

import go1_folders
import groot_folders
import lerobot_checkpoints
import numpy as np
import openvla_folders
import pi0_folders
import pytest
import real_families
import torch
import yaml
from safetensors.torch import load_file, save_file

from vla_ros.core.robot import RobotSpec
from vla_ros.policies import load
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.serving import check_robot

FOLDER = Path(__file__).parents[2] / "config" / "policies"


def openpi(adaptive, dims):
    def write(path):
        pi0_folders.write_openpi(path, pi0_folders.TINY, adaptive, dims)
        pi0_folders.write_sentencepiece(path / "tokenizer.model")
    return write


def go1(path, planner):
    pi0_folders.write_sentencepiece(path.parent / "tokenizer.model")
    go1_folders.make(path, 6, path.parent / "tokenizer.model", planner)


def one_image(path, family="diffusion", joints=2):
    """The one image of LeRobot's PushT and Meta-World is square, and has no name of a camera."""
    lerobot_checkpoints.make(path, family, ("top",), joints=joints)
    for file in path.glob("*.json"):
        text = file.read_text().replace("observation.images.top", "observation.image")
        file.write_text(text.replace("3, 48, 64", "3, 96, 96"))
    for file in path.glob("*processor*.safetensors"):
        tensors = load_file(file)
        save_file({name.replace("images.top", "image"): tensor for name, tensor in tensors.items()}, file)


def libero(path, family):
    """Eight numbers of state, seven of action."""
    if family == "smolvla":
        lerobot_checkpoints.make(path, family, ("image", "image2"), joints=8)
    else:
        pi0_folders.write_lerobot(path, pi0_folders.TINY, family, 8, ("image", "image2"))
        pi0_folders.write_sentencepiece(path / "tokenizer.model")
    for file in path.glob("*.json"):
        file.write_text(file.read_text().replace('"type": "ACTION", "shape": [8]', '"type": "ACTION", "shape": [7]'))
    for file in path.glob("*processor*.safetensors"):
        save_file({name: tensor[:7].clone() if name.startswith("action.") else tensor
                   for name, tensor in load_file(file).items()}, file)


LEROBOT = {name: lambda path, name=name: real_families.make(path, name)
           for name in ("pi0", "pi05", "smolvla", "act", "diffusion", "groot", "xvla", "pi0_fast")}
BRIDGE = {name: openvla_folders.norm_stats(7, seed=seed, mask=[True] * 6 + [False])
          for seed, name in enumerate(("bridge_orig", "fractal"))}
# policy file: the robot file that it names, and folders of the checkpoints that it is for
CASES = {
    "act_aloha_sim": ("aloha", {"act": lambda path: lerobot_checkpoints.make(path, "act", ("top",), joints=14)}),
    "diffusion_pusht": ("pusht", {"diffusion": one_image}),
    "go1_so101": ("so101", {"go1": lambda path: go1(path, True), "go1_air": lambda path: go1(path, False)}),
    "groot_so100": ("so101", {name: lambda path, name=name: groot_folders.make_nvidia(path, name, arm=5)
                              for name in groot_folders.VECTORS}),
    "lekiwi_lerobot": (
        "lekiwi", {"smolvla": lambda path: lerobot_checkpoints.make(path, "smolvla", ("front", "wrist"), joints=9)}
    ),
    "libero_lerobot": (
        "libero", {name: lambda path, name=name: libero(path, name) for name in ("pi05", "smolvla")}
    ),
    "metaworld_lerobot": ("metaworld_deltas", {"smolvla": lambda path: one_image(path, "smolvla", 4)}),
    "openvla_so101": ("so101", {"openvla": lambda path: openvla_folders.write(path, statistics=BRIDGE)}),
    "openvla_oft_aloha": ("aloha", {"film": lambda path: openvla_folders.write_oft(path, 14, 14, film=True)}),
    "openvla_oft_libero": ("libero", {"oft": lambda path: openvla_folders.write_oft(path, 7, 8)}),
    "pi05_droid": ("droid", {"pi05": openpi(True, 8)}),
    "pi0_aloha": ("aloha", {"pi0": openpi(False, 14)}),
    "pi0_droid": ("droid", {"pi0": openpi(False, 8)}),
    "pi0_fast_so101": ("so101", {"pi0_fast": LEROBOT["pi0_fast"]}),
    "so101_lerobot": ("so101", {name: LEROBOT[name] for name in (*LEROBOT,) if name not in ("xvla", "pi0_fast")}),
    "xvla_so101": ("so101", {"xvla": LEROBOT["xvla"]}),
}


def test_every_shipped_file_has_its_case():
    assert set(CASES) == {path.stem for path in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, (_, kinds) in CASES.items() for kind in kinds])
@torch.no_grad()
def test_a_shipped_policy_file_serves(name, kind, tmp_path):
    robot, text = RobotSpec.load(CASES[name][0]), (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"config/robots/{robot.name}.yaml" in text
    CASES[name][1][kind](tmp_path / "theirs")
    data = yaml.safe_load(text) | {"checkpoint": "theirs"}
    data.pop("tokenizer", None)  # the made-up folders bring theirs
    data.get("overrides", {}).pop("action_tokenizer", None)
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    loaded = load(tmp_path / "policy.yaml", robot=robot)
    check_robot(loaded.processor, robot)
    assert loaded.processor.step_dt == data["step_dt"]
    one = example_sample(robot, loaded.processor)
    torch.manual_seed(0)
    answer = loaded.policy.predict(loaded.processor.inputs([one]))
    *tool, part = loaded.processor.outputs(answer, [one])[0].parts
    assert part.names == tuple(name for name in robot.joint_names if name not in data.get("hold", ()))
    assert [one.frame for one in tool] == [data[name]["frame"] for name in ("tool",) if name in data]
    for one in (*tool, part):
        assert one.data.shape == (loaded.processor.horizon, len(one.names)) and np.isfinite(one.data).all()
