"""The policy file says who may do what, and what security lacks is said in one line."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="the enclaves are those of ROS 2 nodes")

from vla_ros.cli.main import main
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.security import policy

ROBOT = RobotSpec.load(Path(__file__).parents[2] / "config" / "robots" / "so101.yaml")
SHIPPED = Path(__file__).parents[2] / "config" / "security" / "so101.policy.xml"
FILES = ("identity_ca.cert.pem", "cert.pem", "key.pem", "permissions_ca.cert.pem", "governance.p7s", "permissions.p7s")


def who_may(text: str, kind: str, rule: str, name: str) -> set[str]:
    """Enclaves that a policy file gives a right."""
    rights = f".//{kind}s[@{rule}='ALLOW']/{kind}"
    found = (e for e in ET.fromstring(text).iter("enclave") if name in {entry.text for entry in e.findall(rights)})
    return {enclave.get("path").removeprefix("/vla_ros/") for enclave in found}


def test_the_shipped_policy_file_is_that_of_its_robot(capsys):
    assert main(["info", "so101", "--sros2"]) == 0
    assert capsys.readouterr().out == SHIPPED.read_text(), "make it again: vla-ros info so101 --sros2"


def test_what_moves_the_robot_is_given_to_one_enclave_each():
    text, simulated = SHIPPED.read_text(), {"expert_node"}
    for group in ROBOT.groups:
        assert who_may(text, "topic", "publish", group.topic) == {"executor_node"} | simulated
        assert who_may(text, "topic", "publish", f"{group.topic}/claim") == {"executor_node"}
    assert who_may(text, "topic", "publish", "action_chunk") == {"policy_node"}
    assert who_may(text, "topic", "publish", "joint_states") == {"driver", "sim_node", "replay_node"}
    assert who_may(text, "topic", "publish", "e_stop") == {"operator", "e_stop", "console_node"}
    assert who_may(text, "service", "request", "executor_node/reset_e_stop") == {
        "reset_e_stop", "console_node"}
    assert who_may(text, "service", "request", "executor_node/set_parameters") == {"operator"}
    assert who_may(text, "service", "request", "executor_node/change_state") == {"operator", "console_node"}
    assert who_may(text, "topic", "publish", "instruction") == {
        "operator", "task_node", "console_node"}


def test_nothing_is_denied_or_given_by_a_wildcard_but_the_names_of_command_line_nodes():
    root = ET.fromstring(SHIPPED.read_text())
    assert not [entry.text for entry in root.iter() if entry.text and "*" in entry.text]
    assert {p.get("node") for p in root.iter("profile") if "*" in p.get("node")} == {"vla_ros_cli_*", "_ros2cli_*"}
    assert not root.findall(".//*[@publish='DENY']")


def test_a_namespace_is_that_of_every_profile(capsys):
    assert main(["info", "so101", "--sros2", "--namespace", "left/arm"]) == 0
    assert {profile.get("ns") for profile in ET.fromstring(capsys.readouterr().out).iter("profile")} == {"/left/arm"}
    assert main(["info", "so101", "--sros2", "--namespace", "1st"]) == 2
    assert "namespace '1st'" in capsys.readouterr().err


def test_names_of_a_robot_file_stay_what_they_are():
    robot = RobotSpec.from_dict(
        {
            "name": "odd", "joint_state_topic": ["/a/joints", "b&b"],
            "cameras": [{"name": "c", "topic": "/c/image", "width": 8, "height": 8, "compressed": True}],
            "joints": [{"name": "j", "lower": -1, "upper": 1, "velocity": 1, "acceleration": 1}],
            "groups": [{"name": "g", "topic": "/g", "interface": "joint_state", "joints": ["j"]}],
        }
    )  # fmt: skip
    text = policy(robot)
    for topic in ("/a/joints", "b&b", "/c/image"):
        assert who_may(text, "topic", "subscribe", topic) >= {"policy_node"}
        assert who_may(text, "topic", "publish", topic) == {"driver", "sim_node", "replay_node"}
    assert who_may(text, "topic", "publish", "/g") == {"executor_node", "expert_node"}


@pytest.fixture
def keystore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A keystore with every file of the enclave of `vla-ros top`, and nothing in them; security is on."""
    folder = tmp_path / "keystore" / "enclaves" / "vla_ros" / "viewer"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("not a certificate")
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    monkeypatch.setenv("ROS_SECURITY_KEYSTORE", str(tmp_path / "keystore"))
    monkeypatch.delenv("ROS_SECURITY_ENCLAVE_OVERRIDE", raising=False)
    return folder


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ROS_SECURITY_KEYSTORE", "", "ROS_SECURITY_KEYSTORE is empty, expected the folder of a keystore"),
        ("ROS_SECURITY_KEYSTORE", "/nowhere", "no enclave /vla_ros/viewer, expected the folder /nowhere/enclaves/"),
        ("ROS_SECURITY_ENCLAVE_OVERRIDE", "/mine", "no enclave /mine, expected the folder"),
        ("ROS_SECURITY_ENABLE", "1", "ROS_SECURITY_ENABLE '1': expected true or false"),
        ("ROS_SECURITY_ENABLE", "True", "ROS_SECURITY_ENABLE 'True': expected true or false"),
        ("ROS_SECURITY_STRATEGY", "enforce", "ROS_SECURITY_STRATEGY 'enforce': expected Enforce or Permissive"),
        ("UNUSED", "", "no secured node can be made"),  # no such certificates, or a middleware without security
    ],
)
def test_what_security_lacks_is_one_line(keystore, capfd, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    assert main(["top", "--duration", "0.1"]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("[INFO]")]
    assert len(lines) == 1 and lines[0].startswith("vla-ros top: ") and said in lines[0]


def test_a_file_that_an_enclave_lacks_is_named(keystore, capfd):
    (keystore / "key.pem").unlink()
    assert main(["top", "--duration", "0.1"]) == 2
    assert f"enclave {keystore}: no key.pem" in capfd.readouterr().err


def test_a_permissive_start_without_security_says_so(keystore, capfd, monkeypatch):
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Permissive")
    monkeypatch.setenv("ROS_SECURITY_KEYSTORE", "")
    assert main(["top", "--duration", "0.1"]) == 0
    assert "[WARN] without security, because ROS_SECURITY_STRATEGY is not Enforce" in capfd.readouterr().err
