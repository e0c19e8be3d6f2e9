"""Quality of service of single topics, from ROS's own parameters.

    qos_overrides:
      /camera/front/image_raw:
        subscription: {reliability: reliable, depth: 1}
"""

from collections.abc import Iterator
from copy import copy
from typing import Any

from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from vla_ros.core.errors import InputError, shown

_PREFIX = "qos_overrides."
_CHOICES = {
    "history": ("keep_last", "keep_all"),
    "depth": None,  # a number
    "reliability": ("reliable", "best_effort"),
    "durability": ("volatile", "transient_local"),
}
_DEEPEST = 100_000
_FIXED = ("claim", "e_stop")  # decides which of two executors commands; received from publishers of every kind


class QosOverrides:
    """Base class, before `Node`: parameters override the QoS of publishers and subscriptions."""

    _parameter_overrides: dict[str, Parameter] = {}  # rclpy's, absent while `Node` makes publishers of its own
    _overridden: frozenset[str] = frozenset()

    def create_publisher(self, msg_type: Any, topic: str, qos_profile: Any, **options: Any) -> Any:
        taken = self._qos("publisher", topic, qos_profile)
        return super().create_publisher(msg_type, topic, **(options | taken))

    def create_subscription(self, msg_type: Any, topic: str, callback: Any, qos_profile: Any, **options: Any) -> Any:
        taken = self._qos("subscription", topic, qos_profile)
        return super().create_subscription(msg_type, topic, callback, **(options | taken))

    def unused_qos_overrides(self) -> Iterator[str]:
        """The parameters that no publisher or subscription has used, in words."""
        for name in sorted(self._parameter_overrides):
            if name.startswith(_PREFIX) and name not in self._overridden:
                yield (
                    f"parameter {shown(name)}: no such publisher or subscription, expected {_PREFIX}/TOPIC.publisher.X "
                    f"or {_PREFIX}/TOPIC.subscription.X, X one of {', '.join(_CHOICES)}"
                )

    def _qos(self, kind: str, topic: str, qos: QoSProfile | int) -> dict[str, Any]:
        """QoS of the publisher or subscription. Raises InputError for an override that cannot be applied."""
        prefix = f"{_PREFIX}{self.resolve_topic_name(topic)}.{kind}."
        given = {name: value for name, value in self._parameter_overrides.items() if name.startswith(prefix)}
        if not given:
            return {"qos_profile": qos}
        if topic.rpartition("/")[2] in _FIXED:
            raise InputError(f"parameter {next(iter(given))}: safety depends on the QoS of {topic}, expected none")
        policies = [name.removeprefix(prefix) for name in given]
        for policy, (name, parameter) in zip(policies, given.items(), strict=True):
            value, choices = parameter.value, _CHOICES.get(policy, ())
            if policy not in _CHOICES:
                raise InputError(f"parameter {shown(name)}: expected one of {', '.join(_CHOICES)}")
            if choices is None and not (type(value) is int and 1 <= value <= _DEEPEST):
                raise InputError(f"parameter {name}: {shown(value)}, expected 1 to {_DEEPEST}")
            if choices is not None and value not in choices:
                raise InputError(f"parameter {name}: {shown(value)}, expected one of {', '.join(choices)}")
        self._overridden = self._overridden | set(given)
        kinds = [QoSPolicyKind[policy.upper()] for policy in policies]
        qos = copy(qos) if isinstance(qos, QoSProfile) else QoSProfile(depth=qos)  # rclpy writes into it
        return {"qos_profile": qos, "qos_overriding_options": QoSOverridingOptions(kinds)}
