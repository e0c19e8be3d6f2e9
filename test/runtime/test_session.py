import threading
from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from runtime.test_every_family import captured, positions
from runtime.tiny_policy import Speaker, loaded, robot, sample

from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Steer, tensors
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.network import RecordedNetwork, shapes_of
from vla_ros.runtime.serving import resolve_device, resolve_dtype
from vla_ros.runtime.session import PolicySession, SessionOptions

STEP = 100_000_000  # ns


def means(inferences):
    """What `Rememberer` answered: the mean state, less the newest one, halved; and the steps that passed."""
    return [one.answer[0, :3].tolist() for one in inferences]


def test_same_seed_same_actions():
    policy = families.fresh("pi0")
    first, second = (PolicySession(policy, SessionOptions(seed=3)) for _ in range(2))
    one = families.sample(policy.processor)
    a = [positions(first.infer([one])[0]) for _ in range(2)]
    b = [positions(second.infer([one])[0]) for _ in range(2)]
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a[0], a[1])
    first.seed()
    np.testing.assert_array_equal(positions(first.infer([one])[0]), a[0])


@pytest.mark.parametrize("family", families.FAMILIES)
def test_targets_are_those_of_the_processor_and_times_are_told(family):
    policy = families.fresh(family)
    one = families.sample(policy.processor)
    (result,) = PolicySession(policy).infer([one])
    (expected,) = policy.processor.outputs(result.answer[None], [one])
    np.testing.assert_array_equal(positions(result), expected.parts[0].data)
    assert positions(result).dtype == np.float64
    assert result.answer.dtype == (torch.int64 if family in families.TOKENS else torch.float32)
    assert 0 < result.encode_time < result.total_time and 0 < result.act_time < result.total_time


def test_warm_up_visits_every_length_of_prompt_and_leaves_no_trace():
    session = PolicySession(loaded())
    assert session.warm_up(example_sample(robot(), session.processor)) == 2
    assert means(session.infer([sample()])) == means(PolicySession(loaded()).infer([sample()]))
    policy = families.fresh("pi0")
    one = families.sample(policy.processor)
    warm, cold = PolicySession(policy), PolicySession(policy)
    warm.warm_up(one)
    np.testing.assert_array_equal(positions(warm.infer([one])[0]), positions(cold.infer([one])[0]))


def test_without_recordings_only_the_first_shape_is_run():
    session = PolicySession(loaded())
    run, seen = session._network.run, []
    session._network.run = lambda batch, *rest: (seen.append(shapes_of(batch)), run(batch, *rest))[1]
    assert session.warm_up(example_sample(robot(), session.processor), rounds=3) == 2
    assert len(seen) == 3 and len(set(seen)) == 1
    with pytest.raises(InputError, match="state"):
        session.meet([sample(state=(float("nan"), 0.0))])


def test_names_that_torch_mixes_up_are_refused():
    with pytest.raises(TypeError, match="Clock: the field 'c' begins 'count'"):
        @tensors
        class Clock:
            count: torch.Tensor
            c: torch.Tensor


def test_memory_is_of_each_row_from_its_beginning_on():
    session = PolicySession(loaded(), size=2)
    states = [(0.0, 0.0), (1.0, -1.0), (2.0, -2.0)]
    seen = [means(session.infer([sample(state=s, stamp_ns=k * STEP)] * 2)) for k, s in enumerate(states)]
    assert seen == [[pytest.approx([m, -m, e])] * 2 for m, e in ((0, 0), (0.5, 1), (1.0, 1))]
    session.begin([1])
    session.begin([1])
    late = means(session.infer([sample(state=(3.0, -3.0), stamp_ns=5 * STEP)] * 2))
    assert late == [pytest.approx([1.5, -1.5, 3]), pytest.approx([3.0, -3.0, 0])]
    session.meet([sample(state=(9.0, 9.0), stamp_ns=6 * STEP)] * 2)
    after = means(session.infer([sample(state=(3.0, -3.0), stamp_ns=6 * STEP)] * 2))
    assert after == [pytest.approx([1.8, -1.8, 1]), pytest.approx([3.0, -3.0, 1])]


@pytest.mark.parametrize("bad", [100.0, float("nan"), float("inf")])
def test_what_is_not_finite_is_not_remembered(bad):
    """Whether it stands in the frame, in the answer or only in what would be remembered."""
    session = PolicySession(loaded())
    session.infer([sample(state=(1.0, 1.0))])
    with pytest.raises(InputError, match="expected a finite number|not be finite; the observation is left out"):
        session.infer([sample(state=(bad, 0.0), stamp_ns=STEP)])
    assert means(session.infer([sample(state=(2.0, 2.0), stamp_ns=2 * STEP)])) == [pytest.approx([1.5, 1.5, 2])]


def test_a_beginning_during_an_inference_forgets_it(monkeypatch):
    session = PolicySession(loaded())
    act = session.policy.act

    def interrupted(*args):
        thread = threading.Thread(target=session.begin)
        thread.start()
        thread.join()
        return act(*args)

    monkeypatch.setattr(session.policy, "act", interrupted)
    assert session.infer([sample(state=(1.0, 1.0))])[0].stale
    monkeypatch.undo()
    (after,) = session.infer([sample(state=(5.0, 5.0), stamp_ns=STEP)])
    assert not after.stale and means([after]) == [pytest.approx([5.0, 5.0, 0])]


def test_recordings_read_the_memory_of_now():
    plain, recorded = PolicySession(loaded()), PolicySession(loaded())
    device = torch.device("cpu")
    recorded._network = RecordedNetwork(recorded.policy, recorded._held, device, 4, captured)
    recorded._mode = torch.no_grad
    for k, words in enumerate((3, 12, 3, 12, 3)):
        one = sample(state=(k, 2.0), instruction="go " * words, stamp_ns=k * STEP)
        assert means(plain.infer([one])) == means(recorded.infer([one]))


def test_tokens_are_answers_too():
    policy = loaded(Speaker)
    policy.policy.store_as(torch.bfloat16)
    session = PolicySession(policy)
    for words, length in ((3, 8), (12, 20)):
        (result,) = session.infer([sample(instruction="go " * words)])
        assert result.answer.dtype == torch.int64
        assert result.answer.tolist() == list(range(257_023, 257_023 + length))
        np.testing.assert_allclose(positions(result), [[0.1, 0.2]] * 8)


def test_a_session_takes_one_sample_for_each_row_and_no_steer_that_was_not_asked_for():
    session = PolicySession(loaded(), size=2)
    with pytest.raises(ValueError, match="1 samples for a session of 2"):
        session.infer([sample()])
    with pytest.raises(ValueError, match="`guided`"):
        session.infer([sample()] * 2, steer=Steer(torch.zeros(2, 8, 4), torch.ones(2), torch.ones(2)))


def test_devices_and_types_by_name():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    for bad in ("gpu", "cuda:99", "tpu"):
        with pytest.raises(InputError, match="device"):
            resolve_device(bad)
    with pytest.raises(InputError, match="dtype 'int8'"):
        resolve_dtype("int8", torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_recorded_graphs_give_what_the_plain_way_gives(family, dtype, guided):
    if guided and family not in families.GUIDED:
        pytest.skip("it is never guided")
    policy = families.fresh(family)
    policy.policy.store_as(dtype).cuda()
    options = {"guided": guided, "seed": 1}
    plain = PolicySession(policy, SessionOptions(graph=False, **options))
    recorded = PolicySession(policy, SessionOptions(max_graphs=1, **options))
    for k, instruction in enumerate(("touch", "pick up the green cube", "touch")):
        for seed in range(2):
            one = families.sample(policy.processor, seed, instruction, stamp_ns=(2 * k + seed) * STEP)
            (x,), (y,) = (session.infer([one]) for session in (plain, recorded))
            torch.testing.assert_close(x.answer, y.answer, rtol=0, atol=0)
            assert y.encode_time > 0 and y.act_time > 0
            for session in (plain, recorded):
                session.delivered(0.15)
    assert len(recorded._network) == 1


@pytest.mark.gpu
def test_recorded_graphs_read_the_memory_of_now():
    policy = loaded()
    policy.policy.cuda()
    plain, recorded = (PolicySession(policy, SessionOptions(graph=graph)) for graph in (False, True))
    for k, words in enumerate((3, 12, 3, 12, 3)):
        one = sample(state=(k, 2.0), instruction="go " * words, stamp_ns=k * STEP)
        assert means(plain.infer([one])) == means(recorded.infer([one]))


@pytest.mark.parametrize("family", ["pi0", "act"])
def test_the_state_is_rolled_forward_by_the_running_chunk(family):
    policy = families.fresh(family)
    session, plain = (PolicySession(policy, SessionOptions(roll_state=roll)) for roll in (True, False))
    first, second = (families.sample(policy.processor, seed, stamp_ns=2 * seed * STEP) for seed in (0, 1))
    (one,) = session.infer([first])
    plain.infer([first])
    assert one.lead == 0
    session.delivered(0.15)
    (two,) = session.infer([second])
    assert two.lead == 0.15
    (part,) = one.targets.parts
    moved = part.data[3:5].mean(axis=0) - part.data[2]
    assert np.abs(moved).max() > 1e-3
    (expected,) = plain.infer([replace(second, state=second.state + moved)])
    assert torch.equal(two.answer, expected.answer)
    np.testing.assert_array_equal(two.targets.parts[0].data, expected.targets.parts[0].data)
    session.delivered(0.2)  # the second chunk begins 0.15 s after its observation
    (third,) = session.infer([replace(first, stamp_ns=second.stamp_ns + round(0.1 * 1e9))])
    assert third.lead == 0
    session.begin()
    assert session.infer([second])[0].lead == 0


@pytest.mark.parametrize("family, options, words", [
    ("pi0", {"guided": True}, "and rtc: true, which continues the running chunk in another way; expected one of"),
    ("robovlms", {}, "and the policy remembers what it saw, step by step; expected false"),
    ("diffusion", {}, "and the policy reads earlier states too; expected false"),
])  # fmt: skip
def test_where_no_chunk_says_the_state_it_is_not_rolled(family, options, words):
    with pytest.raises(InputError, match=f"roll_state: true, {words}"):
        PolicySession(families.fresh(family), SessionOptions(roll_state=True, **options))
