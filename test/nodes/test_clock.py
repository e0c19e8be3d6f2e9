"""No message on /clock ends a node, whatever time it tells."""

import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built")

from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from system.support import free_domain

from vla_ros.nodes.clock import PlainNode
from vla_ros.nodes.executor_node import ExecutorNode
from vla_ros.nodes.expert_node import ExpertNode
from vla_ros.nodes.policy_node import PolicyNode
from vla_ros.nodes.recorder_node import RecorderNode
from vla_ros.nodes.sim_node import SimNode
from vla_ros.nodes.task_node import TaskNode

NODES = (ExecutorNode, ExpertNode, PolicyNode, RecorderNode, SimNode, TaskNode)
NO_TIMES = (Time(sec=-1), Time(sec=-(2**31)), Time(nanosec=10**9), Time(sec=2**31 - 1, nanosec=2**32 - 1))


@pytest.fixture
def simulated():
    rclpy.init(args=["--ros-args", "-p", "use_sim_time:=true", "-p", "autostart:=false"], domain_id=free_domain())
    yield
    rclpy.try_shutdown()


def plain():
    return PlainNode("plain")


@pytest.mark.parametrize("make", [*NODES, plain], ids=lambda make: make.__name__)
def test_times_that_no_clock_shows_are_ignored(simulated, make, capfd):
    node = make()
    source = rclpy.create_node("source")
    clock = source.create_publisher(Clock, "/clock", 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def tell(told: Time, shown: Time) -> None:
        """Said until the node's clock shows it; each message is delivered before the next one goes out."""
        end = time.monotonic() + 30.0
        while node.get_clock().now().to_msg() != shown:
            assert time.monotonic() < end
            clock.publish(Clock(clock=told))
            executor.spin_once(timeout_sec=0.1)

    try:
        for good in (Time(sec=5), Time(sec=2**31 - 1, nanosec=10**9 - 1), Time(nanosec=1)):
            tell(good, good)
            for bad in NO_TIMES:
                for _ in range(3):
                    clock.publish(Clock(clock=bad))
                    executor.spin_once(timeout_sec=0.1)
            assert node.get_clock().now().to_msg() == good
    finally:
        executor.shutdown()
        if make is not plain:
            node.end()
        node.destroy_node()
        source.destroy_node()
    said = capfd.readouterr().err
    assert said.count("expected at least 0 s and less than 1e9 ns; such a message is ignored") == 1, said
