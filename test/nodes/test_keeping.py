"""The last seconds stay in memory until there is a place for them."""

from pathlib import Path
from unittest.mock import Mock

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built")

from std_srvs.srv import Trigger

from vla_ros.bags.recording import Item
from vla_ros.core.errors import InputError
from vla_ros.nodes.keeping import Keeper


def test_what_cannot_be_written_now_is_written_later(tmp_path):
    node = Mock(folder=lambda: Path(tmp_path / "bag"), robot_name="arm")
    keeper = Keeper(node, 10.0, 1000)
    keeper.start()

    def ask():
        return keeper._serve(Trigger.Request(), Trigger.Response())

    assert (ask().success, ask().message) == (False, "nothing has been heard yet") and not node.open_bag.called
    keeper.put(Item("/state", 1, b"12345678", 1), lasting=False)
    node.open_bag.side_effect = InputError("3 MB are free")
    assert (ask().success, ask().message) == (False, "3 MB are free")
    node.open_bag.side_effect = None
    assert ask().success
    keeper.stop()
    ((_, item), _), = node.record.call_args_list  # fmt: skip
    assert item.data == b"12345678"
