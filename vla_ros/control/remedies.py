"""The catalogue of docs/troubleshooting.md: each message, its cause, and what to do.

`scripts/reference.py` writes the page. `vla-ros run`, `top` and `say` name the section for what they show, and errors
end with theirs (`error_kinds`).
"""

from vla_ros.control.admission import Reason
from vla_ros.control.error_kinds import KINDS, Remedy, kind_of
from vla_ros.control.supervisor import Cause, State

PAGE = "docs/troubleshooting.md"
STATES = {
    State.UNCONFIGURED: Remedy(
        "executor_node has not read its robot file yet, or has refused it; the status says why.",
        "`vla-ros lifecycle executor_node configure` prints the reason; `vla-ros info ROBOT_FILE` checks only the "
        "file.",
    ),
    State.INACTIVE: Remedy(
        "executor_node is configured but publishes no commands; if an activation was refused, the status says why.",
        "`vla-ros lifecycle executor_node activate`. It needs fresh joint states of every joint, no latched e-stop "
        "and nobody else on the command topics.",
    ),
    State.E_STOPPED: Remedy(
        "The e-stop was pressed, or its heartbeat (`e_stop_heartbeat`) stopped. It stays latched.",
        "Check the robot, release the button, then `vla-ros e-stop --reset`. The next chunk moves the robot again.",
    ),
    State.TAKEN_OVER: Remedy(
        "A leader arm, or another source on `takeover_topic`, commands in place of the policy, whose chunks are "
        "refused as `taken_over`.",
        "`vla-ros takeover --end` gives control back; the policy continues with what it observes from then on.",
        "has taken over",
    ),
}
CAUSES = {
    Cause.NO_CHUNK: Remedy(
        "The policy has sent no chunk that was accepted, or all rows of its newest chunk have passed.",
        "Check the status of `policy_node` (it may be waiting for an input) and whether chunks are refused. If an "
        "inference takes longer than a chunk lasts (rows × `step_dt`), the robot stops between chunks: use a GPU, "
        "fewer `--num-steps`, `--dtype bfloat16`, or a policy with longer chunks. `max_chunk_age` limits the age of "
        "a chunk.",
        "no live chunk",
    ),
    Cause.NO_INSTRUCTION: Remedy("No instruction has been given.", "`vla-ros say TEXT`.", "no instruction"),
    Cause.TAKEOVER_PAUSED: Remedy(
        "A source has taken over but is not followed at the moment: the robot stopped meanwhile, the source stopped "
        "publishing, jumped or asks for something impossible, or the instruction was withdrawn. Neither the source nor "
        "the policy moves the robot.",
        "`vla-ros takeover` follows the source again, from where the robot is; `vla-ros takeover --end` gives control "
        "back to the policy.",
        "has taken over and is not followed",
    ),
    Cause.STALE_JOINT_STATES: Remedy(
        "A joint of the robot file has no position newer than `joint_state_timeout`: its driver has ended, publishes "
        "too slowly or uses another name for the joint, or the clock of its computer differs.",
        "Look at the joint states' topic with `ros2 topic hz` and `ros2 topic echo`; compare the names with the robot "
        "file (`joint_prefix`); synchronise the clocks (chrony). A driver slower than 10 Hz needs a longer "
        "`joint_state_timeout`.",
        "s old, limit",
    ),
    Cause.FOLLOWING_ERROR: Remedy(
        "The robot is not where it was commanded: the controller is not active, refuses its commands or is slower than "
        "the limits of the robot file, or something is in the way. Or the robot was moved by hand to a position where "
        "it may not start.",
        "Check that the controller is active (`ros2 control list_controllers`) and subscribes to the topic of the "
        "robot file, and read its log. [Controllers](controllers.md) lists its settings. If the arm lags, lower "
        "`velocity` and `acceleration` in the robot file; if it is outside its limits, move it back, then deactivate "
        "and activate.",
        "the controller does not follow",
    ),
    Cause.POLICY_GONE: Remedy(
        "`policy_node` has ended or hangs, or the network connection to it is lost.",
        "Read the last line of its log, then start it again. With `respawn:=true` the launch file does so by itself.",
        "the policy's status no longer arrives",
    ),
    Cause.OVERRUN: Remedy(
        "The control loop did not run for longer than `overrun_limit`: the machine is overloaded or was suspended.",
        "Reduce the load, give the policy fewer `threads`, or set `realtime_priority` ([its effect](safety.md)).",
        "the control loop stalled for",
    ),
    Cause.CLOCK_JUMP: Remedy(
        "The computer's clock was set while the robot moved (NTP after the start, a virtual machine), or /clock "
        "jumped.",
        "Let the clock settle before the start; use chrony, which adjusts it gradually. The stop ends by itself after "
        "0.5 s.",
        "ROS time changed by",
    ),
    Cause.REVERSALS: Remedy(
        "A joint reverses its direction more often than `reversal_limit` allows, and `on_reversals` is hold: the "
        "policy is undecided. Swapped cameras or frozen images have this effect.",
        "Check the images (`vla-ros rerun`) and the policy file's cameras. Another instruction ends the stop.",
        "its commanded motion reverses",
    ),
    Cause.RIVAL: Remedy(
        "Another node publishes on a command topic, for example a teleoperation, MoveIt or a second executor.",
        "End the node that is named, or give each robot its own `--namespace` or ROS_DOMAIN_ID.",
        "also commanded by",
    ),
    Cause.UNCONFIRMED: Remedy(
        "The robot was stopped for more than 2 s, for the reason in parentheses. Somebody may be near it.",
        "Check the robot. When the policy is no longer waiting, give the instruction again, the same or another: "
        "`vla-ros say TEXT`. With `resume: automatic` executor_node continues without that.",
        "moves when the instruction is given again",
    ),
}
_AT_ACTIVATION = (Cause.STALE_JOINT_STATES, Cause.FOLLOWING_ERROR, Cause.RIVAL)  # it is refused for them as well
_UNITS = (
    "Usually the units are wrong: degrees instead of rad, or the gripper's range; see `scale` of the policy file."
)
REASONS = {
    Reason.SIZE: Remedy(
        "A message was larger than any valid one can be.",
        "Find out which node publishes it: `ros2 topic info -v`.",
    ),
    Reason.UNDECODABLE: Remedy(
        "The bytes are not a message of the topic's type, or joint states are inconsistent.",
        "Build all nodes with the same version of vla_ros; a driver must send one position for each name, and no name "
        "twice.",
    ),
    Reason.SPACE: Remedy(
        "The policy commands the tool or a path of the base, and the robot has none or uses another frame for it.",
        "Add `tool` to the robot file, give the executor a URDF, and use the frame named in the message "
        "([end-effector targets](safety.md#end-effector-targets)).",
    ),
    Reason.NAMES: Remedy(
        "The chunk is about joints that the robot file does not have, or has one twice.",
        "Compare `vla-ros info POLICY_FILE` with `vla-ros info ROBOT_FILE`.",
    ),
    Reason.ROTATION: Remedy(
        "The numbers are not a valid rotation.",
        "Check `form` and the order of the columns in `tool` of the policy.",
    ),
    Reason.UNOBSERVED: Remedy(
        "The chunk contains differences or a path of the base, and the pose of the tool or of the base at the time of "
        "the observation is unknown.",
        "Joint states and odometry must arrive more often than `joint_state_timeout`, stamped with the time of their "
        "measurement.",
    ),
    Reason.SHAPE: Remedy(
        "Rows × joints is not the number of values.",
        "Correct the node that publishes the chunk; ActionChunk.msg describes the message.",
    ),
    Reason.HORIZON: Remedy("More rows than `max_horizon`.", "Raise `max_horizon`, or send shorter chunks."),
    Reason.STEP_DT: Remedy(
        "The time between rows is not a positive number, or is above `max_step_dt`.",
        "Set `step_dt` in the policy file, in s.",
    ),
    Reason.NON_FINITE: Remedy(
        "The chunk contains NaN or infinity: the statistics are damaged, or bfloat16 overflowed.",
        "`vla-ros info CHECKPOINT` shows the normalisation; try `--dtype float32`.",
    ),
    Reason.FUTURE: Remedy(
        "The stamp is in the future by more than `future_tolerance`: the clocks of two computers differ.",
        "Synchronise the clocks (chrony), or set `stamps: arrival` for the camera.",
    ),
    Reason.TOO_OLD: Remedy(
        "The observation is older than `max_chunk_age`, or all rows have passed: inference or transport takes too "
        "long.",
        "Use a GPU, fewer `--num-steps`, or smaller images over the network; `vla-ros top` shows the inference time, "
        "to be compared with rows × `step_dt`.",
    ),
    Reason.BEFORE_STOP: Remedy(
        "The observation is from before the end of the last stop.",
        "Nothing: the next chunk counts.",
    ),
    Reason.INSTRUCTION: Remedy(
        "The chunk is for another instruction: the policy has not received the newest one yet, or missed it.",
        "Wait a moment. If it lasts, give the instruction again; `task_node` does so by itself.",
    ),
    Reason.RIVAL_POLICY: Remedy(
        "Two policies publish chunks; the first one is followed.",
        "End one of them; `ros2 topic info -v /action_chunk` lists the publishers.",
    ),
    Reason.SEQUENCE: Remedy(
        "The chunk is a duplicate, or a newer one arrived first.",
        "Nothing, unless it happens to every chunk: see rival_policy.",
    ),
    Reason.POSITION: Remedy("A position is far outside its limits.", _UNITS + " `position_excess` is the tolerance."),
    Reason.VELOCITY: Remedy(
        "The chunk asks a base for a speed far above its limit.",
        "Compare the policy's unit with the robot file's: m/s and rad/s, not degrees/s (`unit: degrees`). "
        "`position_excess` is the tolerance.",
    ),
    Reason.OUTLIER: Remedy(
        "Two consecutive rows are further apart than the joint can travel.",
        _UNITS + " Or `step_dt` is too small.",
    ),
    Reason.JUMP: Remedy(
        "The chunk begins far from the measured position: the policy's units or signs differ, or inference takes very "
        "long.",
        _UNITS + " Check sign and offset of each joint with the robot at rest: `vla-ros run --dry-run`, `vla-ros "
        "top`.",
    ),
    Reason.INACTIVE: Remedy("The executor is not active.", "Activate it: `vla-ros lifecycle executor_node activate`."),
    Reason.STOPPED: Remedy(
        "A watchdog has stopped the robot; the message begins with its cause.",
        "See that cause above.",
    ),
    Reason.E_STOPPED: Remedy("The e-stop is latched.", "See e stopped above."),
    Reason.TAKEN_OVER: Remedy("Somebody has taken over.", "See taken over above."),
}
POLICY = {
    "waiting": Remedy(
        "A camera, the joint states or another stream is missing, old or of another type; the message names topic and "
        "publisher.",
        "Start the driver, or correct topic and `encoding` in the robot file. A slow camera needs a larger `max_age`. "
        "If images are old from time to time on a busy machine, the middleware's shared memory is too small for them: "
        "[images that do not arrive](runtime.md#images-that-do-not-arrive).",
        "nobody publishes",
    ),
    "failed": Remedy(
        "The last inference raised an error; the message and the log contain it.",
        "If it is out of memory: use a smaller policy, `--dtype bfloat16` or another GPU. If it is a server on another "
        "machine: check that it is running and can be reached. Inference is tried again with each observation.",
    ),
}
SAID = {
    "another program has a node of this name": Remedy(
        "A second `vla-ros run` or launch file is running on the same ROS domain.",
        "End the first one, or give each its own `--namespace` or ROS_DOMAIN_ID.",
    ),
    "nobody subscribes to": Remedy(
        "The executor publishes on a topic that no controller subscribes to: a typo, or a controller that is not "
        "active.",
        "Compare with `ros2 topic list` and correct `groups` of the robot file.",
    ),
    "did not listen within": Remedy(
        "The nodes are not running, use another ROS_DOMAIN_ID, or cannot be discovered.",
        "`ros2 node list`; the first line of each command says domain and discovery range, which must agree.",
    ),
    "not found within": Remedy(
        "The node is not running, has another namespace or ROS_DOMAIN_ID, or cannot be discovered.",
        "`ros2 node list`, or `vla-ros lifecycle` without a name; `vla-ros run` starts the nodes.",
    ),
    "no server within": Remedy(
        "task_node is not running, uses another ROS_DOMAIN_ID, or cannot be discovered.",
        "`vla-ros run` starts it; the first line of each command says domain and discovery range, which must agree.",
    ),
    "not followed by": Remedy(
        "A node does not follow the instruction: it is not active, waits for an input, or is stopped.",
        "`vla-ros top` says what it waits for.",
    ),
    "nobody publishes": Remedy(
        "The robot file names a topic that no node publishes: the driver does not run, or calls it something else.",
        "Start the driver; compare with `ros2 topic list` and correct the robot file.",
    ),
    "CUDA device(s) that torch can use": Remedy(
        "There is no such GPU, its driver is missing, or torch was installed without CUDA.",
        "`nvidia-smi` lists the GPUs; `--device cpu` needs none.",
    ),
    "e-stop is latched": Remedy(
        "An activation while the e-stop is latched.",
        "`vla-ros e-stop --reset`, then activate.",
    ),
    "config.json is missing": Remedy(
        "The folder is not a checkpoint; it may be the parent of one.",
        "`vla-ros info FOLDER` says what it is; give the folder that contains config.json.",
    ),
    "a pickle, expected a folder of safetensors": Remedy(
        "Loading a file of torch.save can run code, so such files are not loaded.",
        "`vla-ros convert FILE --output FOLDER`.",
    ),
    "cannot be imported by": Remedy(
        "ROS 2 is not sourced in this terminal.",
        "`. scripts/env.sh` of the source tree, or `. install/setup.bash`.",
    ),
    "decimals have a point": Remedy("A number in a YAML file has a comma.", "Write 0.5, not 0,5."),
    "give the instruction again": Remedy(
        "Policy and executor follow different instructions: a message reached only one of them.",
        "`vla-ros say TEXT`.",
    ),
}


PARTS = {  # not one mapping: states and causes are numbers, some of them the same
    "The robot does not move": (STATES, CAUSES),
    "The policy": (POLICY,),
    "Chunks that are refused": (REASONS,),
    "What commands and logs say": (SAID,),
    "Other errors": (KINDS,),
}


def title(key: Cause | State | Reason | str) -> str:
    """The heading of an entry, as commands show the thing itself."""
    if isinstance(key, Reason):
        return f"Refused: {key}"
    if isinstance(key, Cause | State):
        return key.name.replace("_", " ").capitalize()
    if key in KINDS:
        return key
    return f"Policy {key}" if key in POLICY else f"“{key}”"


def section(key: Cause | State | Reason | str) -> str:
    """The page's section about it, as GitHub names the heading."""
    words = "".join(letter for letter in title(key).lower() if letter.isalnum() or letter in "_- ")
    return f"{PAGE}#{words.replace(' ', '-')}"


def about(state: int, cause: int) -> str:
    """The section about a state and cause of the executor; "" if all is well."""
    found = [key for kind, value in ((STATES, state), (CAUSES, cause)) for key in kind if key == value]
    return section(found[0]) if found else ""


def with_section(error: Exception, text: str = "") -> str:
    """The message of an error, or `text` instead, with the page's section; unchanged if it already ends with one."""
    text = text or str(error)
    if f"{PAGE}#" in text:  # of another node's answer
        return text
    said = {CAUSES[cause].says: cause for cause in _AT_ACTIVATION} | {words: words for words in SAID}
    key = next((key for words, key in said.items() if words in text), None)
    return f"{text} ({section(kind_of(error) if key is None else key)})"


def page() -> str:
    """The entries, in Markdown."""
    lines = []
    for heading, kinds in PARTS.items():
        lines += [f"## {heading}", ""]
        for key, remedy in (entry for kind in kinds for entry in kind.items()):
            says = [f"Says “{remedy.says}”.", ""] if remedy.says else []
            lines += [f"### {title(key)}", "", *says, remedy.why, "", f"**What to do.** {remedy.do}", ""]
    return "\n".join(lines)
