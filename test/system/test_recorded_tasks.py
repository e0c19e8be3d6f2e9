"""Runs of run_instruction on the graph are episodes of the bag, each with its own instruction."""

from functools import partial
from pathlib import Path

import yaml
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from system.test_task_node import Client
from trajectory_msgs.msg import JointTrajectory

from vla_ros.action import RunInstruction
from vla_ros.bags.episodes import CutOptions, cut_bag
from vla_ros.bags.index import index_bag
from vla_ros.bags.reader import Bag
from vla_ros.bags.summary import summarise
from vla_ros.core.robot import RobotSpec
from vla_ros.msg import ExecutorStatus, Outcome, PolicyStatus

ROBOT = {
    "name": "one",
    "cameras": [],
    "joints": [{"name": "a", "lower": -2.0, "upper": 2.0, "velocity": 1.0, "acceleration": 5.0}],
    "groups": [{"name": "arm", "topic": "arm", "interface": "joint_trajectory", "joints": ["a"]}],
}
FEEDBACK = bytes((ExecutorStatus.HOLDING, PolicyStatus.IDLE))  # what follows the id in it


def test_runs_are_episodes(graph, probe, tmp_path: Path):
    robot, bag = tmp_path / "robot.yaml", tmp_path / "bag"
    robot.write_text(yaml.safe_dump(ROBOT))
    graph.start("recorder_node", parameters={"robot": str(robot), "output": str(bag), "flush_period": 0.02,
                                             "reliable_sensors": True})
    graph.bring_up("recorder_node")
    probe.publisher("joint_states", JointState).publish(JointState(name=["a"], position=[0.0]))
    probe.publisher("arm", JointTrajectory).publish(JointTrajectory(joint_names=["a"]))
    client = Client(graph, probe)
    file = bag / "bag_0.mcap"

    def is_recorded(data: bytes, times: int = 1) -> bool:
        return file.exists() and file.read_bytes().count(data) >= times

    def wait_recorded(data: bytes, times: int = 1) -> None:
        probe.wait_for(lambda: is_recorded(data, times), f"{times} x {data!r} in the bag")

    def wait_told(handle, times: int) -> None:
        """That its id was recorded so many times, in whatever but feedback."""
        goal = bytes(handle.goal_id.uuid)

        def told() -> bool:
            data = file.read_bytes()
            return data.count(goal) - data.count(goal + FEEDBACK) >= times

        probe.wait_for(told, f"{times} x {goal!r} in the bag")

    def begin(text: str, **fields):
        handle = client.begun(text, **fields)
        wait_recorded(text.encode())
        wait_told(handle, 2)  # accepted, executing
        wait_recorded(bytes(handle.goal_id.uuid) + FEEDBACK)
        return handle

    for attempt in range(60):  # until task_node's instructions have found the recorder
        text = f"warm up {attempt}"
        client.begun(text)
        if graph.wait_until(partial(is_recorded, text.encode()), 5.0):
            break
    first = begin("touch the red cube")
    second = begin("wave", success_topic="done")
    assert client.result(first).error_code == RunInstruction.Result.PREEMPTED
    probe.publisher("done", Bool).publish(Bool(data=True))
    assert client.result(second).error_code == RunInstruction.Result.SUCCESS
    wait_told(second, 5)  # the end of the first, its own, and its outcome
    probe.publisher("outcome", Outcome).publish(
        Outcome(outcome=Outcome.FAILURE, by="operator", message="beside it", instruction="touch the red cube")
    )
    wait_recorded(b"beside it")
    graph.deactivate("recorder_node")

    with Bag(bag) as recorded:
        index = index_bag(recorded, RobotSpec.load(robot))
    *_, one, two = cut_bag(index, CutOptions(by="task"))
    assert (one.instruction, two.instruction) == ("touch the red cube", "wave")
    assert (one.outcome, one.by, one.message) == ("failure", "operator", "beside it")
    assert (two.outcome, two.by, two.message) == ("success", "success_topic", "done said true")
    said = [str(verdict) for verdict in summarise(bag)[2]]
    assert said[-3].startswith("aborted (a newer instruction): a newer goal took over: 'wave'")
    assert said[-2:] == ["success (success_topic): done said true", "failure (operator): beside it"]
    assert one.start_ns < one.stop_ns <= two.start_ns < two.stop_ns
    with Bag(bag) as recorded:
        told = [recorded.decode(record) for record in recorded.records(["/run_instruction/_action/feedback"])]
    runs = {bytes(message.goal_id.uuid) for message in told}
    assert runs >= {bytes(first.goal_id.uuid), bytes(second.goal_id.uuid)}
    assert {message.feedback.executor_state for message in told} == {ExecutorStatus.HOLDING}
    (only,) = cut_bag(index, CutOptions(by="task", succeeded=True))
    assert only == two
