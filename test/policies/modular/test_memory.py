"""A memory of the newest steps and of codes of all stretches: step by step as in a window, and what it forgets when."""

from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from policies.modular.test_modular import build

from vla_ros.core.errors import InputError
from vla_ros.policies.parts import TEMPORALS
from vla_ros.policies.parts.choice import chosen
from vla_ros.runtime.session import PolicySession

SMALL = {"kind": "episodic", "window": 6, "recent": 2, "slots": 9, "code": 8, "key": 4, "readers": 2, "top": 3,
         "heads": 2}  # fmt: skip


def part(**changes):
    torch.manual_seed(0)
    return chosen(TEMPORALS, SMALL | changes, "temporal").make(16).eval()


def play(memory, steps, gaps=()):
    """(N, K, width) summaries, one after the other, to the answers (N, K, width)."""
    known, answers = memory.begin(len(steps), 6, 16), []
    for k, newest in enumerate(steps.unbind(1)):
        known = known.after(torch.full((len(steps),), dict(gaps).get(k, 1)))
        answer, known = memory.remember(known, newest)
        answers.append(answer)
    return torch.stack(answers, dim=1)


def test_it_remembers_step_by_step_what_it_reads_in_a_window():
    memory, x = part(), torch.randn(3, 6, 16)
    with torch.no_grad():
        whole = memory(x)
        torch.testing.assert_close(play(memory, x), whole, rtol=1e-4, atol=1e-5)
        changed = x.clone()
        changed[:, 4] += 1
        torch.testing.assert_close(memory(changed)[:, :4], whole[:, :4])  # the future
        # The last step still reads of the first, which the newest two do not hold, where all codes answer.
        memory = part(top=6)
        changed = x.clone()
        changed[:, 0] += 1
        assert not torch.allclose(memory(changed)[:, 5], memory(x)[:, 5], atol=1e-5)


def test_more_than_a_window_is_remembered_and_the_oldest_makes_way():
    memory, x = part(top=9), torch.randn(1, 12, 16)
    changed = x.clone()
    changed[:, 0] += 1
    with torch.no_grad():
        one, other = play(memory, x), play(memory, changed)
    for step in (7, 9):  # nine codes: those of steps 1 to 9, of which the first still holds step 0
        assert not torch.allclose(one[:, step], other[:, step], atol=1e-6), step
    torch.testing.assert_close(one[:, 10:], other[:, 10:])


def test_a_gap_ends_what_is_no_longer_recent_and_a_long_one_all():
    memory, x = part(), torch.randn(1, 4, 16)
    with torch.no_grad():
        alone = play(memory, x[:, 3:])[:, 0]
        answers = {gap: play(memory, x, [(3, gap)])[:, 3] for gap in (1, 3, 10)}
    assert not torch.allclose(answers[1], answers[3], atol=1e-5) and not torch.allclose(answers[3], alone, atol=1e-5)
    torch.testing.assert_close(answers[10], alone)


def test_a_policy_remembers_until_another_instruction_begins():
    loaded = build(temporal=SMALL)
    processor, session = loaded.processor, PolicySession(loaded)
    assert loaded.policy.traits.paced and processor.steps(True)["front"] == tuple(range(-5, 1))
    samples = [families.sample(processor, k, stamp_ns=k * 100_000_000) for k in range(4)]
    first, second, *_, last = (session.infer([one])[0].answer for one in samples)
    with torch.no_grad():
        batches = [processor.inputs([one]) for one in samples]
        window = batches[0] | {name: torch.cat([one[name] for one in batches], dim=1) for name in ("images", "state")}
        read = loaded.policy.temporal(loaded.policy.features(window).summary[None])[0]
        features = replace(loaded.policy.features(batches[3]), summary=read[-1:])
        torch.testing.assert_close(loaded.policy.head.act(features)[0], last, rtol=1e-4, atol=1e-5)
    session.begin()
    torch.testing.assert_close(session.infer(samples[:1])[0].answer, first)
    assert not torch.allclose(session.infer(samples[3:])[0].answer, last, atol=1e-6)
    wide = replace(samples[0], images={n: np.repeat(v, 6, 0) for n, v in samples[0].images.items()},
                   state=np.repeat(samples[0].state, 6, 0), actions=np.zeros((9, 6)), action_is_pad=np.arange(9) > 7)
    loaded.policy.loss(processor.inputs([wide]))["loss"].backward()
    assert all(p.grad is not None for p in loaded.policy.temporal.parameters())


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="recent 2, window 12, slots 9: expected none smaller"):
        part(window=12)
