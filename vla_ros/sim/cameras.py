"""What the simulated cameras see of space: intrinsics and places, for CameraInfo."""

import mujoco
import numpy as np

from vla_ros.sim.world import World


def pinhole_camera(world: World, name: str, width: int = 640, height: int = 480) -> tuple[np.ndarray, np.ndarray]:
    """The camera `name` of the world, without distortion, for pictures of that size in pixels.

    Returns:
        (3, 3) K, pixels: focal lengths on the diagonal, principal point in the last column.
        (4, 4) from the camera's optical frame (x right, y down, z forwards; REP-103) to the base's, now: the wrist
        camera moves with the arm.
    """
    index = world.model.camera(name).id
    focal = 0.5 * height / np.tan(np.radians(world.model.cam_fovy[index]) / 2)
    matrix = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
    mujoco.mj_camlight(world.model, world.data)
    pose = np.eye(4)
    pose[:3, :3] = world.data.cam_xmat[index].reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = world.data.cam_xpos[index]
    return matrix, pose
