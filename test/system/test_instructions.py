"""An instruction reaches policy and executor alike, or it is said again, or shown that it did not."""

import signal

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.action import ActionServer
from std_msgs.msg import String
from system.robot import ROBOT_FILE

from vla_ros.action import RunInstruction
from vla_ros.cli.demo import CHECKPOINT
from vla_ros.cli.main import main
from vla_ros.graph.watch import Watch
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos

NODES = ("policy_node", "executor_node")


def say_once(graph, probe, text, readers, missed_by=None):
    """As `ros2 topic pub --once`: a process of its own, as far as the middleware knows, that leaves at once.

    `missed_by`: a node that stands still meanwhile, and so has not discovered it when it speaks.
    """
    process = graph.processes[missed_by].popen if missed_by else None
    if process:
        process.send_signal(signal.SIGSTOP)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=graph.domain)
    node = rclpy.create_node("once", context=context, enable_rosout=False)
    publisher = node.create_publisher(String, "instruction", COMMAND_QOS)
    probe.wait_for(lambda: publisher.get_subscription_count() >= readers, "those that are to hear it")
    assert publisher.get_subscription_count() == readers
    publisher.publish(String(data=text))
    publisher.wait_for_all_acked()
    if process:
        process.send_signal(signal.SIGCONT)
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_an_instruction_reaches_both(graph, probe, monkeypatch, capsys):
    for name, kind in zip(NODES, (PolicyStatus, ExecutorStatus), strict=True):
        probe.record(f"{name}/status", kind, STATUS_QOS)
    probe.record("/diagnostics", DiagnosticArray)
    watch = Watch(graph)

    def follow(text, *names):
        for name in names or NODES:
            probe.wait_for(lambda name=name: probe.last(f"{name}/status").instruction == text, f"{name}: {text!r}")

    # Given before anybody was there, and kept by its publisher; a later one of another publisher counts.
    kept = graph.node.create_publisher(String, "instruction", STATUS_QOS)
    kept.publish(String(data="push"))
    graph.start("policy_node", parameters={"robot": str(ROBOT_FILE), "policy": str(CHECKPOINT), "device": "cpu"})
    graph.start("executor_node", parameters={"robot": str(ROBOT_FILE)})
    graph.start("task_node", parameters={"robot": str(ROBOT_FILE)})
    for name in NODES:
        graph.configure(name)
    follow("push")
    unsure = graph.node.create_publisher(String, "instruction", sensor_qos())

    def heard():
        unsure.publish(String(data="turn"))
        return all(probe.last(f"{name}/status").instruction == "turn" for name in NODES)

    probe.wait_for(heard, "an instruction of best effort")
    graph.node.destroy_publisher(unsure)
    probe.wait_for(lambda: graph.node.count_subscribers("instruction") == 4, "two subscriptions of each node")
    say_once(graph, probe, "wave", readers=2)
    follow("wave")
    graph.cleanup("executor_node")
    probe.wait_for(lambda: graph.node.count_subscribers("instruction") == 2, "the executor without a subscription")
    graph.node.destroy_publisher(kept)
    graph.configure("executor_node")

    # Nobody repeats it: policy and executor say that they differ.
    say_once(graph, probe, "push", readers=1, missed_by="policy_node")
    words = "the policy follows 'wave', the executor 'push': give the instruction again"
    probe.wait_for(lambda: words in probe.last("executor_node/status").message, words)
    follow("push", "executor_node")

    def warned():
        levels = [s.level for m in probe.messages("/diagnostics") for s in m.status if words in s.message]
        return levels and levels[-1] == DiagnosticStatus.WARN

    probe.wait_for(warned, "the same in /diagnostics")
    assert words in watch.summary()

    # With task_node whoever missed it is told again.
    graph.bring_up("task_node")
    taken = probe.last("policy_node/status").instructions
    probe.record("instruction", String)
    say_once(graph, probe, "touch the red cube", readers=3, missed_by="executor_node")
    follow("touch the red cube")
    # An empty one too; and it is not undone by what one of them still follows.
    probe.wait_for(
        lambda: probe.last("policy_node/status").instructions - taken == len(probe.messages("instruction")) > 1,
        "everything that was said, and said again",
    )
    say_once(graph, probe, "", readers=3, missed_by="policy_node")
    follow("")

    # A task is given to one robot.
    server = ActionServer(graph.node, RunInstruction, "run_instruction", lambda handle: RunInstruction.Result())
    monkeypatch.setenv("ROS_DOMAIN_ID", str(graph.domain))
    assert main(["task", "wave"]) == 2
    server.destroy()
    said = capsys.readouterr().err
    assert "action run_instruction: offered by /task_node, /vla_ros_cli_" in said and "expected one node" in said
    assert all(probe.last(f"{name}/status").instruction == "" for name in NODES)
