"""What a camera of the simulator says of itself."""

import numpy as np
from sensor_msgs.msg import CameraInfo

from vla_ros.sim.simulated import Simulated


def camera_info(view: Simulated, camera: str, width: int, height: int) -> CameraInfo:
    """Without distortion, for pictures of that size, in the frame NAME_camera."""
    matrix, _ = view.pinhole(camera, width, height)
    projection = np.hstack([matrix, np.zeros((3, 1))])
    info = CameraInfo(
        width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5,
        k=matrix.ravel(), r=np.eye(3).ravel(), p=projection.ravel(),
    )  # fmt: skip
    info.header.frame_id = f"{camera}_camera"
    return info
