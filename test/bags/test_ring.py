"""What a recorder keeps of the last seconds."""

from vla_ros.bags.recording import Item
from vla_ros.bags.ring import Ring
from vla_ros.messages.stamps import NS


def item(topic: str, seconds: float, size: int = 10, start: float = 100.0) -> Item:
    return Item(topic, round((start + seconds) * NS), bytes(size), 7)


def test_the_window_and_what_held_before_it():
    ring = Ring(2.0, 10_000)
    ring.put(item("instruction", 0.0), True)
    ring.put(item("status", 0.1), True)
    ring.put(item("status", 0.2, 11), True)
    for k in range(50):
        ring.put(item("image", k / 10, 100), False)
    kept = ring.take()
    assert [(one.topic, len(one.data)) for one in kept[:2]] == [("instruction", 10), ("status", 11)]
    assert len(kept) == 2 + 21 and kept[2].log_ns == kept[0].log_ns == round(102.9 * NS) and kept[0].publish_ns == 7
    assert not ring.full
    ring.put(item("image", 9.0), False)
    assert [(one.topic, one.log_ns) for one in ring.take()] == [
        (topic, round(109 * NS)) for topic in ("instruction", "status", "image")
    ]


def test_the_bound_on_memory():
    ring = Ring(2.0, 1_000)
    for k in range(30):
        ring.put(item("image", k / 10, 90), False)
    assert ring.full == 1.1  # the eleventh before the newest had to go
    ring.put(item("cloud", 3.0, 5_000), False)
    assert not ring.take()
    ring.put(item("image", 3.1, 90), False)
    assert len(ring.take()) == 1
