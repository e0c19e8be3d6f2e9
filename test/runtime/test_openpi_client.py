"""PyPI's openpi-client beside us, both ways, where VLA_OPENPI_PYTHON names a Python that has it."""

import os
import subprocess
from pathlib import Path

import families
import numpy as np
import pytest
from remote_servers import LONG, ROBOT, serving
from runtime.test_policy_server import as_sample, observation

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.server_file import Keys, ServerFile
from vla_ros.runtime.remote.session import RemoteSession
from vla_ros.runtime.session import PolicySession

PYTHON = os.environ.get("VLA_OPENPI_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="VLA_OPENPI_PYTHON names no Python that has openpi-client 0.1.2")
SCRIPT = Path(__file__).parents[1] / "openpi_python.py"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_", "VIRTUAL"))}


@pytest.mark.parametrize("family", ("pi0", "act", "openvla"))
def test_its_client_asks_our_server(family, tmp_path):
    policy = families.fresh(family)
    local, file = PolicySession(policy), tmp_path / "observations.npz"
    told = [observation(**{"observation/state": np.full(6, 0.1 * k), "prompt": families.INSTRUCTIONS[k % 2]})
            for k in range(3)]  # fmt: skip
    np.savez(file, **{name: np.stack([one[name] for one in told]) for name in told[0]})
    with serving(policy, token="secret") as port:
        done = subprocess.run([PYTHON, SCRIPT, "client", str(port), file, "secret"], env=CLEAN, capture_output=True,
                              text=True, timeout=900)  # fmt: skip
        assert done.returncode == 0, done.stderr
    found = np.load(f"{file}.answers.npz")
    wanted = [local.infer([as_sample(one)])[0].targets.parts for one in told]
    np.testing.assert_array_equal(found["actions"], [np.concatenate([p.data for p in parts], 1) for parts in wanted])
    assert tuple(found["joints"]) == ROBOT.joint_names
    assert "no 'observation/front', expected" in done.stdout  # it raises what our server says


def test_we_ask_a_server_made_of_it():
    robot = RobotSpec.load("droid")
    joints = robot.joint_names
    embodiment = Embodiment.identity(joints, {"observation/exterior_image_1_left": "exterior",
                                              "observation/wrist_image_left": "wrist"}, 0.0667)  # fmt: skip
    keys = Keys(state={"observation/joint_position": 7, "observation/gripper_position": 1})
    process = subprocess.Popen([PYTHON, SCRIPT, "server", "2"], env=CLEAN, stdout=subprocess.PIPE, text=True)
    try:
        url = f"ws://127.0.0.1:{process.stdout.readline().strip()}"
        remote = RemoteSession(ServerFile(url, deadline=LONG, keys=keys, image_size=(224, 224), embodiment=embodiment),
                               robot)  # fmt: skip
        images = {"exterior": np.zeros((1, 720, 1280, 3), np.uint8), "wrist": np.full((1, 224, 224, 3), 51, np.uint8)}
        state = np.arange(8.0)[None] / 10
        for _ in range(2):
            (result,) = remote.infer([Sample(images, state, "put it down")])
            (part,) = result.targets.parts
            assert part.names == joints and part.data.shape == (10, 8)
            np.testing.assert_allclose(part.data[:, :7], np.tile(2 * state[0, :7], (10, 1)), rtol=1e-6)
            np.testing.assert_allclose(part.data[:, 7], 0.2, rtol=1e-6)
            assert 0 < result.flight_time < result.total_time
            with pytest.raises(InputError, match="answered with an error: RuntimeError: out of memory"):
                remote.infer([Sample(images, state, "fail")])  # which ends the connection; the next one is new
        remote.close()
    finally:
        process.kill()
        process.wait()
