"""Executor nodes that are constructed and never spun."""

from contextlib import contextmanager

import pytest


@pytest.fixture
def unspun(tmp_path):
    """A context of ROS in a domain; it gives a function that makes nodes of the stage's robot, and ends them."""
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
    from rclpy.parameter import Parameter
    from system.stage import ROBOT

    from vla_ros.nodes.executor_node import ExecutorNode

    robot = tmp_path / "robot.yaml"
    robot.write_text(ROBOT)

    @contextmanager
    def domain(number, **options):
        context, made = rclpy.Context(), []
        rclpy.init(context=context, domain_id=number)

        def make(remapped=(), **parameters):
            values = {"robot": str(robot), **parameters}
            overrides = [Parameter(name, value=value) for name, value in values.items()]
            rules = ["--ros-args", *(word for rule in remapped for word in ("-r", rule))]
            made.append(ExecutorNode(context=context, parameter_overrides=overrides, cli_args=rules, **options))
            return made[-1]

        yield make
        for node in made:
            node.end()
            node.destroy_node()
        rclpy.try_shutdown(context=context)

    return domain
