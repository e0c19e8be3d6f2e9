"""Policy families: one folder each, found by `load` from the checkpoint folder alone."""

from vla_ros.policies.policy import Policy, Prefix, Prior
from vla_ros.policies.processor import Processor
from vla_ros.policies.registry import LoadedPolicy, TrainingData, build, describe, families, load, save

__all__ = [
    "LoadedPolicy",
    "Policy",
    "Prefix",
    "Prior",
    "Processor",
    "TrainingData",
    "build",
    "describe",
    "families",
    "load",
    "save",
]
