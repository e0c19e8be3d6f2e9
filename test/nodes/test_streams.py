"""The names of message types come from files and from the network."""

import sys

import pytest

pytest.importorskip("std_msgs", reason="messages of ROS 2")

from vla_ros.core.errors import InputError
from vla_ros.nodes.streams import message_class


def test_a_message_of_an_installed_package():
    assert message_class("std_msgs/msg/String").__name__ == "String"
    feedback = message_class("vla_ros/action/RunInstruction_FeedbackMessage")
    assert set(feedback.get_fields_and_field_types()) == {"goal_id", "feedback"}


@pytest.mark.parametrize(
    "name",
    ["mine/msg/Thing", "std_msgs/msg/Nothing", "std_msgs/msg/_string", "std_srvs/srv/Trigger", "a.b/msg/C", "x",
     "vla_ros/action/RunInstruction", "vla_ros/action/Walk_FeedbackMessage", "std_msgs/action/X_FeedbackMessage"],
)
def test_anything_else_is_refused_by_its_name(name):
    with pytest.raises(InputError, match=f"^message type {name}: not installed"):
        message_class(name)


def test_nothing_is_imported_but_messages(tmp_path, monkeypatch):
    (tmp_path / "innocent").mkdir()
    (tmp_path / "innocent" / "__init__.py").write_text("raise SystemExit('this code was run')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("innocent/msg/Thing", "innocent.msg/msg/Thing", "this/msg/Thing"):
        with pytest.raises(InputError, match="no package"):
            message_class(name)
    assert not {"innocent", "this"} & set(sys.modules)
