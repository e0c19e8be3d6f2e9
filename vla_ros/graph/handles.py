"""What a person steers with: the keys of a terminal, or a gamepad (sensor_msgs/Joy, as joy_node publishes it)."""

import math
import os
import re
import select
import termios
import threading
import time
import tty
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sensor_msgs.msg import Joy

from vla_ros.control.steering import Steering
from vla_ros.core.errors import InputError
from vla_ros.core.text import say
from vla_ros.nodes.qos import sensor_qos

_PERIOD = 0.05  # s between looks
_FINER = 1.5  # what a press of - or + does to the steps
_STEPS = (0.1, 10.0)  # least and greatest scale of the steps
MOVES = {  # key -> axis of the tool (x, y, z, about x, y, z) and way
    "w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1),
    "u": (3, -1), "o": (3, 1), "i": (4, 1), "k": (4, -1), "j": (5, 1), "l": (5, -1),
}  # fmt: skip
DRIVES = {  # key, A to D for the arrows up, down, right and left -> axis of the base and way
    "A": ("x", 1), "B": ("x", -1), "c": ("y", 1), "v": ("y", -1), "D": ("yaw", 1), "C": ("yaw", -1),
}  # fmt: skip
TOOL_KEYS = """\
  w s  tool forwards, back (x)        u o  turn it about x
  a d  to the left, right (y)         i k  about y
  r f  up, down (z)                   j l  about z"""
BASE_KEYS = "  arrows  hold: the base drives forwards, back, turns left, right; let go: it brakes"
SIDEWAYS_KEYS = "  c v  hold: drive it to the left, right"
JOINT_KEYS = """\
  , .  joint down, up                 1-9  choose the joint: {joints}
  - +  smaller, larger steps          space  stay here
  t    take over, also again          g  give back          q  give back and end"""
PAD_KEYS = """\
  hold LB: take over; let it go: give back       A B  joint down, up
  X Y: the joint before, the next one: {joints}"""
PAD_TOOL_KEYS = """\
  left stick: x and y       right stick, up and down: z; left and right: turn about z
  cross: turn about x and y"""
PAD_BASE_KEYS = "  hold RB too: left stick drives the base; right stick, left and right, turns it"
_KEY = re.compile(r"\x1b(?:[O\[][0-9;]*([A-Za-z~])|.)?|(.)", re.DOTALL)  # an arrow's letter, or a key
_BEGUN = re.compile(r"(?:\x1b(?:[O\[][0-9;]*)?)?$")


class Keys:
    """The keys of a terminal; each press is a step, or drives a base for a moment. A context: outside of it the
    terminal is as it was."""

    alive = True  # a terminal that is closed ends the program, and with it what it publishes

    def __init__(self, descriptor: int, tell: Callable[[str], object] = say) -> None:
        """`descriptor`: of the terminal. Raises InputError where it is none."""
        if not os.isatty(descriptor):
            raise InputError("--keyboard: the standard input is no terminal, expected one to type in")
        self._descriptor, self.say = descriptor, tell
        self._lock = threading.Lock()
        self._pressed: list[str] = []
        self._begun = ""  # an arrow of which the rest has not come yet
        self.done = False

    def __enter__(self) -> "Keys":
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        return self

    def __exit__(self, *error: object) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def help(self, steering: Steering, tool: bool) -> str:
        shown = (TOOL_KEYS, tool), (BASE_KEYS, steering.axes), (SIDEWAYS_KEYS, "y" in steering.axes)
        return "\n".join([*(text for text, there in shown if there), JOINT_KEYS.format(joints=_joints(steering))])

    def wishes(self, taken: bool) -> list[bool]:
        """Waits a moment for keys. True: to take over; False: to give back."""
        ready, _, _ = select.select([self._descriptor], [], [], _PERIOD)
        if not ready:
            return []
        try:
            data = os.read(self._descriptor, 256)
        except OSError:  # the terminal is gone
            data = b""
        if not data or b"q" in data:
            self.done = True
            return []
        text = self._begun + data.decode("ascii", "ignore")
        self._begun = _BEGUN.search(text)[0]
        found = _KEY.findall(text.removesuffix(self._begun))
        keys = [arrow or key.lower() for arrow, key in found if arrow or key]
        with self._lock:
            self._pressed += [key for key in keys if key not in "tg"]
        return [key == "t" for key in keys if key in "tg"][-1:]

    def forget(self) -> None:
        """What was pressed while this does not lead moves nothing later."""
        with self._lock:
            self._pressed.clear()

    def steer(self, steering: Steering, dt: float) -> None:
        """What was pressed since the last time, then `dt` s go by."""
        with self._lock:
            pressed, self._pressed = self._pressed, []
        for key in pressed:
            if key in MOVES:
                steering.push(*MOVES[key])
            elif key in DRIVES:
                steering.drive(*DRIVES[key])
            elif key in ",.":
                steering.push_joint(1.0 if key == "." else -1.0)
            elif key in "-+":
                scale = steering.scale * (_FINER if key == "+" else 1.0 / _FINER)
                steering.scale = min(max(scale, _STEPS[0]), _STEPS[1])
            elif key == " ":
                steering.hold()
            elif key in "123456789" and int(key) <= len(steering.others):
                steering.choose(int(key) - 1)
                self.say(f"joint {steering.choice}")
        steering.advance(dt)


class Pad:
    """A gamepad in the layout that joy_node gives an Xbox pad; it leads while LB is held.

    Attributes:
        done: never: the program ends with Ctrl-C.
    """

    done = False
    _SILENT = 0.5  # s without a message (joy_node repeats them at 20 Hz): nobody may be holding it
    _HOLD, _DRIVE, _DOWN, _UP, _BEFORE, _NEXT = 4, 5, 0, 1, 2, 3  # buttons LB, RB, A, B, X, Y
    _AXES = ((1, 1.0), (0, 1.0), (4, 1.0), (6, 1.0), (7, 1.0), (3, 1.0))  # of x, y, z and about them

    def __init__(self, node: Any, topic: str, tell: Callable[[str], object] = say) -> None:
        self.say = tell
        self._lock = threading.Lock()
        self._axes: Sequence[float] = ()
        self._held: set[int] = set()
        self._fresh: set[int] = set()  # buttons that were pressed since the last look at them
        self._came = -math.inf
        self._led = False
        node.create_subscription(Joy, topic, self._take, sensor_qos())

    def help(self, steering: Steering, tool: bool) -> str:
        shown = (PAD_TOOL_KEYS, tool), (PAD_BASE_KEYS, steering.axes)
        return "\n".join([PAD_KEYS.format(joints=_joints(steering)), *(text for text, there in shown if there)])

    def _take(self, message: Joy) -> None:
        held = {index for index, value in enumerate(message.buttons) if value}
        with self._lock:
            self._fresh |= held - self._held
            self._held, self._axes, self._came = held, message.axes, time.monotonic()

    @property
    def alive(self) -> bool:
        return time.monotonic() - self._came < self._SILENT

    def wishes(self, taken: bool) -> list[bool]:
        """Waits a moment. True where LB was pressed, False where it was let go; a pad that is silent says neither."""
        time.sleep(_PERIOD)
        with self._lock:
            held = self._HOLD in self._held
        if not self.alive or held == self._led:
            return []
        self._led = held
        return [held] if held or taken else []

    def forget(self) -> None:
        """What was pressed while this does not lead changes nothing later."""
        with self._lock:
            self._fresh.clear()

    def steer(self, steering: Steering, dt: float) -> None:
        """The sticks and buttons as they are now, for `dt` s."""
        with self._lock:
            held, fresh, self._fresh = self._held, self._fresh, set()
            axes = self._axes
        for button, step in ((self._BEFORE, -1), (self._NEXT, 1)):
            if button in fresh and steering.others:
                steering.choose(steering.chosen + step)
                self.say(f"joint {steering.choice}")
        sticks = np.array([way * _value(axes, axis) for axis, way in self._AXES])
        joint = float(self._UP in held) - float(self._DOWN in held)
        if steering.axes and self._DRIVE in held:
            steering.advance(dt, None, joint, sticks[[0, 1, 5]])
        else:
            steering.advance(dt, sticks, joint)


def _value(axes: Sequence[float], index: int) -> float:
    """-1 to 1; 0 of an axis that the pad does not have, or that says nonsense."""
    value = axes[index] if index < len(axes) else 0.0
    return min(max(value, -1.0), 1.0) if math.isfinite(value) else 0.0


def _joints(steering: Steering) -> str:
    return ", ".join(steering.names[list(steering.columns).index(i)] for i in steering.others) or "none"
