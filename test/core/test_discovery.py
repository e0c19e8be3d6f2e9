"""The line that says who can take part in a graph."""

import os
import subprocess
import sys

import pytest

from vla_ros.core.discovery import PICTURES, discovery_line, this_machine_only
from vla_ros.core.resources import config_file

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
ANYBODY, HERE = "anybody on the subnet may command", "only programs on this machine may command"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, ["ROS domain 0, discovery range SUBNET (the default of ROS 2)", ANYBODY]),
        ({"ROS_DOMAIN_ID": "7", RANGE: "SUBNET"}, ["ROS domain 7, discovery range SUBNET: ", ANYBODY]),
        ({RANGE: "LOCALHOST"}, ["discovery range LOCALHOST: ", HERE]),
        ({RANGE: "localhost"}, ["LOCALHOST (ROS 2 takes ROS_AUTOMATIC_DISCOVERY_RANGE='localhost' for it)", HERE]),
        ({RANGE: "LOCALHOST", "ROS_STATIC_PEERS": "10.0.0.2;pc"}, [HERE, "and the static peers '10.0.0.2;pc'"]),
        ({RANGE: "OFF", "ROS_STATIC_PEERS": "10.0.0.2"}, ["discovery range OFF: nodes discover no others"]),
        ({RANGE: "SYSTEM_DEFAULT"}, ["up to the middleware's own configuration"]),
        ({"ROS_LOCALHOST_ONLY": "1"}, [ANYBODY, "ROS_LOCALHOST_ONLY counts up to ROS 2 Jazzy only"]),
        ({"ROS_DISCOVERY_SERVER": "10.0.0.9:11811"}, ["the discovery server '10.0.0.9:11811'"]),
        ({"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}, ["with a key of the keystore only"]),
    ],
)
def test_the_line_says_who_may_command(environment, words):
    line = discovery_line(environment)
    assert all(part in line for part in words) and "\n" not in line, line


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is never sure")
@pytest.mark.parametrize(("more", "alone"), [
    ({}, True), ({RANGE: "SUBNET"}, False), ({"ROS_STATIC_PEERS": "pc"}, False), ({"CYCLONEDDS_URI": "x.xml"}, False),
    ({"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}, False),
    ({"FASTDDS_DEFAULT_PROFILES_FILE": str(config_file(PICTURES))}, True),
])  # fmt: skip
def test_the_profile_for_pictures_lets_nobody_in(more, alone):
    assert this_machine_only({RANGE: "LOCALHOST"} | more) is alone


def test_the_domain_is_named():
    assert discovery_line({"ROS_DOMAIN_ID": "7"}).startswith("ROS domain 7, ")


@pytest.mark.parametrize(("said", "chosen"), [("localhost", "localhost only"), ("SUBNET", None)])
def test_ros_takes_an_unknown_range_for_this_machine(said, chosen):
    pytest.importorskip("rclpy", reason="asks ROS 2 itself")
    environment = os.environ | {RANGE: said}
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import rclpy; rclpy.init()"], env=environment, capture_output=True, text=True
    )
    assert ("assuming localhost only" in done.stderr) == (chosen is not None)
