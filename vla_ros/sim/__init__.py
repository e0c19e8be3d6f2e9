"""The simulated robot and its tasks (mujoco, no ROS)."""
