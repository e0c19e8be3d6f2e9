"""Policy families: one folder each, found by `load` from the checkpoint folder alone."""

from vla_ros.policies.policy import LoadedPolicy, Policy, Prefix, Prior, Processor
from vla_ros.policies.registry import TrainingData, build, describe, families, load, save

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
