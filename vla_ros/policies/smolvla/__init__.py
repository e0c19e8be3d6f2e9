"""SmolVLA (Shukor et al. 2025): a small vision-language model and a flow-matching expert."""

from vla_ros.policies.lerobot_family import LeRobotFamily

FAMILY = LeRobotFamily("smolvla")
