"""How a robot's cameras and joints are mapped to a policy's inputs and outputs.

A policy file (`config/policies/*.yaml`) or the `embodiment.yaml` of a checkpoint contains, for example,

    cameras: {base_0_rgb: front, left_wrist_0_rgb: wrist, right_wrist_0_rgb: null}   # null: declared absent
    state:                                # the policy's dimensions in order; value = scale * joint + offset
      - {joint: shoulder_pan, unit: degrees}               # scale: 57.29578
      - {joint: gripper, scale: 52.0, offset: 9.0}
    actions:                              # as `state` if omitted
      - {joint: shoulder_pan, unit: degrees, mode: delta}
      - {joint: gripper, scale: 52.0, offset: 9.0}
    step_dt: 0.0333                       # s between action rows

and, for a policy whose actions move a tool (its dimensions are `joint: null` in `actions`):

    tool: {space: delta, rotation: euler_xyz, frame: base, first: 0}    # first: number of its first dimension
    hold: [shoulder_pan, ...]             # the joints that move the tool: the policy does not command them itself
    tool_state: {urdf: so101.urdf, link: tip, frame: base, rotation: rotation_6d_rows, first: 0}  # if its state has it

and for one that answers a path of the base, x, y and yaw, whose dimensions are `joint: null` in `actions`, too:

    path: {joints: {x: x.vel, y: y.vel, yaw: theta.vel}, first: 0}
    hold: [x.vel, y.vel, theta.vel]
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vla_ros.core.chunk import PATH, Part, Targets
from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import read_mapping, record, value_of
from vla_ros.policies.dimension import MODES, Dimension, read_dimension
from vla_ros.policies.path_actions import PathActions, as_velocities
from vla_ros.policies.tool_actions import ToolActions, ToolState, check_room


@dataclass(frozen=True)
class Embodiment:
    """The map between one robot and one policy.

    Attributes:
        cameras: name of the policy's image input -> the robot's camera, None if it is declared absent.
        state: the policy's state dimensions, in order.
        actions: the policy's action dimensions, in order.
        step_dt: s between action rows; None: what the checkpoint says.
        hold: joints that the policy does not command; they keep their last command.
        joints: all J joints, in the order of states and targets, which is the robot file's. By default those of the
            actions in order, then those of `hold`.
        tool: which action dimensions are a tool's; the joints that move it are in `hold`.
        tool_state: which state dimensions are a tool's pose.
        path: which action dimensions are a path of the base; its velocities are in `hold`.
    """

    cameras: Mapping[str, str | None]
    state: tuple[Dimension, ...]
    actions: tuple[Dimension, ...]
    step_dt: float | None = None
    hold: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    tool: ToolActions | None = None
    tool_state: ToolState | None = None
    path: PathActions | None = None

    def __post_init__(self) -> None:
        commanded = tuple(d.joint for d in self.actions if d.joint is not None)
        for what, names in (
            ("state", [d.joint for d in self.state if d.joint is not None]),
            ("actions", commanded), ("hold", self.hold), ("actions and hold", commanded + self.hold),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise InputError(f"{what}: joint {name!r} is duplicated, expected once")
        object.__setattr__(self, "joints", self.joints or commanded + self.hold)
        if sorted(self.joints) != sorted(commanded + self.hold):
            raise InputError(f"joints {list(self.joints)}, expected those of actions and hold in any order: "
                             f"{[*commanded, *self.hold]}")
        for what, dimensions in (("state", self.state), ("actions", self.actions)):
            for dimension in dimensions:
                if dimension.mode not in MODES:
                    raise InputError(
                        f"{what}: mode {shown(dimension.mode)} of {dimension.joint}, expected one of {MODES}"
                    )
                if dimension.scale == 0 or not np.isfinite([dimension.scale, dimension.offset]).all():
                    raise InputError(f"{what}: scale {dimension.scale}, offset {dimension.offset} of "
                                     f"{dimension.joint}, expected finite numbers and a scale that is not zero")
        if self.tool:
            self.tool.check(self.actions)
        if self.tool_state:
            self.tool_state.check(self.state, self.joints)
        if self.path:
            check_room("path", "actions", self.path.columns, self.actions)
            self.path.check(self.hold)
            if self.tool and set(self.path.columns) & set(self.tool.columns):
                raise InputError(f"path: first {self.path.first}, tool: first {self.tool.first}: the same dimensions, "
                                 "expected others")
        if not self.joints:
            raise InputError("actions: no joint, expected at least one")
        known = set(self.joints)
        for dimension in self.state:
            if dimension.joint is not None and dimension.joint not in known:
                raise InputError(f"state: joint {dimension.joint!r} is neither in actions nor in hold: "
                                 f"{list(self.joints)}")
        if self.step_dt is not None and not 0 < self.step_dt < np.inf:
            raise InputError(f"step_dt {self.step_dt}, expected more than zero seconds")

    @property
    def commanded(self) -> tuple[str, ...]:
        """The joints that the policy commands, in the order of `joints`."""
        return tuple(name for name in self.joints if name not in self.hold)

    @property
    def named_actions(self) -> Sequence[Dimension]:
        """`actions`, in which a tool's dimensions have the names of a pose's columns as joint."""
        return self.tool.named(self.actions) if self.tool else self.actions

    def in_order(self, joints: tuple[str, ...]) -> "Embodiment":
        """The same with `joints` in this order; unchanged if these are other joints, which `check_robot` reports."""
        return replace(self, joints=joints) if sorted(joints) == sorted(self.joints) else self

    @classmethod
    def identity(
        cls, joints: tuple[str, ...], cameras: Mapping[str, str | None], step_dt: float, hold: tuple[str, ...] = (),
        tool: ToolActions | None = None, path: Mapping[str, str] | None = None,
    ) -> "Embodiment":
        """The policy uses the robot's own units and joint order; joints of `hold` are observed but not commanded.
        The actions of a `tool` come first, then those of a `path` (see `PathActions.joints`)."""
        state = tuple(Dimension(name) for name in joints)
        hold = (*hold, *path.values()) if path else hold
        actions = tuple(dimension for dimension in state if dimension.joint not in hold)
        first = len(tool.columns) if tool else 0
        actions = (Dimension(None),) * (first + (len(PATH) if path else 0)) + actions
        way = PathActions(dict(path), first) if path else None
        return cls(dict(cameras), state, actions, step_dt, hold, joints if hold else (), tool, path=way)

    def state_to_policy(self, state: np.ndarray) -> np.ndarray:
        """(..., J) in the order of `joints`, rad or m, to (..., S) in the policy's units."""
        values = np.stack([self._value(d, state) for d in self.state], axis=-1)
        if tool := self.tool_state:
            pose = tool.pose(np.asarray(state, np.float64), self.joints, self.state)
            values[..., tool.columns.start : tool.columns.stop] = pose
        return values

    def actions_to_policy(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """(..., H, J) joint targets and the (..., J) observed state to (..., H, A) in the policy's units.

        The joint targets are followed by the rows of a tool, as `tool` describes them; InputError if they are missing.
        """
        columns = [d.of_mode(self._value(d, actions), self._value(d, state)) for d in self.actions]
        values = np.stack(columns, axis=-1)
        if tool := self.tool:
            if actions.shape[-1] == len(self.joints):
                raise InputError("tool: joint targets cannot be converted to end-effector actions; expected a "
                                 "dataset whose actions are poses of the tool")
            rows = tool.to_policy(actions[..., len(self.joints) :], self.actions)
            values[..., tool.columns.start : tool.columns.stop] = rows
        if path := self.path:
            rows = path.to_policy(np.asarray(actions, np.float64), self.joints, self.actions, self.step_dt)
            values[..., path.columns.start : path.columns.stop] = rows
        return values

    def actions_to_robot(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The inverse of `actions_to_policy`: (..., H, A) and the observed state to (..., H, J) joint targets."""
        targets = np.repeat(np.asarray(state, dtype=np.float64)[..., None, :], actions.shape[-2], axis=-2)
        for index, dimension in enumerate(self.actions):
            if dimension.joint is None:
                continue
            value, start = actions[..., index], self._value(dimension, state)[..., None]
            if dimension.mode == "delta":
                value = value + start
            elif dimension.mode == "rate":
                value = np.cumsum(value, axis=-1) + start
            targets[..., self.joints.index(dimension.joint)] = dimension.to_robot(value)
        if self.path:
            for name, values in self.path.to_robot(actions, self.actions, self.step_dt).items():
                targets[..., self.joints.index(name)] = values
        return targets

    def joint_rows(self, targets: Targets, state: np.ndarray) -> np.ndarray:
        """(H, J) joint targets; joints in no part keep their position in (J,), and a path becomes the velocities along
        it."""
        said = as_velocities(targets, self.path.joints, self.step_dt) if self.path else targets
        return said.joint_positions(self.joints, state)

    def targets(self, actions: np.ndarray, states: np.ndarray) -> list[Targets]:
        """(B, H, A) actions in the policy's units and the (B, J) observed states to the commanded joints' positions,
        (H, joints) each, and the rows of a tool or a base."""
        columns = [self.joints.index(name) for name in self.commanded]
        parts = [[Part(self.commanded, row[:, columns])] if columns else []
                 for row in self.actions_to_robot(actions, states)]
        if self.tool:
            parts = [[self.tool.part(row, self.actions), *found] for row, found in zip(actions, parts, strict=True)]
        if self.path:
            parts = [[*found, self.path.part(row, self.actions)] for row, found in zip(actions, parts, strict=True)]
        return [Targets(tuple(found)) for found in parts]

    def _value(self, dimension: Dimension, values: np.ndarray) -> np.ndarray:
        if dimension.joint is None:
            return np.zeros(np.shape(values)[:-1])
        return dimension.to_policy(np.asarray(values, dtype=np.float64)[..., self.joints.index(dimension.joint)])

    def to_dict(self) -> dict[str, Any]:
        """For YAML; `from_dict` reads it back."""
        defaults = asdict(Dimension(None))
        rows = {
            what: [{n: v for n, v in asdict(d).items() if n == "joint" or v != defaults[n]} for d in dimensions]
            for what, dimensions in (("state", self.state), ("actions", self.actions))
        }
        data = {"cameras": dict(self.cameras), **rows, "step_dt": self.step_dt, "hold": list(self.hold)}
        if self.joints != replace(self, joints=()).joints:
            data["joints"] = list(self.joints)
        data |= {name: asdict(said) for name in ("tool", "tool_state", "path") if (said := getattr(self, name))}
        return {name: value for name, value in data.items() if value not in (None, []) or name == "state"}

    @classmethod
    def from_dict(cls, data: Any, where: str = "embodiment") -> "Embodiment":
        """Raises InputError that names the field. A dimension may be the name of its joint alone."""
        if isinstance(data, Mapping):
            data = dict(data)
            for name in ("state", "actions"):
                if isinstance(data.get(name), list):
                    data[name] = [read_dimension(row, f"{where}: {name}[{i}]") for i, row in enumerate(data[name])]
            if "actions" not in data and "state" in data:
                data["actions"] = data["state"]
        return record(cls, data, where)

    @staticmethod
    def clock(value: Any, where: str) -> float:
        """`step_dt` of a file that contains nothing else. Raises InputError."""
        step_dt = value_of(float, value, f"{where}: step_dt")
        if not step_dt > 0:
            raise InputError(f"{where}: step_dt {step_dt}, expected more than zero seconds")
        return step_dt

    @classmethod
    def load(cls, path: Path) -> "Embodiment":
        """From a YAML file. Raises InputError."""
        return cls.from_dict(read_mapping(path, "embodiment"), str(path))

    def save(self, path: Path) -> None:
        """Write the YAML file that `load` reads."""
        path.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")
