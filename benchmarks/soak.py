"""The whole graph in real time for hours, with faults at random moments, every command checked by a peer.

    python benchmarks/soak.py [--minutes 60] [--seed 0] [--json FILE]

Simulator, shipped policy and executor as processes. This process is their peer: it hears every command and compares it
with the limits of the robot file (`command_check.py`, by the commands' stamps), it is the operator who says other
instructions and resets the e-stop, and it stands between the simulator's joint states and the executor, to falsify
them. Faults (`soak_faults.py`) come in random order; after each the executor has to follow chunks again within
`--patience` seconds. Memory is that of each process; its growth is fitted to what was seen after the warm-up, over
every process that lived long enough. Exit status 1: a command outside a limit, an e-stop lost, a fault not survived.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from command_check import Bounds
from live_graph import POLICY, ROBOT
from sensor_msgs.msg import JointState
from soak_faults import FAULTS
from soak_watch import OVERRUN_LIMIT_NS, Heard, Trail, Watch
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_ros.graph.processes import Graph, GraphError
from vla_ros.messages.stamps import stamp_ns
from vla_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, profile, sensor_qos

RELAYED = "soak/joint_states"
SETTLED_NS = 500_000_000  # by then a command, and the status that explains it, have arrived
E_STOP_PATIENCE = 5.0  # s from the press to the status; beyond that it is lost
COLOURS = ("red", "green", "blue")
FOLLOWING = (ExecutorStatus.APPROACHING, ExecutorStatus.EXECUTING)
STOPPED = (ExecutorStatus.STOPPED, ExecutorStatus.E_STOPPED)


class Soak:
    """The graph and its peer.

    Attributes:
        relay_change: makes of a joint state what the executor is told; None leaves it, its None says nothing.
        problems: what may not happen and did, in words.
        resets: how often the e-stop had to be reset once more.
    """

    def __init__(self, graph: Graph, folder: Path, seed: int, patience: float) -> None:
        self.graph, self.folder, self.patience = graph, folder, patience
        self.rng = np.random.default_rng(seed)
        self.robot: dict[str, Any] = yaml.safe_load(ROBOT.read_text())
        for group in self.robot["groups"]:
            group["stamp"] = "now"  # by which the check knows when each command was meant
        self.robot_file = folder / "robot.yaml"  # of the executor: its joint states come through here
        self.robot_file.write_text(yaml.safe_dump(self.robot | {"joint_state_topic": RELAYED}))
        self.bounds = Bounds.of(self.robot)
        self.relay_change: Any = None
        self.frozen: list[float] | None = None
        self.instruction = ""
        self.problems: list[str] = []
        self.trail = Trail()
        self._pressed: float | None = None  # when the button was pressed, when the status said so
        self._e_stopped: float | None = None
        self.presses: list[float] = []  # s from a press to the status that says so
        self.lost = self.unreachable = self.resets = 0
        self.recoveries: dict[str, list[float]] = defaultdict(list)
        self.memory: dict[str, list[tuple[int, float, float]]] = defaultdict(list)  # node -> pid, s, MB
        self.lateness: list[float] = []
        self.status: ExecutorStatus | None = None
        self.policy = PolicyStatus()
        self._lock = threading.Lock()
        self._stops: list[tuple[int, bool]] = []
        self._inactive: list[int] = []
        self._measured: list[tuple[int, np.ndarray]] = []
        self.watches = {
            group["topic"]: Watch(Bounds.of(self.robot, tuple(group["joints"]))) for group in self.robot["groups"]
        }
        node = graph.node
        many = profile(1000, reliable=True)
        for topic in self.watches:
            node.create_subscription(JointTrajectory, topic, self._command_taker(topic), many)
        node.create_subscription(
            ExecutorStatus, "executor_node/status", self._on_status, profile(1000, reliable=True, latched=True)
        )
        node.create_subscription(
            PolicyStatus, "policy_node/status", lambda m: setattr(self, "policy", m), STATUS_QOS
        )
        node.create_subscription(JointState, "joint_states", self._on_joints, sensor_qos(depth=20))
        self._relay = node.create_publisher(JointState, RELAYED, profile(10, reliable=True))
        # One that keeps ten would drop a `true` itself, behind a burst of `false` that a halted reader has not taken.
        self.e_stop = node.create_publisher(Bool, "e_stop", profile(100, reliable=True))
        self.say = node.create_publisher(String, "instruction", COMMAND_QOS)
        self.chunks = node.create_publisher(ActionChunk, "action_chunk", COMMAND_QOS)
        self._reset = node.create_client(Trigger, "executor_node/reset_e_stop")

    # What is heard

    def _command_taker(self, topic: str) -> Callable[[JointTrajectory, Any], None]:
        def take(message: JointTrajectory, info: Any) -> None:
            position, number = np.array(message.points[0].positions), info["publication_sequence_number"]
            heard = Heard(stamp_ns(message), position, info["publisher_gid"], number)
            with self._lock:
                self.watches[topic].pending.append(heard)
                self.trail.note(heard.stamp, self.now_ns(), topic, [number, *position])

        return take

    def _on_status(self, message: ExecutorStatus) -> None:
        self.status = message
        self.lateness.append(message.lateness)
        if message.state == ExecutorStatus.E_STOPPED and self._e_stopped is None:
            self._e_stopped = time.monotonic()
        stamp = stamp_ns(message)
        with self._lock:
            state = [message.state, message.cause, message.message]
            self.trail.note(stamp, self.now_ns(), "status", [*state, *message.position])
            while self._stops and self._stops[-1][0] >= stamp:  # this one, of a late tick, is about the commands since
                self._stops.pop()
            self._stops.append((stamp, message.state in STOPPED))
            if message.state == ExecutorStatus.INACTIVE:
                self._inactive.append(stamp)

    def _on_joints(self, message: JointState) -> None:
        change = self.relay_change
        if change is None:
            self.frozen = None
        else:
            message = change(message)
        if message is not None:
            self._relay.publish(message)
            known = dict(zip(message.name, message.position, strict=True))
            position = [known[name] for name in self.bounds.names]
            with self._lock:
                self._measured.append((stamp_ns(message), np.array(position)))
                self.trail.note(stamp_ns(message), self.now_ns(), "joint state", position)

    def settle(self, all_of_it: bool = False) -> None:
        """Check the commands that are old enough, and forget what explained them."""
        with self._lock:
            until = self.now_ns() - (0 if all_of_it else SETTLED_NS)
            for watch in self.watches.values():
                columns = [self.bounds.names.index(name) for name in watch.bounds.names]
                watch.settle(until, self._stops, self._inactive, [(at, x[columns]) for at, x in self._measured])
            self._keep_findings()
            oldest = min((watch.last.stamp if watch.last else until) for watch in self.watches.values())
            self._measured = [entry for entry in self._measured if entry[0] >= oldest]
            self._inactive = [at for at in self._inactive if at > oldest]
            before = [entry for entry in self._stops if entry[0] < oldest - 10 * SETTLED_NS]
            del self._stops[: max(len(before) - 1, 0)]

    def _keep_findings(self) -> None:
        for topic, watch in self.watches.items():
            for kind, (first, last) in watch.check.around.items():
                self.trail.keep(f"{topic}, {kind}: {watch.check.first[kind]}", first, last)
            for words, first, last in watch.jumps:
                self.trail.keep(f"{topic}, jump: {words}", first, last)

    # What is done

    def now_ns(self) -> int:
        return self.graph.node.get_clock().now().nanoseconds

    def problem(self, words: str) -> None:
        self.problems.append(words)
        print(f"PROBLEM: {words}", flush=True)

    def start_policy(self) -> None:
        parameters = {"robot": str(ROBOT), "policy": str(POLICY), "threads": 1}
        self.graph.start("policy_node", parameters=parameters)

    def start(self) -> None:
        self.graph.start("sim_node", parameters={"robot": str(ROBOT)})
        self.start_policy()
        parameters = {"robot": str(self.robot_file), "overrun_limit": OVERRUN_LIMIT_NS * 1e-9, "resume": "automatic"}
        self.graph.start("executor_node", parameters=parameters)
        self.graph.wait_for(lambda: self._measured, "the simulator's joint states")
        self.graph.bring_up("policy_node", "executor_node")
        self.graph.wait_for(lambda: self.say.get_subscription_count() >= 3, "the listeners of the instruction")
        self.graph.wait_for(lambda: self.e_stop.get_subscription_count(), "the listener of the e-stop")
        self.instruct()
        self.graph.wait_for(lambda: self.status and self.status.state in FOLLOWING, "a chunk that is followed", 120.0)

    def instruct(self) -> None:
        """Another colour than before, so that the arm moves."""
        others = [colour for colour in COLOURS if colour not in self.instruction]
        self.instruction = f"touch the {self.rng.choice(others)} cube"
        self.say.publish(String(data=self.instruction))

    def press(self) -> None:
        """Send a `true` on the e-stop topic."""
        if self._pressed is None:
            self._pressed, self._e_stopped = time.monotonic(), None
        self.e_stop.publish(Bool(data=True))

    def expect_e_stop(self) -> None:
        """What was pressed must be in the status, and stay there. Then the reset."""
        pressed, self._pressed = self._pressed, None
        if self.graph.wait_until(lambda: self._e_stopped is not None, E_STOP_PATIENCE):
            self.presses.append(self._e_stopped - pressed)
            time.sleep(float(self.rng.uniform(0.0, 0.5)))
            if self.status.state != ExecutorStatus.E_STOPPED:
                self.problem("an e-stop did not stay latched")
        else:
            self.lost += 1
            self.problem("an e-stop was lost")
        self.reset()

    def reset(self) -> None:
        self.graph.call(self._reset, Trigger.Request())

    def attack(self, name: str) -> None:
        """One fault, and the recovery."""
        print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
        with self._lock:
            self.trail.note(self.now_ns(), self.now_ns(), "fault", name)
        FAULTS[name](self)
        begin = time.monotonic()
        self.instruct()
        said, accepted = begin, self.status.accepted_chunks
        while not self._follows(accepted + 3):
            self.graph.check()
            if time.monotonic() - begin > self.patience:
                policy, status = self.policy, self.status
                words = f"{status.message}, last refusal {status.last_refusal!r}, policy says {policy.message!r}"
                self.problem(f"{name}: state {status.state} after {self.patience:g} s: {words}")
                break
            if time.monotonic() - said > 5.0:  # a node that was just started may not have heard it
                said = time.monotonic()
                if self.status.state == ExecutorStatus.E_STOPPED:  # a press that met the reset has the last word
                    self.resets += 1
                    self.reset()
                self.say.publish(String(data=self.instruction))
            time.sleep(0.02)
        self.recoveries[name].append(time.monotonic() - begin)

    def _follows(self, accepted: int) -> bool:
        """The executor follows the newest instruction, and has accepted so many chunks."""
        status = self.status
        follows = status.state in FOLLOWING and status.instruction == self.instruction
        return follows and status.accepted_chunks >= accepted

    def weigh(self) -> None:
        """Note the memory of every process."""
        pids = {name: process.popen.pid for name, process in self.graph.processes.items()} | {"this peer": os.getpid()}
        for name, pid in pids.items():
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except (OSError, IndexError):
                continue  # it ended just now
            self.memory[name].append((pid, time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6))

    def run(self, seconds: float, faults: list[str], pause: float) -> None:
        """Every fault in random order, again and again, for `seconds`; at least once each."""
        end = time.monotonic() + seconds
        order: list[str] = []
        stop = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(stop,), daemon=True)
        keeper.start()
        rounds = 0
        while time.monotonic() < end or rounds == 0 or (rounds == 1 and order):
            if not order:
                order, rounds = [str(name) for name in self.rng.permutation(faults)], rounds + 1
            time.sleep(float(self.rng.uniform(0.5, pause)))
            name = order.pop()
            try:
                self.attack(name)
            except GraphError as error:  # the graph cannot go on: report what there is
                self.problem(f"{name}: {error}")
                break
        stop.set()
        keeper.join()
        try:
            self.graph.deactivate("executor_node")
        except GraphError as error:
            self.problem(f"the end: {error}")
        time.sleep(2 * SETTLED_NS * 1e-9)
        self.settle(all_of_it=True)
        for watch in self.watches.values():
            watch.check.end()
        self._keep_findings()

    def _keep(self, stop: threading.Event) -> None:
        while not stop.wait(1.0):
            self.settle()
            self.weigh()

    # What is said

    def growth(self, name: str, warm_up: float) -> dict[str, float | None]:
        """MB at the beginning and the end, and MB per hour of those processes that lived long after `warm_up` s."""
        entries = self.memory[name]
        begin = entries[0][1]
        pairs = []
        for pid in dict.fromkeys(entry[0] for entry in entries):
            points = np.array([(t, mb) for p, t, mb in entries if p == pid])
            points = points[points[:, 0] > max(points[0, 0], begin) + warm_up]
            if len(points) > 30:
                pairs.append(points - points.mean(axis=0))
        slope = None
        if pairs:
            t, mb = np.concatenate(pairs).T
            slope = round(float(t @ mb / (t @ t) * 3600), 2)
        return {"first_mb": round(entries[0][2], 1), "last_mb": round(entries[-1][2], 1), "mb_per_hour": slope}

    def report(self, seconds: float, warm_up: float) -> dict[str, Any]:
        status, checks = self.status, [watch.check for watch in self.watches.values()]
        violations: Counter[str] = Counter()
        for check in checks:
            violations.update(check.violations)
        late = np.array(self.lateness) * 1000
        return {
            "seconds": round(seconds),
            "commands": sum(check.commands for check in checks),
            "moving": sum(check.moving for check in checks),
            "violations": dict(violations),
            "first_violations": {f"{topic}, {kind}": words for topic, watch in self.watches.items()
                                 for kind, words in watch.check.first.items()},
            "commands_not_heard": sum(watch.lost for watch in self.watches.values()),
            "jumps_after_silence": [words for watch in self.watches.values() for words, *_ in watch.jumps],
            "after_silence": dict(sum((watch.after_silence for watch in self.watches.values()), Counter())),
            "share_of_limit": {k: round(max(c.share[k] for c in checks), 6) for k in ("velocity", "acceleration")},
            "e_stops_sent": len(self.presses) + self.lost,
            "e_stops_lost": self.lost,
            "resets_that_met_a_press": self.resets,
            "e_stop_to_status_ms": {"median": round(1000 * float(np.median(self.presses))),
                                    "longest": round(1000 * max(self.presses))} if self.presses else None,
            "faults": {name: {"times": len(times), "recovery_median_s": round(float(np.median(times)), 2),
                              "recovery_longest_s": round(max(times), 2)} for name, times in self.recoveries.items()},
            "policies_unreachable": self.unreachable,
            "accepted_chunks": status.accepted_chunks,
            "refused_chunks": dict(zip(status.refusal_reasons, map(int, status.refusal_counts), strict=True)),
            "lateness_ms": {"median": round(float(np.median(late)), 3), "p99": round(float(np.percentile(late, 99)), 3),
                            "longest": round(float(late.max()), 3)},
            "memory": {name: self.growth(name, warm_up) for name in self.memory},
            "problems": self.problems,
            "findings": self.trail.findings,
        }  # fmt: skip


def soak(folder: Path, seconds: float, *, seed: int = 0, faults: list[str] | None = None, patience: float = 60.0,
         pause: float = 4.0, domain: int | None = None,
         tell: Callable[[dict[str, Any]], object] = lambda report: None) -> dict[str, Any]:  # fmt: skip
    """Run it; gives the report, and tells it before the processes end. `faults`: names of FAULTS, None for all;
    `pause`: s at most from a recovery to the next fault."""
    folder.mkdir(parents=True, exist_ok=True)
    with Graph(folder / "graph", domain=domain) as graph:
        peer = Soak(graph, folder, seed, patience)
        peer.start()
        begin = time.monotonic()
        peer.run(seconds, faults or list(FAULTS), pause)
        report = peer.report(time.monotonic() - begin, warm_up=min(300.0, seconds / 5))
        tell(report)
        return report


def failed(report: dict[str, Any]) -> bool:
    return bool(report["violations"] or report["jumps_after_silence"] or report["e_stops_lost"] or report["problems"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), help="these alone")
    parser.add_argument("--patience", type=float, default=60.0, help="s for the recovery after a fault")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    def tell(report: dict[str, Any]) -> None:
        short = {key: value for key, value in report.items() if key != "findings"}
        print(yaml.safe_dump(short, sort_keys=False, allow_unicode=True, width=120), flush=True)
        if args.json:
            args.json.write_text(json.dumps(report, indent=2) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        report = soak(
            Path(folder), 60 * args.minutes, seed=args.seed, faults=args.faults, patience=args.patience, tell=tell
        )
    return int(failed(report))


if __name__ == "__main__":
    sys.exit(main())
