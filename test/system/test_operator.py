"""What the operator's commands do on a graph that others started: `vla-ros say`, `e-stop` and `lifecycle`."""

from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from system.robot import ROBOT_FILE

from vla_ros.cli.demo import CHECKPOINT
from vla_ros.cli.main import main
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

NODES = ("policy_node", "executor_node")


def test_the_operators_commands(graph, probe, monkeypatch, capsys):
    for name, kind in zip(NODES, (PolicyStatus, ExecutorStatus), strict=True):
        probe.record(f"{name}/status", kind, STATUS_QOS)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(graph.domain))

    def call(*words: str) -> tuple[int, str]:
        status = main(list(words))
        said = capsys.readouterr()
        return status, said.out + said.err

    # Nobody is there.
    status, said = call("say", "wave", "--wait", "0.5")
    assert status == 2 and "/instruction: /executor_node and /policy_node did not listen within 0.5 s" in said
    status, said = call("say", "--stop", "--wait", "0.5")
    assert status == 2 and "not followed by the executor within 0.5 s" in said and len(said.splitlines()) == 1
    status, said = call("e-stop", "--wait", "0.5")
    words = "/executor_node did not confirm it within 0.5 s; use the robot's own"
    assert status == 2 and said.startswith(f"vla-ros e-stop: {words}")
    status, said = call("e-stop", "--reset", "--wait", "0.5")
    assert status == 2 and said.startswith("vla-ros e-stop: /executor_node did not answer within 0.5 s")
    status, said = call("lifecycle", "executor_node", "--wait", "0.5")
    assert status == 2 and "node /executor_node: not found within 0.5 s, expected `vla-ros run` or a launch" in said
    with monkeypatch.context() as patched:
        patched.setattr("vla_ros.core.discovery.discovery_time", lambda: 0.5)
        status, said = call("lifecycle")
    words = "a node with a lifecycle in namespace /: not found within 0.5 s, expected `vla-ros run` or a launch file"
    assert status == 2 and said.startswith(f"vla-ros lifecycle: {words}") and len(said.splitlines()) == 1

    graph.start("executor_node", parameters={"robot": str(ROBOT_FILE)})
    kept = graph.node.create_publisher(String, "instruction", STATUS_QOS)
    kept.publish(String(data="push"))
    probe.wait_for(lambda: probe.last("executor_node/status") is not None, "the executor")
    assert call("lifecycle", "executor_node", "configure") == (0, "/executor_node: inactive\n")
    probe.wait_for(lambda: probe.last("executor_node/status").instruction == "push", "an instruction")
    graph.node.destroy_publisher(kept)
    assert call("say", "--stop")[0] == 0  # although there is no policy
    assert probe.last("executor_node/status").instruction == ""
    graph.start("policy_node", parameters={"robot": str(ROBOT_FILE), "policy": str(CHECKPOINT), "device": "cpu"})
    graph.configure("policy_node")
    # A refusal has the node's reason: nobody publishes joint states.
    status, said = call("lifecycle", "/executor_node", "activate")
    assert status == 2 and "node /executor_node did not activate: " in said
    words = "never seen; nobody publishes /joint_states (docs/troubleshooting.md#nobody-publishes)\n"
    assert said.endswith(words) and len(said.splitlines()) == 1
    assert call("lifecycle") == (0, "/executor_node: inactive\n/policy_node: inactive\n")

    status, said = call("say", "touch the red cube")
    assert status == 0 and "instruction 'touch the red cube'" in said
    for name in NODES:
        assert probe.last(f"{name}/status").instruction == "touch the red cube"

    # What is missing is named with the topic, and with what is there instead.
    assert call("lifecycle", "policy_node", "activate")[0] == 0
    wrong = graph.node.create_publisher(CompressedImage, "/camera/front/image_raw/compressed", COMMAND_QOS)
    other = graph.node.create_publisher(CompressedImage, "/camera/wrist/image_raw", COMMAND_QOS)
    for words in ("nobody publishes /camera/front/image_raw, but '/camera/front/image_raw/compressed'",
                  "publishes /camera/wrist/image_raw as sensor_msgs/msg/CompressedImage, the robot file says sensor_",
                  "nobody publishes /joint_states"):
        probe.wait_for(lambda words=words: words in probe.last("policy_node/status").message, words)
    for publisher in (wrong, other):
        graph.node.destroy_publisher(publisher)

    assert call("say", "--stop")[0] == 0
    for name in NODES:
        probe.wait_for(lambda name=name: probe.last(f"{name}/status").instruction == "", f"{name} without one")

    status, said = call("e-stop")
    assert status == 0 and said.startswith("e-stopped: ")
    assert probe.last("executor_node/status").state == ExecutorStatus.E_STOPPED
    status, said = call("e-stop", "--reset")
    assert status == 0
    probe.wait_for(lambda: probe.last("executor_node/status").state == ExecutorStatus.INACTIVE, "the reset")


def test_a_recorder_alone_is_told(graph, probe, monkeypatch, capsys):
    probe.record("instruction", String)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(graph.domain))
    assert main(["say", "push", "--wait", "30"]) == 0
    assert "; neither policy_node nor executor_node is running" in capsys.readouterr().out
    probe.wait_message("instruction", lambda message: message.data == "push", "the instruction")


def test_say_wants_words_or_stop(capsys):
    for words in ([], ["wave", "--stop"], [" "], ["x" * 10_001]):
        assert main(["say", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4
