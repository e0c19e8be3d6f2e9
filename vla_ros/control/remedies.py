"""The catalogue of docs/troubleshooting.md: each message, its cause, and what to do.

`scripts/reference.py` writes the page; `vla-ros run`, `top` and `say` name the section of what they show, and errors
end with theirs (`error_kinds`).
"""

from vla_ros.control.admission import Reason
from vla_ros.control.error_kinds import KINDS, Remedy, kind_of
from vla_ros.control.supervisor import Cause, State

PAGE = "docs/troubleshooting.md"
STATES = {
    State.UNCONFIGURED: Remedy(
        "executor_node has not read its robot file yet, or has refused it; the status says why.",
        "`vla-ros lifecycle executor_node configure` says the reason; `vla-ros info ROBOT_FILE` checks the file "
        "alone.",
    ),
    State.INACTIVE: Remedy(
        "executor_node is configured and commands nothing; an activation that was refused says why.",
        "`vla-ros lifecycle executor_node activate`. It needs fresh joint states of every joint, no latched e-stop "
        "and nobody else on the command topics.",
    ),
    State.E_STOPPED: Remedy(
        "Somebody pressed the e-stop, or its heartbeat (`e_stop_heartbeat`) fell silent. It stays latched.",
        "Look at the robot, release the button, then `vla-ros e-stop --reset`. The next chunk moves the robot "
        "again.",
    ),
    State.TAKEN_OVER: Remedy(
        "A leader arm, or whatever publishes on `takeover_topic`, commands in place of the policy, whose chunks are "
        "refused as `taken_over`.",
        "`vla-ros takeover --end` gives back; the policy goes on with what it sees from then on.",
        "has taken over",
    ),
}
CAUSES = {
    Cause.NO_CHUNK: Remedy(
        "The policy has sent nothing that counts, or its newest chunk is used up.",
        "See what `policy_node` says (it may wait for an input) and whether chunks are refused. If an inference "
        "takes longer than a chunk lasts (rows × `step_dt`), the robot stops between chunks: a GPU, fewer "
        "`--num-steps`, `--dtype bfloat16`, or a policy with longer chunks. `max_chunk_age` bounds how old a chunk "
        "may become.",
        "no live chunk",
    ),
    Cause.NO_INSTRUCTION: Remedy("Nobody has said what to do.", "`vla-ros say TEXT`.", "no instruction"),
    Cause.TAKEOVER_PAUSED: Remedy(
        "A source has taken over and is not followed any more: the robot stopped meanwhile, the source fell silent or "
        "says what cannot be, or the instruction was taken back. Neither it nor the policy moves the robot.",
        "`vla-ros takeover` follows it again, from where the robot is; `vla-ros takeover --end` gives back to the "
        "policy.",
        "has taken over and is not followed",
    ),
    Cause.STALE_JOINT_STATES: Remedy(
        "A joint of the robot file has no position younger than `joint_state_timeout`: its driver has ended, is "
        "slower, calls the joint something else, or its computer has another time.",
        "`ros2 topic hz` and `ros2 topic echo` on the joint states' topic; compare names with the robot file "
        "(`joint_prefix`); synchronise clocks (chrony). A driver slower than 10 Hz needs a longer "
        "`joint_state_timeout`.",
        "s old, limit",
    ),
    Cause.FOLLOWING_ERROR: Remedy(
        "The robot is not where it was commanded: the controller is not active, refuses what it gets, is slower "
        "than the limits of the robot file, or something is in the way. Or it was moved by hand to where it may not"
        " start.",
        "Is the controller active (`ros2 control list_controllers`), does it listen to the topic of the robot file,"
        " what does its log say? [Controllers](controllers.md) has its settings. Lower `velocity` and "
        "`acceleration` of the robot file for an arm that lags; move an arm that is outside its limits back, then "
        "deactivate and activate.",
        "the controller does not follow",
    ),
    Cause.POLICY_GONE: Remedy(
        "`policy_node` has ended or hangs, or the network to it is cut.",
        "Look at its log for the last line, then start it again. `respawn:=true` of the launch file does that by "
        "itself.",
        "the policy's status does not come any more",
    ),
    Cause.OVERRUN: Remedy(
        "The control loop got no processor for longer than `overrun_limit`: the machine is overloaded or was "
        "suspended.",
        "Take load away, give the policy fewer `threads`, set `realtime_priority`; [figures](safety.md) say what it"
        " does.",
        "the control loop stalled for",
    ),
    Cause.CLOCK_JUMP: Remedy(
        "The computer's clock was set while the robot moved (NTP after the start, a virtual machine), or /clock "
        "leapt.",
        "Let the clock settle before the start; use chrony, which slews. It is over by itself 0.5 s later.",
        "ROS time went",
    ),
    Cause.REVERSALS: Remedy(
        "A joint goes to and fro more often than `reversal_limit` allows, and `on_reversals` is hold: the policy "
        "cannot make up its mind. Cameras that are swapped or stand still look like that.",
        "Check the images (`vla-ros rerun`) and the policy file's cameras. Another instruction ends the stop.",
        "its commanded motion turns round",
    ),
    Cause.RIVAL: Remedy(
        "Another node publishes on a command topic: a teleoperation, MoveIt, a second executor.",
        "End the one that is named, or give the robots a `--namespace` or a ROS_DOMAIN_ID each.",
        "also commanded by",
    ),
    Cause.UNCONFIRMED: Remedy(
        "The robot stood for more than 2 s because of what stands in brackets. Somebody may be near it.",
        "Look at the robot. When the policy does not wait any more, give the instruction again: `vla-ros say "
        "TEXT`, the same or another. `resume: automatic` of executor_node goes on without that.",
        "moves when the instruction is given again",
    ),
}
_AT_ACTIVATION = (Cause.STALE_JOINT_STATES, Cause.FOLLOWING_ERROR, Cause.RIVAL)  # it is refused for them as well
_UNITS = (
    "Wrong units are the usual reason: degrees in place of rad, or the gripper's range; see `scale` of the policy file."
)
REASONS = {
    Reason.SIZE: Remedy(
        "A message was larger than an honest one can be.",
        "Find who publishes it: `ros2 topic info -v`.",
    ),
    Reason.UNDECODABLE: Remedy(
        "The bytes are no message of the topic's type, or joint states contradict themselves.",
        "Build all nodes against the same vla_ros; a driver must send as many positions as names, and no name "
        "twice.",
    ),
    Reason.SPACE: Remedy(
        "The policy commands the tool, or a path of the base, and this robot cannot follow it, or in another frame.",
        "Add `tool` to the robot file, give the executor a URDF, and name the frame that the message says "
        "([end-effector targets](safety.md#end-effector-targets)).",
    ),
    Reason.NAMES: Remedy(
        "The chunk is about joints that the robot file does not have, or has one twice.",
        "Compare `vla-ros info POLICY_FILE` with `vla-ros info ROBOT_FILE`.",
    ),
    Reason.ROTATION: Remedy(
        "Numbers that are no rotation.",
        "Check `form` and the order of the columns in `tool` of the policy.",
    ),
    Reason.UNOBSERVED: Remedy(
        "The chunk holds differences, or a path of the base, and nothing says where the tool, or the base, was when it "
        "was observed.",
        "Joint states, and odometry, must come more often than `joint_state_timeout`, with the time of their "
        "measurement.",
    ),
    Reason.SHAPE: Remedy(
        "Rows × joints is not the number of values.",
        "Correct whoever publishes the chunk: ActionChunk.msg.",
    ),
    Reason.HORIZON: Remedy("More rows than `max_horizon`.", "Raise `max_horizon`, or send shorter chunks."),
    Reason.STEP_DT: Remedy(
        "The time between rows is none, or above `max_step_dt`.",
        "Set `step_dt` in the policy file, in s.",
    ),
    Reason.NON_FINITE: Remedy(
        "NaN or infinity: statistics that are damaged, or an overflow in bfloat16.",
        "`vla-ros info CHECKPOINT` shows the normalisation; try `--dtype float32`.",
    ),
    Reason.FUTURE: Remedy(
        "Stamped ahead by more than `future_tolerance`: two computers have different times.",
        "Synchronise them (chrony), or let the camera's stream say `stamps: arrival`.",
    ),
    Reason.TOO_OLD: Remedy(
        "Observed longer ago than `max_chunk_age`, or all of its rows are over: inference, or the way, takes too "
        "long.",
        "A GPU, fewer `--num-steps`, smaller images over the network; compare inference time and rows × `step_dt` "
        "in top.",
    ),
    Reason.BEFORE_STOP: Remedy("Observed before the last stop ended.", "Nothing: the next chunk counts."),
    Reason.INSTRUCTION: Remedy(
        "It follows another instruction than the current one: the policy has not heard the newest yet, or missed "
        "it.",
        "Nothing for a moment. If it lasts, give the instruction again; `task_node` does that by itself.",
    ),
    Reason.RIVAL_POLICY: Remedy(
        "Two policies publish chunks; the one that led first is followed.",
        "End one of them: `ros2 topic info -v /action_chunk`.",
    ),
    Reason.SEQUENCE: Remedy(
        "A duplicate, or overtaken by a newer one.",
        "Nothing, unless it is every chunk: see rival_policy.",
    ),
    Reason.POSITION: Remedy("Far outside the position limits.", _UNITS + " `position_excess` is how far is tolerated."),
    Reason.VELOCITY: Remedy(
        "It asks a base for a speed far above its limit.",
        "Compare the policy's unit with the robot file's: m/s and rad/s, not degrees/s (`unit: degrees`). "
        "`position_excess` is how far is tolerated.",
    ),
    Reason.OUTLIER: Remedy(
        "Neighbouring rows are further apart than the joint could travel.",
        _UNITS + " Or `step_dt` is too small.",
    ),
    Reason.JUMP: Remedy(
        "It begins far from where the robot is: the policy's idea of the joints differs, or inference takes very "
        "long.",
        _UNITS + " Check sign and offset of each joint with the robot at rest: `vla-ros run --dry-run`, `vla-ros "
        "top`.",
    ),
    Reason.INACTIVE: Remedy("The executor is not active.", "Activate it: `vla-ros lifecycle executor_node activate`."),
    Reason.STOPPED: Remedy(
        "A watchdog has stopped the robot; the words begin with its cause.",
        "See that cause above.",
    ),
    Reason.E_STOPPED: Remedy("The e-stop is latched.", "See e stopped above."),
    Reason.TAKEN_OVER: Remedy("Somebody has taken over.", "See taken over above."),
}
POLICY = {
    "waiting": Remedy(
        "A camera, joint states or another stream is missing, old, or of another type; the message names topic and "
        "publisher.",
        "Start the driver, or correct topic and `encoding` in the robot file. A slow camera needs a larger "
        "`max_age`. Pictures that are old now and then, on a busy machine, do not fit the middleware's shared memory: "
        "docs/runtime.md, “Pictures that do not arrive”.",
        "nobody publishes",
    ),
    "failed": Remedy(
        "The last inference raised an error, which the message and the log have.",
        "Out of memory: a smaller policy, `--dtype bfloat16`, another GPU. A server elsewhere: is it running, is "
        "the network there? It is tried again with each observation.",
    ),
}
SAID = {
    "another program has a node of this name": Remedy(
        "A second `vla-ros run` or launch file on the same ROS domain.",
        "End the first one, or give each a `--namespace` or a ROS_DOMAIN_ID.",
    ),
    "nobody subscribes to": Remedy(
        "The executor commands a topic that no controller listens to: a typo, or a controller that is not active.",
        "Compare with `ros2 topic list` and correct `groups` of the robot file.",
    ),
    "did not listen within": Remedy(
        "The nodes are not running, on another ROS_DOMAIN_ID, or cannot be discovered.",
        "`ros2 node list`; the first line of each command says domain and discovery range, which must agree.",
    ),
    "no server within": Remedy(
        "task_node does not run, is on another ROS_DOMAIN_ID, or cannot be discovered.",
        "`vla-ros run` starts it; the first line of each command says domain and discovery range, which must agree.",
    ),
    "not followed by": Remedy(
        "The node has the instruction and does not follow it: it is not active, waits for an input, or is stopped.",
        "`vla-ros top` says what it waits for.",
    ),
    "nobody publishes": Remedy(
        "The robot file names a topic that no node publishes: the driver does not run, or calls it something else.",
        "Start the driver; compare with `ros2 topic list` and correct the robot file.",
    ),
    "CUDA device(s) that torch can use": Remedy(
        "There is no such GPU, its driver is missing, or torch was installed without CUDA.",
        "`nvidia-smi` says what is there; `--device cpu` does without.",
    ),
    "e-stop is latched": Remedy(
        "An activation while the e-stop is latched.",
        "`vla-ros e-stop --reset`, then activate.",
    ),
    "config.json is missing": Remedy(
        "The folder is no checkpoint, or its parent.",
        "`vla-ros info FOLDER` says what it is; name the folder with config.json.",
    ),
    "a pickle, expected a folder of safetensors": Remedy(
        "A file of torch.save runs code when it is loaded, so it is not.",
        "`vla-ros convert FILE --output FOLDER`.",
    ),
    "cannot be imported by": Remedy(
        "ROS 2 is not sourced in this terminal.",
        "`. scripts/env.sh` of the source tree, or `. install/setup.bash`.",
    ),
    "decimals have a point": Remedy("A number of a YAML file has a comma.", "Write 0.5, not 0,5."),
    "give the instruction again": Remedy(
        "Policy and executor follow different instructions: a message reached one of them alone.",
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
    """Where the page speaks of it, as GitHub names the heading."""
    words = "".join(letter for letter in title(key).lower() if letter.isalnum() or letter in "_- ")
    return f"{PAGE}#{words.replace(' ', '-')}"


def about(state: int, cause: int) -> str:
    """The section about a state and cause of the executor; empty while all is well."""
    found = [key for kind, value in ((STATES, state), (CAUSES, cause)) for key in kind if key == value]
    return section(found[0]) if found else ""


def with_section(error: Exception, text: str = "") -> str:
    """What an error says, or `text` in its place, and where the page speaks of it; nothing is added where it says that
    already."""
    text = text or str(error)
    if f"{PAGE}#" in text:  # of a node that was asked
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
