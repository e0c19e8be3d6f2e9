"""What the runtime promises of a policy, and asks of it, for every family there is."""

import threading
from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import families
import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Steer
from vla_ros.runtime.network import Held, PlainNetwork, RecordedNetwork, copy_into, described
from vla_ros.runtime.session import PolicySession, SessionOptions
from vla_ros.runtime.stages import StageTimer

EVERY = pytest.mark.parametrize("family", (*families.FAMILIES, *families.FOREIGN))
UNRECORDED = ("tokens", "pi0_fast")  # how long they decode depends on what they decode
GUIDED = pytest.mark.parametrize("family", families.GUIDED)


def inputs(loaded, rows=2):
    """A batch and draws for some rows that differ."""
    texts = families.INSTRUCTIONS if loaded.policy.traits.pads else families.INSTRUCTIONS[:1] * 2
    batch = loaded.policy.with_elapsed(
        loaded.processor.inputs([families.sample(loaded.processor, seed, texts[seed % 2]) for seed in range(rows)])
    )
    generator = torch.Generator().manual_seed(1)
    shapes = loaded.policy.draws(rows)
    return batch, {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def remembered(policy, batch, draws):
    """What it remembers after the batch; None: nothing."""
    size = len(next(iter(batch.values())))
    return policy.act(policy.encode(batch, policy.begin(size), draws), draws).memory


def short(family):
    """With two denoising steps: what is traced contains each of them."""
    steps = {"num_steps", "num_inference_steps"} & families.config(family).keys()
    return families.fresh(family, **dict.fromkeys(steps, 2))


leaves = pytree.tree_leaves


def copied(tree):
    return pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, tree)


def equal(one, other):
    """Bit by bit."""
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def steer(policy, rows, frozen, overlap, **options):
    actions = torch.rand(rows, policy.config.horizon, policy.config.action_dim) - 0.5
    counts = (torch.full((rows,), count) for count in (frozen, overlap))
    return Steer(actions, *counts, **options)


def positions(inference):
    return inference.targets.parts[0].data


@EVERY
@torch.no_grad()
def test_the_same_call_gives_the_same_answer_and_changes_no_argument(family):
    loaded = families.fresh(family)
    policy, (batch, draws) = loaded.policy, inputs(loaded)
    memory = remembered(policy, batch, draws)
    before, state = copied((batch, draws, memory)), copied(policy.state_dict())
    context = policy.encode(batch, memory, draws)
    assert equal(policy.encode(batch, memory, draws), context)
    known, fixed = copied(context), policy.prepare()
    first = policy.act(context, draws, fixed)
    assert equal(policy.act(context, draws, fixed), first) and equal(policy.act(context, draws), first)
    assert equal(context, known) and equal((batch, draws, memory), before) and equal(policy.state_dict(), state)
    assert first.actions.shape == (2, policy.config.horizon, policy.config.action_dim) or family in families.TOKENS
    assert equal(type(memory), type(policy.begin(2))) and described(first.memory) == described(policy.begin(2))


@EVERY
def test_a_row_of_a_batch_is_what_it_is_alone(family):
    loaded = families.fresh(family)
    samples = [families.sample(loaded.processor, seed) for seed in range(2)]
    together = PolicySession(loaded, SessionOptions(seed=4), size=2)
    alone = PolicySession(loaded, SessionOptions(seed=5))
    for _ in range(2):
        np.testing.assert_allclose(
            positions(together.infer(samples)[1]), positions(alone.infer(samples[1:])[0]), rtol=1e-4, atol=1e-4
        )


@EVERY
def test_a_frame_that_is_not_finite_is_refused_and_leaves_no_trace(family):
    loaded = families.fresh(family)
    touched, clean = (PolicySession(loaded) for _ in range(2))
    good = families.sample(loaded.processor)
    bad = replace(good, state=np.full_like(good.state, np.nan))
    with pytest.raises(InputError, match="state: shoulder_pan, row 0 is nan, expected a finite number"):
        touched.infer([bad])
    for session in (touched, clean):
        session.seed(7)
    assert torch.equal(touched.infer([good])[0].answer, clean.infer([good])[0].answer)


@EVERY
def test_an_episode_that_begins_during_an_inference_makes_its_answer_stale(family, monkeypatch):
    loaded = families.fresh(family)
    session = PolicySession(loaded, size=2)
    samples = [families.sample(loaded.processor, seed) for seed in range(2)]
    act = session.policy.act

    def interrupted(*args):
        thread = threading.Thread(target=session.begin, args=([1],))
        thread.start()
        thread.join()
        return act(*args)

    monkeypatch.setattr(session.policy, "act", interrupted)
    assert [one.stale for one in session.infer(samples)] == [False, True]
    monkeypatch.undo()
    assert [one.stale for one in session.infer(samples)] == [False, False]


@GUIDED
def test_the_number_of_steps_is_the_sessions(family, monkeypatch):
    loaded = families.fresh(family)
    for steps in (2, 5):
        session = PolicySession(loaded, SessionOptions(num_steps=steps))
        step = Mock(wraps=getattr(session.policy, session.policy.compiled[1]))
        monkeypatch.setattr(session.policy, session.policy.compiled[1], step)
        session.infer([families.sample(loaded.processor)])
        assert step.call_count == steps


@GUIDED
@torch.no_grad()
def test_no_overlap_is_no_running_chunk_and_frozen_rows_come_near_it(family):
    loaded = families.fresh(family)
    policy, (batch, draws) = loaded.policy, inputs(loaded)
    free = policy.predict(batch, draws)
    assert torch.equal(policy.predict(batch, draws, steer(policy, 2, 3, 0)), free)
    running = steer(policy, 2, 2, 4)
    guided = policy.predict(batch, draws, running)
    before, after = ((a - running.actions)[:, :2].abs().mean() for a in (free, guided))
    assert after < 0.7 * before


def test_what_a_family_cannot_do_is_refused():
    act, diffusion = families.fresh("act"), families.fresh("diffusion")
    with pytest.raises(InputError, match="num_steps 3: ACT does not work in steps"):
        PolicySession(act, SessionOptions(num_steps=3))
    with pytest.raises(InputError, match="guidance 'prior': ACT takes none"):
        PolicySession(act, SessionOptions(guided=True))
    with pytest.raises(InputError, match="guidance 'exact': DiffusionPolicy takes"):
        PolicySession(diffusion, SessionOptions(guided=True, exact_guidance=True))
    with pytest.raises(InputError, match="rtc_max_guidance 3: this DiffusionPolicy continues a chunk without"):
        PolicySession(diffusion, SessionOptions(guided=True, max_guidance=3.0))
    for name, options in (("exact", {"exact_guidance": True}), ("max_guidance", {"max_guidance": 3.0})):
        with pytest.raises(InputError, match=f"rtc_{name} without rtc: nothing is guided; expected rtc: true"):
            SessionOptions(**options)


@pytest.mark.parametrize("exact", [False, True])
@GUIDED
def test_a_session_guides_each_chunk_towards_the_running_one(family, exact):
    flow = family not in ("diffusion", "go1")
    if exact and not flow:
        pytest.skip("defined for flows")
    loaded = families.fresh(family)
    bound = 20.0 if flow else None
    guided = PolicySession(loaded, SessionOptions(guided=True, exact_guidance=exact, max_guidance=bound))
    free = PolicySession(loaded)
    first = families.sample(loaded.processor)
    second = replace(first, stamp_ns=200_000_000)
    (running,) = guided.infer([first])
    assert np.array_equal(positions(running), positions(free.infer([first])[0]))
    guided.delivered(0.15)
    tail = positions(running)[2:4]  # two rows are over, two will be frozen
    far, near = (np.abs(positions(s.infer([second])[0])[:2] - tail).mean() for s in (free, guided))
    assert near < 0.7 * far
    guided.begin()
    guided.seed(3), free.seed(3)
    assert np.array_equal(positions(guided.infer([second])[0]), positions(free.infer([second])[0]))


@EVERY
@torch.no_grad()
def test_bfloat16_comes_near_float32(family):
    exact, near = families.fresh(family), families.fresh(family)
    near.policy.store_as(torch.bfloat16)
    types = {p.dtype for p in near.policy.parameters()}
    assert types == ({torch.bfloat16, torch.float32} if near.policy.float32 else {torch.bfloat16})
    batch, draws = inputs(exact)
    a, b = (loaded.policy.predict(batch, draws) for loaded in (exact, near))
    if a.dtype == torch.int64:  # greedy choices part soon; ids that were rounded would be no chunk
        assert b.dtype == torch.int64 and len(exact.processor.outputs(b, [families.sample(exact.processor)] * 2)) == 2
        return
    assert 0 < (a - b).abs().mean() < 0.1 * a.abs().mean()


class Stage(torch.nn.Module):
    def __init__(self, policy, name):
        super().__init__()
        self.policy, self.name = policy, name

    def forward(self, *args):
        return getattr(self.policy, self.name)(*args)


@EVERY
@torch.no_grad()
def test_both_stages_export_and_give_the_same_numbers(family):
    loaded = short(family)
    policy, (batch, draws) = loaded.policy, inputs(loaded, rows=1)
    fixed = policy.prepare()
    running = steer(policy, 1, 1, 3) if family in families.GUIDED else None
    memory = policy.begin(1)
    context = policy.encode(batch, memory, draws)
    arguments = {"encode": (batch, memory, draws), "act": (context, draws, fixed, running)}
    stages = {name: torch.export.export(Stage(policy, name), arguments[name]).module()
              for name in policy.traits.recordable}
    assert list(stages) == (["encode"] if family in UNRECORDED else ["encode", "act"])
    for seed in (0, 5):
        batch = policy.with_elapsed(loaded.processor.inputs([families.sample(loaded.processor, seed)]))
        expected = policy.act(policy.encode(batch, memory, draws), draws, fixed, running)
        known = stages["encode"](batch, memory, draws)
        answer = stages.get("act", policy.act)(known, draws, fixed, running)
        torch.testing.assert_close(leaves(answer), leaves(expected), rtol=1e-4, atol=1e-5)
        memory = expected.memory


@EVERY
def test_what_is_named_to_be_compiled_runs_and_a_session_leaves_its_policy_as_it_was(family, monkeypatch):
    loaded = short(family)
    policy, one = loaded.policy.train(), families.sample(loaded.processor)
    before, grads = set(vars(policy)), [p.requires_grad for p in policy.parameters()]
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr("vla_ros.runtime.session._WARM_WORDS", (1, 8))  # every length of prompt is compiled anew
    session = PolicySession(loaded, SessionOptions(compile=True))
    session.warm_up(one)
    session.seed(3)
    plain = PolicySession(loaded, SessionOptions(seed=3))
    np.testing.assert_allclose(positions(session.infer([one])[0]), positions(plain.infer([one])[0]), atol=1e-4)
    assert set(vars(policy)) == before and [p.requires_grad for p in policy.parameters()] == grads
    assert all(module.training for module in policy.modules())
    assert {p.data_ptr() for p in policy.parameters()} == {p.data_ptr() for p in session.policy.parameters()}


def test_a_name_that_never_runs_is_an_error(monkeypatch):
    loaded = families.fresh("act")
    loaded.policy.compiled = ("encode", "encode_actions")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    session = PolicySession(loaded, SessionOptions(compile=True))
    with pytest.raises(InputError, match="ACT names \\['encode_actions'\\] in `compiled`, which its stages never call"):
        session.warm_up(families.sample(loaded.processor))


def captured(function):
    """A recording on the CPU: the operations of one run, with whatever Python decided in it, over the same tensors."""
    graph = make_fx(lambda: leaves(function()))()
    result = copied(function())

    def replay():
        targets = [v for v in leaves(result) if isinstance(v, torch.Tensor)]
        copy_into(targets, [v for v in graph() if isinstance(v, torch.Tensor)])

    return replay, result


@EVERY
@torch.no_grad()
def test_recordings_give_what_the_plain_way_gives(family):
    loaded = short(family)
    policy, guided = loaded.policy, family in families.GUIDED
    _, draws = inputs(loaded, rows=1)
    held = Held(policy.begin(1), draws, policy.prepare(), steer(policy, 1, 0, 0) if guided else None)
    device = torch.device("cpu")
    plain, recorded = PlainNetwork(policy, held, device), RecordedNetwork(policy, held, device, 1, captured)
    for seed, instruction in enumerate(("go", "go", "touch the red cube")):
        batch = policy.with_elapsed(
            loaded.processor.inputs([families.sample(loaded.processor, seed, instruction)]), [seed]
        )
        for value in held.draws.values():
            value.normal_()
        if guided:
            held.steer.actions.normal_()
            held.steer.frozen.fill_(seed)
            held.steer.overlap.fill_(2 * seed)
        expected = plain.run(batch, held.steer, StageTimer(device))
        timer = StageTimer(device)
        assert equal(recorded.run(batch, held.steer, timer), expected)
        assert len(timer.seconds()) == 2 and len(recorded) == 1
        copy_into(held.memory, expected.memory)
