"""What a peer on the graph sees of the executor: commands that follow chunks, and nothing else."""

import signal
import time
from array import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from std_msgs.msg import Bool, Header
from std_srvs.srv import SetBool, Trigger
from system.stage import HOME, PERIOD_NS, START_NS, Stage

from vla_ros.graph.processes import GraphError
from vla_ros.msg import ActionPart, ExecutorStatus
from vla_ros.nodes.qos import STATUS_QOS, profile, sensor_qos


def ramp(start: np.ndarray, velocity: tuple[float, ...], rows: int, step_dt: float) -> np.ndarray:
    """(H, J) rows that begin at `start` and move steadily."""
    return start + np.arange(rows)[:, None] * step_dt * np.array(velocity)


def test_commands_follow_the_chunk_and_hold_after_it(graph, probe):
    stage = Stage(graph, probe)
    stage.activate()
    stage.say("go")
    stage.tick(3)
    assert np.array_equal(stage.positions, np.tile(HOME, (4, 1)))  # it holds where it was measured
    rows = ramp(HOME, (0.2, 0.05, 0.0), 6, 0.1)
    rows[3:, 2] = 0.6  # discrete: steps, to be reached within its limits
    status = stage.send(stage.chunk(rows))
    assert status.accepted_chunks == 1
    begin = stage.now_ns
    stage.tick(25)
    for stamp, position in stage.commands[4:]:
        age = (stamp - begin) * 1e-9
        assert position[:2] == pytest.approx(HOME[:2] + age * np.array([0.2, 0.05]), abs=1e-12)
    stage.wait_status(lambda s: s.state == ExecutorStatus.EXECUTING, "EXECUTING")
    stage.tick(10)  # the chunk is over: brakes and holds
    assert stage.positions[-1][2] == 0.6
    assert np.array_equal(stage.positions[-1], stage.positions[-5])
    status = stage.wait_status(lambda s: s.state == ExecutorStatus.HOLDING, "HOLDING")
    assert status.cause == ExecutorStatus.CAUSE_NO_CHUNK
    stage.check_limits()
    assert START_NS + (len(stage.commands) - 1) * PERIOD_NS == stage.commands[-1][0]


def test_late_chunks_are_cut_and_overlapping_ones_blend_by_acts_rule(graph, probe):
    stage = Stage(graph, probe, ensemble_m=0.5)
    stage.activate()
    stage.say("go")
    first = ramp(HOME, (0.15, 0.0, 0.0), 20, 0.1) - [0.15 * 0.4, 0, 0]
    stage.send(stage.chunk(first, age=0.4))  # its first four rows are over: it is at HOME now
    observed = stage.now_ns - 400_000_000
    stage.tick(10)
    for stamp, position in stage.commands[1:]:
        assert position[0] == pytest.approx(first[0, 0] + 0.15 * (stamp - observed) * 1e-9, abs=1e-12)
    second = ramp(stage.positions[-1], (0.15, 0.02, 0.0), 5, 0.1) + [0.0001, 0, 0]
    begin = stage.now_ns
    status = stage.send(stage.chunk(second))
    assert status.chunk_latency == pytest.approx(0.0, abs=1e-9)
    before = len(stage.commands)
    stage.tick(18)  # both live, to the end of the second
    weights = np.exp([0.0, -0.5]) / np.exp([0.0, -0.5]).sum()  # the older one first
    for stamp, position in stage.commands[before:]:
        old = first[0] + np.array([0.15, 0, 0]) * (stamp - observed) * 1e-9
        new = second[0] + np.array([0.15, 0.02, 0]) * (stamp - begin) * 1e-9
        assert position[:2] == pytest.approx((weights @ [old, new])[:2], abs=1e-12)
    assert stage.wait_status(lambda s: s.ticks == 29, "all ticks").live_chunks == 2
    stage.check_limits()


def test_a_joint_in_no_part_keeps_its_last_command_and_a_row_holds_for_a_step(graph, probe):
    stage = Stage(graph, probe)
    stage.activate()
    stage.say("go")
    stage.send(stage.chunk(HOME[None] + [0.0, 0.05, 0.3], step_dt=0.3))  # one row: it holds until 0.3 s are over
    stage.tick(20)
    held = stage.positions[-1]
    assert held == pytest.approx(HOME + [0.0, 0.05, 0.3])
    stage.wait_status(lambda s: s.state == ExecutorStatus.HOLDING and s.ticks == 21, "HOLDING after the only row")
    begin = len(stage.commands)
    for k in range(20):
        stage.stuck, stage.measured = True, stage.positions[-1] - [0.0, 0.01, 0.1]  # what it does not move gives way
        stage.publish_joints()
        parts = [ActionPart(names=["turn"], data=array("d", [0.02 * k] * 3))]
        status = stage.send(stage.chunk(HOME[None], horizon=3, parts=parts))
        assert (status.accepted_chunks, status.refused_chunks) == (k + 2, 0), status.last_refusal
        stage.tick(3)
    assert (stage.positions[begin:, 1:] == held[1:]).all()
    assert stage.positions[-1, 0] == pytest.approx(0.38, abs=0.1)
    parts = [ActionPart(names=[name], data=array("d", [at] * 9)) for name, at in (("lift", 0.2), ("turn", 0.3))]
    stage.send(stage.chunk(HOME[None], horizon=9, parts=parts))
    stage.tick(30)
    assert stage.positions[-1] == pytest.approx([0.3, 0.2, held[2]])
    stage.check_limits()


BAD = {
    "non_finite": {"data": [float("nan")] * 9},
    "names": {"names": ["turn", "lift", "claw"]},
    "shape": {"horizon": 2**32 - 1},
    "step_dt": {"step_dt": -1.0},
    "space": {"space": 2},
    "instruction": {"instruction_id": 1},
    "position": {"data": [9.0, 0.2, 0.5] * 3},
    "rival_policy": {"session": 8},
}


def test_bad_chunks_are_refused_with_their_reason_and_nothing_moves(graph, probe):
    stage = Stage(graph, probe)
    still = np.tile(HOME, (3, 1))
    assert stage.send(stage.chunk(still)).last_refusal.startswith("inactive: ")
    stage.activate()
    assert stage.send(stage.chunk(still)).last_refusal.startswith("instruction: ")
    stage.say("go")
    assert stage.send(stage.chunk(still)).accepted_chunks == 1
    again = stage.send(stage.chunk(still, sequence=stage.sequence))
    assert again.last_refusal == "sequence: sequence 3 after 3, observed 0.000 s before", again.last_refusal
    for reason, change in BAD.items():
        status = stage.send(stage.chunk(still + [0.3, 0.1, 0.1], **change))
        assert status.last_refusal.startswith(f"{reason}: "), status.last_refusal
        assert status.chunk_session == (8 if reason == "rival_policy" else 7)
        stage.tick(2)
    ahead = stage.send(stage.chunk(still, age=-3600.0))
    assert ahead.last_refusal == "future: stamped 3600.000 s ahead, limit 0.1 s"
    late = stage.send(stage.chunk(still, age=0.3))
    assert late.last_refusal == "too_old: stamped 0.300 s ago, its rows were over 0.300 s after that"
    end = Header(stamp=Time(sec=2**31 - 1, nanosec=2**32 - 1))  # more than a Time can say properly
    status = stage.send(stage.chunk(still, header=end))
    assert status.last_refusal.startswith("future: ") and status.chunk_stamp == Time(sec=2**31 - 1, nanosec=10**9 - 1)
    for change in ({"parts": []}, {"parts": stage.chunk(still).parts * 2}):
        assert stage.send(stage.chunk(still, **change)).last_refusal.startswith("names: ")
    huge = stage.send(stage.chunk(np.tile(HOME, (1001, 1))))
    assert huge.last_refusal == "horizon: 1001 rows, limit 1000"
    large = stage.send(bytes(200_000))
    assert large.last_refusal == "size: a chunk of 200000 bytes, limit 28300"
    many = stage.send(stage.chunk(still, parts=[ActionPart()] * 101))
    assert many.last_refusal == "size: a chunk of 101 parts, limit 100"
    far = stage.send(stage.chunk(still + [1.2, 0, 0]))
    assert far.last_refusal == "jump: joint turn: begins at 1.2 rad, measured 0, limit 0.8 away"
    assert far.refused_chunks == sum(far.refusal_counts) == len(BAD) + 12
    assert np.abs(stage.positions - HOME).max() < 1e-12

    # Neither a huge sequence number nor a count that begins anew locks the policy out: the later observation counts.
    for number in (2**64 - 1, 0, 1):
        stage.tick()
        accepted = stage.status.accepted_chunks
        assert stage.send(stage.chunk(still, sequence=number)).accepted_chunks == accepted + 1

    # Bytes flipped, cut off and appended: every message is answered, the node lives, the commands stay bounded.
    rng = np.random.default_rng(20)
    for _ in range(125):
        expected = stage.answered() + 8  # fewer than the queues hold: nothing is lost
        for _ in range(8):
            data = bytearray(serialize_message(stage.chunk(still + rng.normal(size=3) * [0.1, 0.02, 0.1])))
            for at in rng.integers(4, len(data), size=rng.integers(1, 12)):
                data[at] = rng.integers(256)
            if rng.random() < 0.2:
                del data[rng.integers(4, len(data)) :]
            stage.chunks.publish(bytes(data))
        stage.wait_status(lambda s, n=expected: stage.answered(s) >= n, "the answers to eight mutilated chunks")
        stage.tick()
    assert {"names", "shape"} <= set(stage.status.refusal_reasons)
    stage.session += 1
    stage.tick(60)  # the lease of whatever session was accepted is over
    assert stage.send(stage.chunk(np.tile(stage.measured, (9, 1)))).accepted_chunks > 1
    stage.check_limits()


def test_the_e_stop_is_latched_whatever_happens_to_the_others(graph, probe):
    button = graph.node.create_publisher(Bool, "e_stop", STATUS_QOS)
    button.publish(Bool(data=True))  # latched, before there is an executor
    stage = Stage(graph, probe)
    reset = graph.node.create_client(Trigger, "executor_node/reset_e_stop")
    stop = graph.node.create_client(SetBool, "executor_node/e_stop")
    state = ExecutorStatus.E_STOPPED

    stage.wait_status(lambda s: s.state == state, "E_STOPPED of before the start")
    stage.introduce()
    with pytest.raises(GraphError, match="e-stop is latched"):
        graph.activate("executor_node")
    stage.e_stop.publish(Bool(data=False))  # a topic does not unlatch
    assert not call(probe, stop, SetBool.Request(data=False)).success  # neither does the other service
    assert stage.status.state == state
    graph.cleanup("executor_node")
    stage.wait_status(lambda s: s.state == state and not s.names, "E_STOPPED after the cleanup")
    assert call(probe, reset, Trigger.Request()).success
    stage.wait_status(lambda s: s.state == ExecutorStatus.UNCONFIGURED, "UNCONFIGURED")
    button = probe.publisher("e_stop", Bool, sensor_qos())  # best effort: repeats itself, the first ones may get lost

    def pressed() -> bool:
        button.publish(Bool(data=True))
        return stage.status.state == state

    probe.wait_for(pressed, "E_STOPPED while unconfigured")
    stage.now_ns += PERIOD_NS
    graph.configure("executor_node")
    stage.introduce()
    stage.wait_status(lambda s: s.state == state and s.names, "E_STOPPED after a new configuration")
    assert call(probe, reset, Trigger.Request()).success
    stage.wait_status(lambda s: s.state == ExecutorStatus.INACTIVE, "INACTIVE")
    assert call(probe, stop, SetBool.Request(data=True)).success
    stage.wait_status(lambda s: s.state == state, "E_STOPPED by the service while inactive")
    assert call(probe, reset, Trigger.Request()).success

    stage.activate()
    stage.say("go")
    stage.send(stage.chunk(ramp(HOME, (0.5, 0.0, 0.0), 20, 0.1)))
    stage.tick(20)
    button = probe.publisher("e_stop", Bool, profile(1000, reliable=True), readers=2)
    process = graph.processes["executor_node"].popen
    process.send_signal(signal.SIGSTOP)  # pressed for a moment while the whole process stands still
    for pressed in (False, True, *[False] * 300):
        button.publish(Bool(data=pressed))
    process.send_signal(signal.SIGCONT)
    stage.wait_status(lambda s: s.state == state, "E_STOPPED in motion")
    stage.tick(10)
    assert np.array_equal(stage.positions[-1], stage.positions[-2])  # braked, holds
    stage.session, stage.sequence = 99, 0  # the policy was restarted
    stage.say("")
    stage.say("go")
    status = stage.send(stage.chunk(ramp(stage.measured, (0.5, 0.0, 0.0), 20, 0.1)))
    assert status.state == state and status.last_refusal.startswith("e_stopped: ")
    at = stage.positions[-1]
    stage.tick(5)
    assert np.array_equal(stage.positions[-1], at)
    assert call(probe, reset, Trigger.Request()).success
    stage.tick(3)
    assert np.array_equal(stage.positions[-1], at)  # a reset alone moves nothing
    stage.tick(50)
    stage.send(stage.chunk(ramp(stage.measured, (0.5, 0.0, 0.0), 5, 0.1)))
    stage.tick(5)
    assert stage.positions[-1][0] > at[0]
    stage.check_limits()


def test_a_dry_run_does_everything_but_publish(graph, probe):
    """On a clock that is offered with best effort only, as some simulators do: what gets lost is sent again."""
    stage = Stage(graph, probe, dry_run=True, clock_qos=sensor_qos())

    stage.introduce()
    graph.activate("executor_node")
    stage.say("go")
    assert stage.send(stage.chunk(ramp(HOME, (0.2, 0.0, 0.0), 10, 0.1))).accepted_chunks == 1
    for ticks in range(2, 10):
        stage.now_ns += PERIOD_NS
        stage.introduce()
        assert stage.status.ticks == ticks
    assert stage.status.dry_run and stage.status.position[0] > 0.01
    assert graph.node.count_publishers("arm/command") == 0
    assert not probe.messages("arm/command") and not probe.messages("hand/command")


def call(probe, client, request):
    """The response of a service. Asked again after a while: a reply can get lost during discovery."""
    probe.wait_for(client.service_is_ready, f"the service {client.srv_name}")
    futures = []

    def answered():
        if not futures or time.monotonic() - answered.since > 5.0:
            answered.since = time.monotonic()
            futures.append(client.call_async(request))
        return next((future.result() for future in futures if future.done()), None)

    return probe.wait_for(answered, f"a reply of {client.srv_name}")
