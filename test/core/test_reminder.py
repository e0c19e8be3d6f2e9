"""When what is waited for is said again."""

from vla_ros.core.reminder import Reminder


def test_new_words_at_once_the_same_after_10_s_then_each_minute():
    reminder = Reminder()
    said = [now for now in range(200) if reminder.due(f"camera front: {now / 7:.3f} s old, limit 1 s", now)]
    assert said == [0, 10, 70, 130, 190]
    assert reminder.due("camera front: no message yet", 200) and not reminder.due("camera front: no message yet", 201)
