"""LeRobot itself beside us, where VLA_LEROBOT_PYTHON names a Python that has it."""

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vla_ros.core.observation import Sample
from vla_ros.policies.registry import LoadedPolicy

PYTHON = os.environ.get("VLA_LEROBOT_PYTHON", "")
needed = pytest.mark.skipif(not PYTHON, reason="VLA_LEROBOT_PYTHON names no Python that has lerobot 0.6.1")


def run(script: str, *arguments: Path) -> str:
    """A script of this folder in that Python; what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LD_", "VIRTUAL"))}
    command = [PYTHON, Path(__file__).with_name(script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_actions(folder: Path, loaded: LoadedPolicy, one: Sample, most: float = 1e-5) -> None:
    """LeRobot's actions from the exported folder are those of `loaded`, to `most` of the largest.

    Files for its process go beside the folder.
    """
    policy, config, place = loaded.policy, loaded.policy.config, folder.parent
    chance = torch.Generator().manual_seed(0)
    noise = {key: torch.randn(shape, generator=chance) for key, shape in policy.draws(1).items()}
    with torch.no_grad():
        answer = policy.predict(loaded.processor.inputs([one]), noise)
    expected = loaded.processor.outputs(answer, [one])[0].parts[0].data
    shown = {f"observation.images.{name}": torch.from_numpy(image) for name, image in one.images.items()}
    shown |= {"state": torch.from_numpy(one.state).float()}
    if noise:
        past = policy.past_noise if loaded.family == "diffusion" else noise["noise"][:, :0]
        shown["noise"] = torch.cat([past, noise["noise"]], dim=1)
    save_file(shown, place / "sample.safetensors")
    sizes = {"task": one.instruction}
    if loaded.family.startswith("pi0"):
        sizes |= {key: asdict(getattr(config, key)) for key in ("vision", "prefix", "expert") if hasattr(config, key)}
        sizes["vocabulary"] = config.vocabulary
    (place / "sizes.json").write_text(json.dumps(sizes))
    files = [folder, *(place / file for file in ("sample.safetensors", "sizes.json", "actions.safetensors"))]
    assert "Could not load state dict" not in (said := run("lerobot_answers.py", *files)), said
    found = load_file(files[-1])["actions"][0].numpy()
    error = np.abs(found - expected[: len(found)]).max() / np.abs(expected).max()
    print(f"{loaded.family}: {error:.1e} of the largest")
    assert error < most
