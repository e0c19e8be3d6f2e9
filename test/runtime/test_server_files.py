"""Servers that a policy file describes: keys, units and signs, and what is wrong in such a file."""

from pathlib import Path

import numpy as np
import pytest
from remote_servers import LONG, ROBOT, described_by_file, once, scripted

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.registry import load
from vla_ros.policies.server_file import Keys, read_server
from vla_ros.runtime.remote.described import find
from vla_ros.runtime.remote.session import RemoteSession
from vla_ros.runtime.remote.wire import pack, unpack
from vla_ros.runtime.serving import open_session

SERVERS = Path(__file__).parents[2] / "config" / "servers"
# robot -> what openpi's example of such an observation has, key -> shape; joints, positions and what is told of them;
# joints, actions and what becomes of them in the first row.
EXAMPLES = {
    "droid": (
        {"observation/exterior_image_1_left": (224, 224, 3), "observation/wrist_image_left": (224, 224, 3),
         "observation/joint_position": (7,), "observation/gripper_position": (1,)},
        {0: (0.5, 0.5), 7: (0.8, 1.0)}, {0: (1.0, 0.7), 7: (1.0, 0.8)},
    ),
    "aloha": (
        {"images.cam_high": (3, 224, 224), "images.cam_left_wrist": (3, 224, 224), "state": (14,),
         "images.cam_right_wrist": (3, 224, 224)},
        {1: (0.5, 0.5), 6: (0.058, 1.0), 13: (0.01844, 0.0)}, {1: (-0.3, -0.3), 6: (1.0, 0.0578), 13: (0.0, 0.0184)},
    ),
    "so101": (
        {"observation/image": (224, 224, 3), "observation/wrist_image": (224, 224, 3), "observation/state": (6,)},
        {0: (np.pi / 18, 10.0), 5: (1.74533, 100.0)}, {0: (90.0, np.pi / 2), 5: (0.0, -0.17453)},
    ),
}  # fmt: skip


def test_every_shipped_file_has_its_example():
    assert set(EXAMPLES) == {path.stem for path in SERVERS.glob("*.yaml")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_shipped_files_for_the_key_layouts_of_openpi(name, tmp_path):
    """What such a server sees, and what becomes of its actions: units and signs of the file count."""
    spec, (shapes, told, asked) = RobotSpec.load(name), EXAMPLES[name]
    seen = []

    def handle(connection):
        connection.send(pack({"reset_pose": [0.0]}))
        for question in connection:
            seen.append(unpack(question))
            actions = np.zeros((3, len(spec.joints)), np.float32)
            for column, (value, _) in asked.items():
                actions[:, column] = value
            connection.send(pack({"actions": actions, "server_timing": {"infer_ms": 0.01}}))

    text = (SERVERS / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"config/robots/{spec.name}.yaml" in text
    with scripted(handle) as port:
        path = tmp_path / "server.yaml"
        path.write_text(text.replace("ws://localhost:8000", f"ws://127.0.0.1:{port}\ndeadline: {LONG}"))
        remote = open_session(path, spec)
        state = np.full((1, len(spec.joints)), 0.03)
        for column, (value, _) in told.items():
            state[:, column] = value
        images = {camera: np.full((1, 30, 40, 3), 200, np.uint8) for camera in spec.camera_names}
        (result,) = remote.infer([Sample(images, state, "touch it")])
        remote.close()
    message = seen[-1]
    assert message["prompt"] == "touch it" and set(message) == {key.split(".")[0] for key in shapes} | {"prompt"}
    assert {key: find(message, key).shape for key in shapes} == shapes
    numbers = np.concatenate([find(message, key) for key, shape in shapes.items() if len(shape) == 1])
    for column, (_, value) in told.items():
        assert numbers[column] == pytest.approx(value, abs=1e-3)
    first = find(message, next(iter(shapes)))
    assert first.dtype == np.uint8
    first = first.transpose(1, 2, 0) if first.shape[0] == 3 else first
    assert (first[:28] == 0).all() and (first[28:-28] == 200).all()  # scaled and padded, as openpi's client does
    (part,) = result.targets.parts
    assert part.names == spec.joint_names and part.data.shape == (3, len(spec.joints))
    for column, (_, value) in asked.items():
        assert part.data[0, column] == pytest.approx(value, abs=1e-3)
    assert result.flight_time > 0


@pytest.mark.parametrize("text, words", [
    ("server: http://a", "expected ws://HOST:PORT"), ("server: 3", "expected a string"),
    ("server: ws://a:1\ndeadline: 0", "0.01 to 3600"), ("server: ws://a:1\nimages: png", "raw or jpeg"),
    ("server: ws://a:1\ncertificate: c.pem", "has no TLS"), ("server: ws://a:1\nimage_fit: exactly", "expected one of"),
    ("server: ws://a:1\ncheckpoint: c\ncameras: {}\nstate: []", "unknown field"),
    ("server: ws://a:1\nkeys: {state: {a: 2}}", "missing"), ("server: ws://a:1\nstep_dt: 0.1", "step_dt alone"),
    ("server: ws://a:1\nkeys: {gripper: a}", "keys.gripper: unknown field"),
    ("server: ws://a:1\nkeys: {state: {prompt: 2}}", "'prompt': expected a name that no other"),
    ("server: ws://a:1\nkeys: {prompt: a..b}", "a dot stands between"),
    ("server: ws://a:1\ncameras: {a: front}\nstate: [gripper]", "missing step_dt"),
], ids=lambda _: "file")  # fmt: skip
def test_a_policy_file_with_a_server_that_is_wrong(text, words, tmp_path):
    path = tmp_path / "server.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_server(path)
    assert words in str(error.value) and str(path) in str(error.value)


def test_keys_and_state_of_a_policy_file_must_agree():
    with scripted(once(pack({}))) as port:
        with pytest.raises(InputError, match="4 numbers, expected 6"):
            RemoteSession(described_by_file(port, keys=Keys(state={"a": 4})), ROBOT)
        with pytest.raises(InputError, match="keys.cameras"):
            RemoteSession(described_by_file(port, keys=Keys(cameras={"a": "front"})), ROBOT)


def test_where_weights_are_needed_a_server_is_refused(tmp_path):
    path = tmp_path / "server.yaml"
    path.write_text("server: ws://a:1")
    for named in ("ws://a:1", "wss://a:1", path):
        with pytest.raises(InputError, match="weights are needed"):
            load(named)
