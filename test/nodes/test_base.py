"""The lifecycle base, in one process without discovery, and the ends of a process."""

import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import String

from vla_ros.core.errors import InputError
from vla_ros.nodes.base import ManagedNode
from vla_ros.nodes.ending import LAUNCHER
from vla_ros.nodes.parameters import NodeParameters, parameter
from vla_ros.nodes.parent import CHANNEL
from vla_ros.nodes.qos import COMMAND_QOS


@dataclass(frozen=True)
class Parameters(NodeParameters):
    rate: float = parameter(10.0, "rate", unit="Hz", low=1.0, high=100.0)
    blend: float = parameter(0.5, "blend", low=0.0, high=1.0, live=True)
    names: tuple[str, ...] = parameter((), "names")


class Node(ManagedNode):
    """Notes what is called."""

    def __init__(self, **options):
        self.calls, self.fail = [], None
        super().__init__("node", Parameters, **options)

    def _step(self, name):
        self.calls.append(name)
        if self.fail and self.fail[0] == name:
            raise self.fail[1]

    def configure(self):
        self.publisher = self.create_publisher(String, "topic", COMMAND_QOS)
        self.gated = self.create_lifecycle_publisher(String, "gated", COMMAND_QOS)
        self.subscription = self.create_subscription(String, "other", lambda message: None, COMMAND_QOS)
        self.e_stop = self.create_subscription(String, "e_stop", lambda message: None, COMMAND_QOS)
        self.timer = self.create_steady_timer(1.0, lambda: None)
        self._step("configure")

    def activate(self):
        self._step("activate")

    def deactivate(self):
        self._step("deactivate")

    def release(self):
        self._step("release")

    def refused(self, reason):
        self.calls.append(reason)


@pytest.fixture
def context():
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.try_shutdown(context=context)


@pytest.fixture
def node(context):
    node = Node(context=context)
    yield node
    node.end()
    node.destroy_node()


def entities(node):
    return len(node._entities())


def test_up_and_down_leaves_nothing_behind(node):
    before = entities(node)
    for _ in range(2):
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert entities(node) == before + 5
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert node.is_active and node.gated.is_activated
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert not node.is_active and not node.gated.is_activated
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert entities(node) == before
    assert node.calls == ["configure", "activate", "deactivate", "release"] * 2


OTHER, TOPIC = "qos_overrides./other.subscription.", "qos_overrides./topic.publisher."


def test_qos_of_single_topics_comes_from_parameters_and_no_other_topic_has_it(context):
    given = {OTHER + "reliability": "best_effort", OTHER + "depth": 3, TOPIC + "durability": "transient_local"}
    made = Node(context=context, parameter_overrides=[Parameter(name, value=value) for name, value in given.items()])
    for _ in range(2):  # configured again they are the same
        assert made.trigger_configure() == TransitionCallbackReturn.SUCCESS
        heard, said = made.subscription.qos_profile, made.publisher.qos_profile
        assert (heard.reliability.name, heard.depth, heard.durability.name) == ("BEST_EFFORT", 3, "VOLATILE")
        assert (said.reliability.name, said.depth, said.durability.name) == ("RELIABLE", 10, "TRANSIENT_LOCAL")
        assert list(made.unused_qos_overrides()) == []
        made.trigger_cleanup()
    assert (COMMAND_QOS.depth, COMMAND_QOS.durability.name) == (10, "VOLATILE")
    made.destroy_node()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (OTHER + "reliability", "relable", "'relable', expected one of reliable, best_effort"),
        (OTHER + "depth", 0, "0, expected 1 to"),
        (OTHER + "depth", "5", "'5', expected 1 to"),
        (OTHER + "dept", 5, "expected one of history, depth, reliability, durability"),
        ("qos_overrides./e_stop.subscription.reliability", "reliable", "safety depends on the QoS of e_stop"),
    ],
)
def test_a_qos_override_that_cannot_be_honoured_is_refused(context, name, value, said):
    made = Node(context=context, parameter_overrides=[Parameter(name, value=value)])
    assert made.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert name in made.calls[0] and said in made.calls[0]
    made.destroy_node()


def test_a_qos_override_of_a_topic_that_the_node_does_not_have_is_said(context):
    made = Node(context=context, parameter_overrides=[Parameter("qos_overrides./othr.subscription.depth", value=2)])
    assert made.trigger_configure() == TransitionCallbackReturn.SUCCESS
    (words,) = made.unused_qos_overrides()
    assert "'qos_overrides./othr.subscription.depth': no such publisher or subscription" in words
    made.destroy_node()


@pytest.mark.parametrize("error", [InputError("robot file x: no such file"), RuntimeError("a bug")])
def test_a_failed_configure_is_said_and_undone(node, error):
    before = entities(node)
    node.fail = ("configure", error)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert str(error) in node.calls[1]
    assert node.calls[2] == "release"
    assert entities(node) == before
    node.fail = None
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_a_failed_activate_leaves_the_node_inactive(node):
    node.trigger_configure()
    node.fail = ("activate", InputError("no joint states"))
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert not node.is_active and not node.gated.is_activated
    node.fail = None
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS


def test_end_from_active_deactivates_and_releases(node):
    node.trigger_configure()
    node.trigger_activate()
    node.end()
    assert node.calls == ["configure", "activate", "deactivate", "release"]
    node.end()
    assert len(node.calls) == 4


def set_one(node, name, value):
    return node.set_parameters([Parameter(name, value=value)])[0]


def test_parameters_are_checked_and_taken(node):
    assert node.parameters == Parameters()
    assert set_one(node, "rate", 20.0).successful
    assert node.parameters.rate == 20.0
    assert not set_one(node, "rate", 200.0).successful
    assert set_one(node, "names", ["a", "b"]).successful
    assert node.parameters.names == ("a", "b")
    refusal = set_one(node, "autostart", True)
    assert not refusal.successful
    node.trigger_configure()
    refusal = set_one(node, "rate", 30.0)
    assert not refusal.successful and "clean the node up first" in refusal.reason
    assert node.parameters.rate == 20.0
    refusal = set_one(node, "use_sim_time", True)  # a stranger's /clock must not become the node's time
    assert not refusal.successful and "clean the node up first" in refusal.reason
    assert not node.get_clock().ros_time_is_active
    assert set_one(node, "blend", 0.25).successful
    assert node.parameters.blend == 0.25


def test_a_bad_value_at_start_is_an_input_error(context):
    with pytest.raises(InputError, match="rate"):
        Node(context=context, parameter_overrides=[Parameter("rate", value=0.0)])


def test_autostart_goes_on_trying_to_activate_but_configures_once(context):
    node = Node(context=context, parameter_overrides=[Parameter("autostart", value=True)])
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    node.fail = ("activate", InputError("joint states: no message yet"))
    while node.calls.count("activate") < 2:
        executor.spin_once(timeout_sec=10.0)
    assert not node.is_active
    node.fail = None
    while not node.is_active:
        executor.spin_once(timeout_sec=10.0)
    assert node.calls.count("configure") == 1
    executor.remove_node(node)
    node.end()
    node.destroy_node()


PROGRAM = """
import sys
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.parameters import NodeParameters
class Node(ManagedNode):
    def __init__(self):
        super().__init__("node", NodeParameters)
    def activate(self):
        print("active", flush=True)
    def deactivate(self):
        print("brakes", flush=True)
        if braking:
            sys.stdin.readline()
        print("deactivated", flush=True)
    def release(self):
        print("released", flush=True)
braking = len(sys.argv) > 1
sys.exit(spin_node(Node, ["--ros-args", "-p", "autostart:=true"]))
"""


@pytest.fixture
def launcher():
    """A process that starts a node by another one, as a launch file does by a shell."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP", "parent", "launcher"])
def test_the_process_ends_cleanly(how, launcher):
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {CHANNEL: str(read_end), LAUNCHER: str(launcher.pid)},
        pass_fds=[read_end],
    )
    os.close(read_end)
    try:
        assert process.stdout.readline() == "active\n"
        if how == "parent":
            os.close(write_end)
        elif how == "launcher":
            launcher.kill()
        else:
            process.send_signal(getattr(signal, how))
        output, _ = process.communicate(timeout=60)
        assert output == "brakes\ndeactivated\nreleased\n"
        assert process.returncode == 0
    finally:
        process.kill()
        if how != "parent":
            os.close(write_end)


def test_a_process_whose_launcher_is_gone_before_it_begins_ends_too(launcher):
    launcher.kill()
    launcher.wait()
    done = run_program(PROGRAM, **{LAUNCHER: str(launcher.pid)})
    assert done.returncode == 0 and done.stdout.endswith("released\n")


def run_program(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=os.environ | environment
    )


REFUSING = """
from vla_ros.core.errors import InputError, NotYet
from vla_ros.nodes import autostart
autostart.PERIOD = 0.01
tries = {"configure": 0, "activate": 0}
def refuse(what, times, error):
    tries[what] += 1
    if tries[what] <= times:
        raise error
"""


def test_what_is_lacking_is_waited_for_in_one_line():
    """Some missing input of `configure`, then a driver, each tried 20 times: the first of the two is said."""
    refusing = REFUSING + (
        'Node.configure = lambda self: refuse("configure", 20, NotYet("no URDF yet"))\n'
        "then = Node.activate\n"
        'Node.activate = lambda self: (refuse("activate", 20, InputError("no joints")), then(self))\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("braking =", f"{refusing}braking =")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert "active\n" in iter(process.stdout.readline, "")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert errors.count("waits before it is activated: no URDF yet") == 1
    assert "ERROR" not in errors and errors.count("waits") < 4  # once more after 10 s of a slow machine


@pytest.mark.parametrize("error", ['InputError("no such robot file")', 'RuntimeError("a bug")'])
def test_a_configuration_that_is_refused_for_good_ends_the_process(error):
    refusing = f"{REFUSING}Node.configure = lambda self: refuse('configure', 9, {error})\n"
    done = run_program(PROGRAM.replace("braking =", f"{refusing}braking ="))
    assert done.returncode == 2
    assert done.stderr.count(error.split('"')[1]) >= 1 and done.stderr.count("[ERROR]") == 1
    assert ("Traceback" in done.stderr) == ("bug" in error)
    assert "active" not in done.stdout


HANGING = """
import ctypes
from std_msgs.msg import String
from vla_ros.nodes import base
base.ENDING = 1.0
Node.configure = lambda self: self.create_subscription(String, "x", print, 1)
def hang(*arguments):
    ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock, as rclpy destroys
"""


@pytest.mark.parametrize("where", ["destroy_subscription", "destroy_node"])
def test_a_process_that_hangs_in_the_middleware_ends_all_the_same(where):
    program = PROGRAM.replace("braking =", f"{HANGING}Node.{where} = hang\nbraking =")
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "active\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert output == "brakes\ndeactivated\nreleased\n"
        assert "in hang" in errors
        assert process.returncode == 1
    finally:
        process.kill()


@pytest.fixture
def braking():
    """A process that was asked to stop by SIGINT and brakes until it reads a line."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, "braking"], text=True, **pipes)
    assert process.stdout.readline() == "active\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "brakes\n"
    yield process
    process.kill()
    process.communicate()


def insist(process, number, word):
    """Sends the signal every now and then until a line with `word` is on stderr."""
    while not select.select([process.stderr], [], [], 0.1)[0]:
        process.send_signal(number)
    line = process.stderr.readline()
    assert word in line, line


def test_a_second_signal_does_not_cut_the_braking_short(braking):
    insist(braking, signal.SIGINT, "[WARN] SIGINT again: already stopping; a third one ends it at once")
    for number in (signal.SIGTERM, signal.SIGHUP):  # a launch goes on to other signals: they count for themselves
        braking.send_signal(number)
    output, errors = braking.communicate("at rest\n", timeout=60)
    assert (output, errors) == ("deactivated\nreleased\n", "")
    assert braking.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_third_signal_ends_the_process_at_once(braking, number):
    insist(braking, number, f"[WARN] {number.name} again")
    insist(braking, number, f"[FATAL] third {number.name}: ended without stopping first")
    assert braking.wait(timeout=60) == 128 + number


SLOW_MODULE = """
print("importing", flush=True)
__import__("time").sleep(600)
"""
PROGRAMS = {
    **{f"{name}_node": ["-m", f"vla_ros.nodes.{name}_node"] for name in
       ("executor", "expert", "policy", "recorder", "sim", "task")},
    "entry point": ["policy_node"],
    "vla-ros": ["-m", "vla_ros.cli.main", "info", "so101"],
}  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_signal_during_an_import_leaves_no_traceback(program, number, tmp_path):
    for module in ("rclpy", "numpy", "torch"):
        (tmp_path / f"{module}.py").write_text(SLOW_MODULE)
    arguments = PROGRAMS[program]
    if arguments[0] != "-m":
        (tmp_path / arguments[0]).write_text("from vla_ros.nodes.policy_node import main\nmain()\n")
        arguments = [str(tmp_path / arguments[0])]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    )
    try:
        assert process.stdout.readline() == "importing\n", process.communicate()
        process.send_signal(number)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode in (-number, 128 + number, 0)
    finally:
        process.kill()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-p", "mode:=sideways"], "parameter mode: 'sideways', expected one of ensemble"),
        (["-p", "use_sim_time:=4"], "'use_sim_time' to '4' of type 'INTEGER', expecting type 'BOOL'"),
        (["--log-level", "loud"], "Couldn't parse log level"),
        (["--no-such"], "--no-such"),
    ],
)
def test_what_the_executor_is_refused_for_when_it_starts_is_one_line(arguments, words):
    done = subprocess.run(
        [sys.executable, "-m", "vla_ros.nodes.executor_node", "--ros-args", *arguments],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_bad_parameters_end_the_process_with_one_line():
    program = PROGRAM.replace("autostart:=true", "autostart:=7")
    done = run_program(program)
    assert done.returncode == 2
    assert "autostart" in done.stderr and "Traceback" not in done.stderr
