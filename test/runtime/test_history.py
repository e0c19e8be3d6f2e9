import numpy as np
import pytest
from runtime.tiny_policy import TinyProcessor

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.messages.stamps import NS
from vla_ros.runtime.history import history_length, make_sample, observe


def build_from(first_ns):
    def build(stamp, names):
        assert set(names) == {"front", "joint_states"}
        if stamp < first_ns:
            raise InputError("nothing yet")
        return Observation(stamp, {"front": np.full((2, 2, 3), stamp // 10**8, np.uint8)}, np.array([stamp / NS, 0.0]))

    return build


def test_steps_lie_on_the_policys_clock():
    processor = TinyProcessor(n_obs_steps=3)
    assert history_length(processor) == pytest.approx(0.2)
    steps = observe(build_from(0), NS, processor)
    assert {k: step.stamp_ns for k, step in steps.items()} == {-2: 8 * 10**8, -1: 9 * 10**8, 0: NS}
    sample = make_sample(steps, processor, "go")
    assert sample.images["front"].shape == (3, 2, 2, 3)
    np.testing.assert_allclose(sample.state[:, 0], [0.8, 0.9, 1.0])
    assert [int(image[0, 0, 0]) for image in sample.images["front"]] == [8, 9, 10]


def test_just_after_the_start_the_oldest_is_repeated():
    processor = TinyProcessor(n_obs_steps=4)
    steps = observe(build_from(9 * 10**8), NS, processor)
    assert sorted(steps) == [-1, 0]
    sample = make_sample(steps, processor, "go")
    np.testing.assert_allclose(sample.state[:, 0], [0.9, 0.9, 0.9, 1.0])


def test_nothing_now_is_an_error():
    with pytest.raises(InputError, match="nothing yet"):
        observe(build_from(2 * NS), NS, TinyProcessor(n_obs_steps=2))


def test_a_single_step_is_not_copied():
    observation = build_from(0)(NS, ["front", "joint_states"])
    sample = make_sample([observation], TinyProcessor(), "go")
    assert np.shares_memory(sample.images["front"], observation.images["front"])


def test_each_stream_has_steps_of_its_own():
    class Sparse(TinyProcessor):
        streams = ("force", "command/arm")

        def steps(self, training=False):
            return {"front": (-5, 0), "joint_states": (-1, 0), "force": (0,), "command/arm": (-1,)}

    asked = {}

    def build(stamp, names):
        asked[stamp] = set(names)
        if stamp < 5 * 10**8:
            raise InputError("nothing yet")
        seconds, there = stamp / NS, {}
        there["images"] = {"front": np.full((2, 2, 3), stamp // 10**8, np.uint8)} if "front" in names else {}
        there["values"] = {name: np.array([seconds]) for name in ("force", "command/arm") if name in names}
        state = np.array([seconds, -seconds])
        return Observation(stamp, state=state, columns={"command/arm": (1,)}, **there)

    processor = Sparse()
    assert history_length(processor) == pytest.approx(0.5)
    sample = make_sample(observe(build, NS, processor), processor, "go")
    assert asked == {NS: {"front", "joint_states", "force", "command/arm"}, 9 * 10**8: {"joint_states", "command/arm"},
                     5 * 10**8: {"front"}}  # fmt: skip
    assert sample.images["front"][:, 0, 0, 0].tolist() == [5, 10]
    assert sample.state[:, 0].tolist() == [0.9, 1.0] and sample.stamp_ns == NS
    assert sample.values["force"].tolist() == [[1.0]] and sample.values["command/arm"].tolist() == [[0.9]]
    # at the start the command is the state, and an image that was not there yet is the newest
    early = make_sample(observe(build, 5 * 10**8, processor), processor, "go")
    assert early.images["front"][:, 0, 0, 0].tolist() == [5, 5]
    assert early.values["command/arm"].tolist() == [[-0.5]]
