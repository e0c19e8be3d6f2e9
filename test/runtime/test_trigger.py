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
