"""What a person who steers is told when the executor is gone; with a graph, test/system/test_takeover.py."""

from types import SimpleNamespace

import pytest

from vla_ros.control.limits import Limits
from vla_ros.control.steering import Steering
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.graph import steered
from vla_ros.graph.steered import Steered
from vla_ros.msg import ExecutorStatus


def test_an_executor_that_is_gone_is_said_and_holds_nobody(monkeypatch):
    steering = Steering(Limits.merge(RobotSpec.load("so101")), None)
    now, told, looks = [100.0], [], []
    monkeypatch.setattr(steered, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wishes(taken: bool) -> list[bool]:
        looks.append(taken)
        now[0] += 2.0 if len(looks) == 2 else 0.0
        handle.done = len(looks) == 4
        return [True] if len(looks) == 3 else []

    handle = SimpleNamespace(done=False, alive=False, wishes=wishes, say=told.append)
    node = SimpleNamespace(create_publisher=lambda *_: SimpleNamespace(topic_name="/keys"),
                           create_client=lambda *_: None, create_subscription=lambda *_: None)  # fmt: skip
    graph = SimpleNamespace(node=node, check=lambda: None, full_name=lambda name: f"/{name}",
                            wait_until=lambda accept, seconds: accept())  # fmt: skip
    one = Steered(graph, "keys", steering, handle)
    one._take(ExecutorStatus(state=ExecutorStatus.TAKEN_OVER, taken_over_by="/keys", names=steering.all_names))
    silent = "/executor_node: no status for more than 1 s, expected it to run"
    with pytest.raises(InputError, match=f"{silent}; it was not asked to give back"):
        one.run()
    assert told == [silent, f"{silent}; it was not asked to take over"] and looks == [True] * 4
