"""ACT (Zhao et al. 2023): one pass from images and state to a chunk."""

from vla_ros.policies.lerobot_family import LeRobotFamily

FAMILY = LeRobotFamily("act")
