"""The nodes of a demo, and its sequence."""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from vla_ros.core.resources import config_file
from vla_ros.core.terminal import Terminal
from vla_ros.graph.demo_bag import Step
from vla_ros.graph.keeping_up import KeepingUp
from vla_ros.graph.simulated import SimulatedGraph
from vla_ros.graph.watch import Display, Watch, grid
from vla_ros.messages.stamps import NS

NODES = ("policy_node", "executor_node", "recorder_node")
_CHUNK_RATE = 10.0  # Hz
_AFTERWARDS = 1.5  # s that the last task is followed after its success, for the video


class TooSlow(Exception):
    """This machine is too slow for real time; the text says what is slow."""


class DemoGraph(SimulatedGraph):
    """Simulator, policy, executor and recorder, as a context."""

    def __init__(self, folder: Path, args: argparse.Namespace, console: Terminal) -> None:
        super().__init__(folder, args.robot, lockstep=args.lockstep, scene=args.scene, use_sim_time=args.lockstep)
        self.args, self.console, self.folder = args, console, folder
        self.keeping_up = KeepingUp(_CHUNK_RATE, self.robot.control_rate)
        self._limits = np.array([joint.velocity for joint in self.robot.joints])

    def now_ns(self) -> int:
        return self.graph.node.get_clock().now().nanoseconds

    def bring_up(self) -> None:
        """Start all nodes, configure them, lay out the cubes, activate."""
        args, graph, common = self.args, self.graph, self.common
        policy = {"policy": args.policy, "device": args.device, "threads": 1, "rtc": args.mode == "rtc"}
        # What the policy was trained at; more would only take time from the other nodes of a small machine.
        policy["max_rate"] = 0.0 if args.lockstep else _CHUNK_RATE
        bag = {
            "output": str(self.folder.resolve() / "bag"), "topics": ["sim_node/task", "sim_node/success"],
            "compressed_images": True, "image_quality": 85,
        }  # fmt: skip
        graph.start("policy_node", parameters=common | policy)
        graph.start(
            "executor_node", parameters=common | {"mode": args.mode} | self.tool_parameters(),
            files=[config_file("executor_demo.yaml")],
        )
        graph.start("recorder_node", parameters=common | bag)
        self.console.print(
            f"in another terminal: export ROS_DOMAIN_ID={graph.domain} ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST",
            soft_wrap=True,
        )  # fmt: skip
        with self.console.status("starting the simulator, loading the policy"):
            self.simulation.start(self.robot_file, lockstep=args.lockstep, patience=300.0, **self.scene)
            for name in NODES:
                graph.configure(name)
            self.simulation.reset(seed=args.seed, hold=args.lockstep)
            for name in NODES:
                graph.activate_when_ready(name)

    def follow(self, steps: list[Step]) -> None:
        """The instructions one after another, each until it is done or its time is over."""
        with Display(self.console) as display:
            for index, step in enumerate(steps):
                self._begin(step)
                if index:
                    steps[index - 1].end_ns = step.begin_ns
                elif self.args.lockstep:
                    self.wait_until_steered()
                if self.args.lockstep:
                    self.simulation.run()
                self._wait_for_success(step, steps, display)
            if self.args.lockstep:
                self.simulation.run()  # on from where it was held
            end = self.now_ns() + round(_AFTERWARDS * NS)
            self.graph.wait_for(lambda: self.now_ns() >= end, "the end of the last motion", 600.0)
            steps[-1].end_ns = self.now_ns()

    def _begin(self, step: Step) -> None:
        executor = self.watch.executor
        if executor is not None and len(executor.velocity) == len(self._limits):
            step.still_moving = float(np.max(np.abs(np.asarray(executor.velocity)) / self._limits))
        step.begin_ns = self.now_ns()
        self.instruct(step.instruction)

    def _wait_for_success(self, step: Step, steps: list[Step], display: Display) -> None:
        limit = step.begin_ns + round(self.args.time_limit * NS)
        while True:
            task = self.simulation.task
            if task.failed:
                self.graph.check()
                raise RuntimeError(f"sim_node: {task.message}")
            if task.success and task.values["instruction"] == step.instruction:
                step.success_ns = self.now_ns()
            display.show([grid(self._rows(steps))], f"{task.message}: {self.watch.summary()}")
            if step.success_ns is not None or self.now_ns() > limit:
                return
            if not self.args.lockstep:
                self._look_for_slowness()
            self.graph.check()
            time.sleep(0.02)

    def _look_for_slowness(self) -> None:
        """Raises TooSlow, or only reports it if real time was requested."""
        if not (words := self.keeping_up.look(self.watch.policy, self.watch.executor, time.monotonic())):
            return
        if not self.args.real_time:
            raise TooSlow(words)
        self.console.print(f"{words}; --lockstep uses simulated time, which waits for every node", soft_wrap=True)

    def finish_bag(self) -> None:
        """The recorder writes its queue and closes the bag."""
        with self.console.status("finishing the bag"):
            self.graph.deactivate("recorder_node")

    def _rows(self, steps: list[Step]) -> list[tuple[str, Any]]:
        values = self.simulation.task.values
        rows = self.watch.rows()
        cube = values.get("cube", "")
        if cube:
            words = Text(f"{cube} cube", style=cube)
            words.append(f", gripper {float(values['distance']) * 100:.1f} cm away", style="default")
            if values.get("held"):
                words.append(f", holds the {values['held']} one", style="default")
            rows.append(("task", words))
        for step in steps:
            rows.append(("", _outcome(step)))
        return rows


def _outcome(step: Step) -> Text:
    if step.begin_ns is None:
        return Text(f"  {step.instruction}", style="dim")
    if step.success_ns is None:
        return Text(f"… {step.instruction}", style="bold")
    return Text(f"✓ {step.instruction} ({step.duration:.1f} s)", style="green")


def result_table(steps: list[Step], watch: Watch) -> Table:
    """The result of each instruction, and the speed of the nodes."""
    table = Table(caption=_speed(watch), caption_justify="left")
    for title in ("instruction", "done", "after", "robot's speed when it was given"):
        table.add_column(title, justify="left" if title == "instruction" else "right")
    for step in steps:
        done = step.success_ns is not None
        table.add_row(
            step.instruction,
            Text("yes", style="green") if done else Text("no", style="bold red"),
            f"{step.duration:.1f} s" if done else "",
            f"{step.still_moving:.0%} of the limit" if np.isfinite(step.still_moving) else "not commanded yet",
        )
    return table


def _speed(watch: Watch) -> str:
    words = []
    if watch.inference_times:
        median, worst = np.median(watch.inference_times), np.percentile(watch.inference_times, 99)
        words.append(f"inference {median * 1e3:.1f} ms median, {worst * 1e3:.1f} ms p99 ({watch.policy.chunks} chunks)")
    if watch.control_rates:
        words.append(f"control rate {np.median(watch.control_rates):.1f} Hz")
    if watch.executor is not None:
        status = watch.executor
        reasons = zip(status.refusal_reasons, status.refusal_counts, strict=False)
        refused = ", ".join(f"{count} as {reason}" for reason, count in reasons)
        words.append(f"chunks refused: {refused or 'none'}")
    return "; ".join(words)
