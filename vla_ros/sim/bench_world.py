"""The arm at its workbench: cubes of five colours, distractors, a bowl, a button, a drawer, pads and a mark."""

from collections.abc import Sequence

import mujoco
import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.sim.bench import (
    AWAY,
    COLOURS,
    DISTRACTORS,
    DRAWER_MIDDLE,
    FIXED,
    HEIGHTS,
    PADS,
    SLIDES,
    BenchLayout,
    bench_xml,
)
from vla_ros.sim.robot import JOINTS
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import Task, cubes_of
from vla_ros.sim.wordings import TRAINED, TaskKind
from vla_ros.sim.world import HOME, World

SECONDS = {
    TaskKind.TOUCH: 10.0, TaskKind.PICK: 15.0, TaskKind.PUSH: 15.0, TaskKind.PUSH_RIGHT: 15.0, TaskKind.PLACE: 20.0,
    TaskKind.STACK: 20.0, TaskKind.PRESS: 12.0, TaskKind.OPEN: 15.0, TaskKind.STORE: 30.0, TaskKind.SORT: 35.0,
    TaskKind.HAND_OVER: 20.0, TaskKind.UNDO: 20.0,
}  # fmt: skip
UNDOABLE = (TaskKind.PUSH, TaskKind.PUSH_RIGHT, TaskKind.STACK, TaskKind.OPEN)  # what is shown before an undo


class Bench(World):
    """The simulated SO-101 at its workbench."""

    scene = "bench"
    kinds = tuple(SECONDS)
    words = TRAINED
    colours = COLOURS
    random_layout = staticmethod(BenchLayout.random)

    def __init__(self, seed: int = 0, friction: float = 1.0):
        """`friction` is the sliding friction between fingers and cubes (1 is a rubber pad)."""
        Simulated.__init__(self, bench_xml(friction), JOINTS)
        model = self.model
        self._free = self._cube_qpos | {name: int(model.joint(name).qposadr[0]) for name in DISTRACTORS}
        self._mocap = {name: int(model.body(name).mocapid[0]) for name in FIXED}
        self._weight = {name: int(model.body(name).id) for name in self._free}
        self._slide = {name: int(model.joint(name).qposadr[0]) for name in SLIDES}
        self._body = {name: int(model.body(name).id) for name in SLIDES}
        self.reset(seed)

    @classmethod
    def suited(cls, task: Task, seed: int) -> Task:
        """The task with colours of the layout, and what is to be undone before an UNDO alone."""
        there = BenchLayout.random(seed).colours
        if task.kind is TaskKind.UNDO:
            task = Task(UNDOABLE[seed % len(UNDOABLE)], task.colour, then=task)
        first = COLOURS.index(task.colour or COLOURS[0])
        names = [there[(first + i) % len(there)] for i in range(3)]
        then = task.then
        if then is not None:
            then = Task(then.kind, *names[1 : 1 + cubes_of(then.kind)])
        return Task(task.kind, *names[: cubes_of(task.kind)], *[""] * (2 - cubes_of(task.kind)), then)

    @classmethod
    def limit(cls, task: Task) -> float:
        return SECONDS[task.kind] + (cls.limit(task.then) if task.then else 0.0)

    def understand(self, text: str) -> Task:
        task = super().understand(text)
        self.check(task)
        return task

    def check(self, task: Task) -> None:
        """Raises InputError where the task is about a cube that is not here now."""
        cubes, step = self.cube_positions(), task
        there = [colour for colour in self.colours if cubes[colour][2] > AWAY / 2]
        while step:
            for colour in (step.colour, step.other):
                if colour and colour not in there:
                    known = ", ".join(there)
                    raise InputError(f"{task.instruction()!r}: no {colour} cube in this layout, expected {known}")
            step = step.then

    def reset(
        self, seed: int = 0, joints: Sequence[float] | None = None, layout: BenchLayout | None = None
    ) -> None:
        """Put all at the places of `seed` (or of `layout`) and the arm, at rest, at `joints` (6,) rad (home)."""
        self.layout = layout = layout or BenchLayout.random(seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._qpos] = self.data.ctrl[:] = HOME if joints is None else self._checked(joints)
        for name, body in self._weight.items():
            self.model.body_gravcomp[body] = name not in layout.things  # what is away floats, without contacts
        for i, name in enumerate((*self._free, *self._mocap)):
            x, y, yaw = layout.things.get(name, (0.2 * i, 0.0, 0.0))
            height = (0.0 if name in layout.things else AWAY) + HEIGHTS.get(name, 0.0)
            self._put(name, [x, y, height, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
        mujoco.mj_forward(self.model, self.data)

    def poses(self) -> dict[str, np.ndarray]:
        data = self.data
        places = {name: np.concatenate([data.mocap_pos[i], data.mocap_quat[i]]) for name, i in self._mocap.items()}
        places |= {name: np.concatenate([data.xpos[i], data.xquat[i]]) for name, i in self._body.items()}
        return places | {name: data.qpos[start : start + 7].copy() for name, start in self._free.items()}

    def _put(self, name: str, pose: Sequence[float]) -> None:
        if name in self._mocap:
            i = self._mocap[name]
            self.data.mocap_pos[i], self.data.mocap_quat[i] = pose[:3], pose[3:]
        elif name in self._slide:
            case, turn = self.data.mocap_pos[self._mocap[SLIDES[name]]], np.zeros(9)
            mujoco.mju_quat2Mat(turn, np.asarray(pose[3:], dtype=float))
            axis = self.model.joint(name).axis
            self.data.qpos[self._slide[name]] = (np.asarray(pose[:3]) - case) @ turn.reshape(3, 3) @ axis
        else:
            self.data.qpos[self._free[name] : self._free[name] + 7] = pose

    def _shading(self) -> list[np.ndarray]:
        lying = [self.data.qpos[start : start + 3].copy() for start in self._free.values()]
        return [*(place for place in lying if place[2] > AWAY / 2), self.tip_position()]

    # What the tasks are about

    def fixture(self, name: str) -> tuple[np.ndarray, float]:
        """(2,) m and yaw, rad, of what stands on the table or is painted on it."""
        i = self._mocap[name]
        w, _, _, z = self.data.mocap_quat[i]
        return self.data.mocap_pos[i][:2].copy(), float(2.0 * np.arctan2(z, w))

    def slide(self, name: str) -> float:
        """m that the drawer is open, or the button's cap is down."""
        return float(self.data.qpos[self._slide[name]])

    def drawer_point(self, along: float, opened: float | None = None) -> np.ndarray:
        """(2,) m, of a point in the middle of the drawer, `along` from the back of the case, which moves with it;
        `opened`: m, None: as far as it is now."""
        place, yaw = self.fixture("drawer_case")
        along += self.slide("drawer") if opened is None else opened
        return place + (np.cos(yaw) * along, np.sin(yaw) * along)

    def in_drawer(self, place: np.ndarray) -> np.ndarray:
        """(2,) m from the middle of the drawer to a place (3,), along and across it."""
        yaw = self.fixture("drawer_case")[1]
        east, north = place[:2] - self.drawer_point(DRAWER_MIDDLE)
        return np.array([np.cos(yaw) * east + np.sin(yaw) * north, np.cos(yaw) * north - np.sin(yaw) * east])

    def pads(self) -> dict[str, np.ndarray]:
        """Colour -> (2,) m, of the pads that there are."""
        there = [pad for pad in PADS if self.data.mocap_pos[self._mocap[pad]][2] > AWAY / 2]
        return {pad.removesuffix("_pad"): self.fixture(pad)[0] for pad in there}
