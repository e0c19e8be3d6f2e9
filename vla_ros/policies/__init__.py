"""Policy families: one folder each, found by `load` from the checkpoint folder alone."""

from vla_ros.policies.policy import Answer, Policy, Steer, Traits, tensors
from vla_ros.policies.processor import Processor
from vla_ros.policies.registry import LoadedPolicy, TrainingData, build, describe, families, load, save

__all__ = ["Answer", "LoadedPolicy", "Policy", "Processor", "Steer", "TrainingData", "Traits", "build", "describe",
           "families", "load", "save", "tensors"]
