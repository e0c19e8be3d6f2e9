"""Diffusion Policy (Chi et al. 2023): a U-Net that denoises actions under a history of observations."""

from vla_ros.policies.lerobot_family import LeRobotFamily

FAMILY = LeRobotFamily("diffusion")
