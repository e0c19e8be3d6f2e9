"""The simulated robots and their tasks (mujoco, no ROS)."""

import os
import sys

if sys.platform == "linux":
    # MuJoCo reads this when it is first imported; its own default needs a display, and draws in the main thread only.
    os.environ.setdefault("MUJOCO_GL", "egl")
