"""FAMILY describes the policy family to vla_ros, which finds it through the entry point in pyproject.toml."""

from my_policy.model import MyConfig, MyPolicy
from vla_ros.policies.family import Family
from vla_ros.policies.processor import StandardProcessor

FAMILY = Family("my_policy", MyConfig, MyPolicy, StandardProcessor, title="my policy")
