"""A path of the base in the place of its velocities: made of them, followed by the executor, or refused."""

import numpy as np
import pytest
from control.test_base_path import OMNI, Ground, arc

from vla_ros.control.admission import Refusal
from vla_ros.core.chunk import PATH, Space
from vla_ros.core.errors import InputError
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.path_actions import as_velocities, driven, driving

AXES = {"x": "vx", "y": "vy", "yaw": "w"}
OWN = Embodiment.identity(("w", "vx", "vy", "arm"), {}, 0.1, path=AXES)


def test_a_path_is_where_velocities_lead():
    np.testing.assert_allclose(driven(np.tile([0.3, 0.0, 0.6], (10, 1)), 0.1), arc(0.3, 0.6, 10), atol=1e-12)
    speeds = np.random.default_rng(0).normal(size=(4, 9, 3)) * [0.5, 0.5, 3.0]
    way, pose = driven(speeds, 0.1), np.zeros((4, 3))
    for k in range(9):  # in many small steps
        for _ in range(400):
            cos, sin, (x, y, yaw) = np.cos(pose[:, 2]), np.sin(pose[:, 2]), speeds[:, k].T
            pose += np.stack([cos * x - sin * y, sin * x + cos * y, yaw], axis=-1) * 0.1 / 400
        np.testing.assert_allclose(way[:, k], pose, atol=5e-3)
    np.testing.assert_allclose(driving(way, 0.1), speeds, atol=1e-9)


def test_an_embodiment_has_the_path_in_the_place_of_the_velocities():
    assert [d.joint for d in OWN.actions] == [None, None, None, "arm"] and OWN.commanded == ("arm",)
    rng = np.random.default_rng(1)
    targets, state = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 4))
    actions = OWN.actions_to_policy(targets, state)
    np.testing.assert_allclose(actions[..., :3], driven(targets[..., [1, 2, 0]], 0.1))
    np.testing.assert_allclose(OWN.actions_to_robot(actions, state), targets)
    (one, _) = OWN.targets(actions, state)
    assert [(part.names, part.space) for part in one.parts] == [
        (("arm",), Space.JOINT_POSITION), (PATH, Space.BASE_PATH)
    ]
    np.testing.assert_allclose(OWN.joint_rows(one, state[0]), targets[0])
    arm, base = as_velocities(one, AXES, 0.1).parts
    assert arm is one.parts[0] and (base.names, base.space) == (("vx", "vy", "w"), Space.JOINT_POSITION)
    np.testing.assert_allclose(base.data, targets[0][:, [1, 2, 0]])
    again = Embodiment.from_dict(OWN.to_dict())
    assert again == OWN
    said = OWN.to_dict()
    said["actions"][0] = {"joint": None, "scale": 100.0}  # cm
    other = Embodiment.from_dict(said)
    np.testing.assert_allclose(other.actions_to_policy(targets, state)[..., 0], 100 * actions[..., 0])
    np.testing.assert_allclose(other.actions_to_robot(actions * [100, 1, 1, 1], state), targets)


def test_the_executor_drives_it():
    ground = Ground(OMNI).activate()
    own = Embodiment.identity(("w", "vx", "vy"), {}, 0.1, path=AXES)
    speeds = np.concatenate([np.tile([0.8, 0.3, 0.1], (8, 1)), np.zeros((12, 3))])
    (targets,) = own.targets(own.actions_to_policy(speeds[None], np.zeros((1, 3))), np.zeros((1, 3)))
    start = ground.pose.copy()
    assert not isinstance(ground.send(step_dt=0.1, targets=targets), Refusal)
    ground.tick(200)
    np.testing.assert_allclose(ground.seen_from(start), targets.path.data[-1], atol=0.02)


@pytest.mark.parametrize("changes, said", [
    ({"path": {"joints": {"x": "vx"}}}, "path: velocities of \\['x'\\], expected those of x and yaw"),
    ({"path": {"joints": {"x": "vx", "z": "vy", "yaw": "w"}}}, "velocities of \\['x', 'yaw', 'z'\\]"),
    ({"path": {"joints": AXES, "first": 1}}, "path: dimensions 1 to 3 of `actions`, .* \\['arm'\\] are joints"),
    ({"path": {"joints": AXES | {"x": "arm"}}}, "path: \\['arm'\\] not in `hold`"),
    ({"actions": [{"joint": None, "mode": "delta"}, None, None, "arm"]},
     "path: actions\\[0\\] has mode delta, expected scale and offset at most$"),
    ({"tool": {"space": "pose", "rotation": "vector", "frame": "base"},
      "actions": [{"joint": None}] * 6 + ["arm"]}, "path: first 0, tool: first 0: the same dimensions"),
])  # fmt: skip
def test_what_cannot_be_a_path_is_refused(changes, said):
    row = OWN.to_dict() | changes
    row["actions"] = [{"joint": None} if one is None else one for one in row["actions"]]
    with pytest.raises(InputError, match=said):
        Embodiment.from_dict(row)
