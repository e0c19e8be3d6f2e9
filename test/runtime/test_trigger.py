import pytest

from vla_ros.runtime.trigger import NS, Trigger

MS = NS // 1000


def used(trigger, **stamps):
    trigger.began(stamps)


def test_waits_for_every_stream():
    trigger = Trigger(["front", "wrist"], ["joints"])
    for stream in ("front", "wrist"):
        trigger.add(stream, 100 * MS)
        assert trigger.target(110 * MS) is None
    trigger.add("joints", 99 * MS)
    assert trigger.target(110 * MS) is None  # older than the newest image
    trigger.add("joints", 109 * MS)
    assert trigger.target(110 * MS) == 110 * MS


def test_one_inference_on_each_stamp_in_lockstep_in_any_order_of_arrival():
    trigger = Trigger(["front", "wrist"], ["joints"])
    count = 0
    for k in range(1, 6):
        stamp = k * 100 * MS
        orders = (("joints", "front", "wrist"), ("wrist", "joints", "front"), ("front", "wrist", "joints"))
        for stream in orders[k % 3]:
            trigger.add(stream, stamp)
            target = trigger.target(stamp - 10 * MS)  # /clock may come last
            if target is not None:
                assert target == stamp
                trigger.began({"front": stamp, "wrist": stamp, "joints": stamp})
                count += 1
        assert trigger.target(stamp) is None
    assert count == 5


def test_a_slow_camera_sets_the_pace():
    trigger = Trigger(["front", "wrist"], ["joints"])
    for stream in ("front", "wrist", "joints"):
        trigger.add(stream, 100 * MS)
    trigger.began({"front": 100 * MS, "wrist": 100 * MS, "joints": 100 * MS})
    trigger.add("front", 133 * MS)
    trigger.add("joints", 140 * MS)
    assert trigger.target(140 * MS) is None
    trigger.add("wrist", 139 * MS)
    assert trigger.target(141 * MS) == 141 * MS


def test_rate_limit():
    trigger = Trigger(["front"], ["joints"], max_rate=10.0)
    seen = []
    for k in range(31):
        stamp = k * NS // 30
        trigger.add("front", stamp)
        trigger.add("joints", stamp)
        if trigger.target(stamp) is not None:
            trigger.began({"front": stamp, "joints": stamp})
            seen.append(k)
    assert seen == list(range(0, 31, 3))


def test_without_cameras_joint_states_set_the_pace():
    trigger = Trigger([], ["joints"])
    trigger.add("joints", 5 * MS)
    assert trigger.target(6 * MS) == 6 * MS
    trigger.began({"joints": 5 * MS})
    assert trigger.target(7 * MS) is None


def test_stamps_ahead_of_the_clock_and_lagging_joints_are_named():
    trigger = Trigger(["front"], ["joints"], max_ahead=0.5)
    trigger.add("front", 3600 * NS)
    trigger.add("joints", 3600 * NS)
    assert trigger.target(NS) is None
    assert "3599.000 s ahead" in trigger.problems(NS)["front"]
    trigger.clear()
    trigger.add("front", 10 * NS)
    trigger.add("joints", 9 * NS)
    assert trigger.target(10 * NS) is None
    assert trigger.problems(10 * NS) == {"joints": "1.000 s older than the newest image"}
    trigger.add("joints", 10 * NS)
    assert trigger.problems(10 * NS) == {}



def asked(rate, seconds=2.0, without=(), jitter=(0,)):
    """ms of the instants that a policy with steps of 0.1 s is shown, beside joints at 100 Hz."""
    trigger = Trigger(["front"], ["joints"], pace=0.1)
    events = [(k * 10 * MS, "joints") for k in range(round(seconds * 100))]
    for k in range(round(seconds * rate)):
        stamp = k * NS // rate + jitter[k % len(jitter)] * MS
        if stamp // MS not in without:
            events.append((stamp, "front"))
    found = []
    for stamp, stream in sorted(events):
        trigger.add(stream, stamp)
        target = trigger.target(stamp)
        if target is not None:
            trigger.began(trigger.newest())
            trigger.began({"front": trigger.newest()["front"], "joints": target})  # the node says it twice
            found.append(target // MS)
    return found


@pytest.mark.parametrize("rate", [10, 20, 25, 30, 50])
@pytest.mark.parametrize("jitter", [(0,), (0, 4, 2, 7)])
def test_a_paced_policy_is_shown_one_instant_every_step(rate, jitter):
    found = asked(rate, jitter=jitter)
    assert [round(stamp / 100) for stamp in found] == list(range(len(found))) and len(found) >= 19
    assert all(90 <= b - a <= 110 for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("options", [{"rate": 5}, {"rate": 10, "without": range(500, 1000)}])
def test_images_that_are_late_change_nothing_of_the_pace(options):
    found = asked(**options)
    assert [round(stamp / 100) for stamp in found] == list(range(len(found))) and len(found) >= 18


def test_after_a_stall_a_paced_policy_does_not_catch_up():
    trigger = Trigger(["front"], ["joints"], pace=0.1)
    for stamp in (0, 1000 * MS):
        for stream in ("front", "joints"):
            trigger.add(stream, stamp)
        assert trigger.target(stamp) == stamp
        trigger.began(trigger.newest())
        assert trigger.target(stamp) is None


def test_what_nothing_could_be_paired_with_is_used_up():
    trigger = Trigger(["front", "depth"], ["joints"])
    for stamp in (100 * MS, 140 * MS):
        for stream in ("front", "depth", "joints"):
            trigger.add(stream, stamp)
        assert trigger.target(stamp) == stamp
        trigger.began(trigger.newest())
    used(trigger, front=100 * MS, depth=100 * MS, joints=140 * MS)  # the newest pair that there was
    assert trigger.target(141 * MS) is None
    trigger.add("front", 170 * MS)
    assert trigger.target(171 * MS) is None  # its depth is on the way
