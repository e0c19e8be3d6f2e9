"""Pictures that are larger than the middleware's shared memory by default reach a reader that is late."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.support import free_domain

from vla_ros.core.resources import config_file
from vla_ros.nodes import shared_memory

_AWAY = 0.3  # s that the reader stands still: longer than sending takes, shorter than the second after which it is dead
PUBLISHER = """
import sys
import rclpy
from sensor_msgs.msg import Image
from vla_ros.nodes.qos import sensor_qos
from vla_ros.nodes.shared_memory import make_room_for_pictures

make_room_for_pictures()
rclpy.init()
publisher = rclpy.create_node("camera").create_publisher(Image, "image", sensor_qos())
for line in sys.stdin:
    publisher.publish(Image(data=bytes(640 * 480 * 3)))
    print(publisher.get_subscription_count())
"""
READER = """
import rclpy
from sensor_msgs.msg import Image
from vla_ros.nodes.qos import sensor_qos

rclpy.init()
node = rclpy.create_node("reader")
node.create_subscription(Image, "image", lambda message: print(len(message.data)), sensor_qos())
rclpy.spin(node)
"""


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen]]:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(free_domain()), "PYTHONUNBUFFERED": "1"}
    made = [
        subprocess.Popen([sys.executable, "-c", text], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for text in (PUBLISHER, READER)
    ]
    yield made
    for program in made:
        program.kill()
        program.communicate()


def said(program: subprocess.Popen, patience: float) -> str:
    """Its next line, empty where none comes."""
    ready, _, _ = select.select([program.stdout], [], [], patience)
    return os.read(program.stdout.fileno(), 100).decode().strip() if ready else ""


def test_a_picture_reaches_a_best_effort_reader_that_does_not_run_while_it_is_sent(programs):
    publisher, reader = programs

    def publish() -> str:
        publisher.stdin.write(b"\n")
        publisher.stdin.flush()
        return said(publisher, 20.0)

    while publish() == "0":
        pass
    while said(reader, 1.0):  # what came while they discovered each other
        pass
    for _ in range(3):  # a busy machine may halt it for longer than _AWAY
        reader.send_signal(signal.SIGSTOP)
        publish()
        said(reader, _AWAY)
        reader.send_signal(signal.SIGCONT)
        if arrived := said(reader, 20.0):
            break
    assert arrived == str(640 * 480 * 3)


@pytest.mark.parametrize(
    ("environment", "ours"),
    [
        ({}, True),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}, False),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": "mine.xml"}, False),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, False),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, True),
    ],
)
def test_a_profile_and_transports_of_the_users_own_count_instead(environment, ours: bool, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(environment))
    shared_memory.make_room_for_pictures()
    room = {"FASTDDS_DEFAULT_PROFILES_FILE": str(config_file("fastdds/pictures.xml"))}
    assert os.environ == environment | (room if ours else {})


def test_the_simulator_has_the_room(graph):
    graph.start("sim_node", parameters={"robot": "so101", "autostart": False})
    graph.configure("sim_node")
    maps = Path(f"/proc/{graph.processes['sim_node'].popen.pid}/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if "/dev/shm/fastdds_" in line]
    assert max(int(end, 16) - int(begin, 16) for begin, end in spans) > 16_000_000
