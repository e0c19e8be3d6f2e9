"""Evaluate a policy on held-out episodes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.chunk import Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Batch
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.runtime.session import PolicySession, SessionOptions
from vla_ros.training.samples import Samples


@torch.no_grad()
def evaluate(
    loaded: LoadedPolicy, samples: Samples, limit: int, batch_size: int, seed: int,
    loss: Callable[[Batch], dict[str, Tensor]] | None = None,
) -> dict[str, float]:
    """Held-out loss, and the error of predicted actions, rad or m (of a tool m and its rotation's numbers; of a base
    m/s and rad/s): mean over steps, and of the first step.

    About `limit` frames are spread evenly over the episodes, with the same draws at each call. For a policy with
    memory, whole episodes are played from the beginning. Rows that are not in a chunk do not count, nor do answers that
    are not actions, such as other tokens: `unreadable` is their share, if there are any. `loss`: another than the
    policy's own.
    """
    policy, processor = loaded.policy, loaded.processor
    device = next(policy.parameters()).device
    remembers = policy.begin(1) is not None
    batches = _whole_episodes(samples, limit, batch_size) if remembers else _spread(samples, limit, batch_size)
    losses, errors, first, count, unreadable = 0.0, 0.0, 0.0, 0, 0
    was_training = policy.training
    policy.eval()
    alone = remembers or not policy.traits.pads  # one sample after the other
    session = PolicySession(loaded, SessionOptions(graph=False, seed=seed)) if alone else None
    for numbers, steps in batches:
        chosen = samples.get(numbers)
        batch = {name: value.to(device) for name, value in processor.inputs(chosen).items()}
        torch.manual_seed(seed + count)
        found = (loss or policy.loss)(batch)
        losses += sum(float(found[name]) for name in policy.groups()) * len(chosen)
        torch.manual_seed(seed + count)
        shown = samples.get(numbers, training=False)
        if session is None:
            batch = {name: value.to(device) for name, value in processor.inputs(shown).items()}
            answer = policy.predict(batch).cpu()
            rows = zip(answer.float() if answer.is_floating_point() else answer, shown, strict=True)
            targets = [_readable(lambda row=row, one=one: processor.outputs(row[None], [one])[0]) for row, one in rows]
        else:
            targets = _played(session, shown, steps)
        true = np.stack([sample.actions[-processor.horizon :] for sample in chosen])
        actions = np.full(true.shape, np.nan)
        for row, one, sample in zip(actions, targets, shown, strict=True):
            if one is None:
                continue
            joints = (processor.embodiment.joint_rows(one, sample.state[-1]) if one.path
                      else one.joint_positions(processor.joints, sample.state[-1]))
            row[: one.horizon, : joints.shape[1]] = joints
            if row.shape[1] > joints.shape[1]:  # the tool's numbers, which the policy answers in the dataset's form
                row[: one.horizon, joints.shape[1] :] = one.spatial.data
        error = np.abs(actions - true)[..., samples.commanded].mean(-1)
        valid = np.isfinite(error) & ~np.stack([sample.action_is_pad[-processor.horizon :] for sample in chosen])
        read = np.array([one is not None for one in targets])
        errors += float((np.where(valid, error, 0.0).sum(1)[read] / valid.sum(1)[read]).sum())
        first += float(error[read, 0].sum())
        count += len(chosen)
        unreadable += int((~read).sum())
    policy.train(was_training)
    figures = {"held_out_loss": losses / count}
    if read := count - unreadable:
        figures |= {"action_error": errors / read, "first_action_error": first / read}
    return figures | ({"unreadable": unreadable / count} if unreadable else {})


Batches = Iterator[tuple[np.ndarray, np.ndarray]]  # (B,) numbers of samples and (B,) steps since the episode began


def _spread(samples: Samples, limit: int, batch_size: int) -> Batches:
    numbers = np.unique(np.linspace(0, len(samples) - 1, min(limit, len(samples))).round().astype(int))
    for start in range(0, len(numbers), batch_size):
        part = numbers[start : start + batch_size]
        yield part, np.zeros_like(part)


def _whole_episodes(samples: Samples, limit: int, batch_size: int) -> Batches:
    """All frames, on the policy's clock, of evenly spread episodes; at least one episode."""
    lengths = [episode.length for episode in samples.episodes]
    starts = np.cumsum([0, *lengths[:-1]])
    wanted = round(limit * len(lengths) * samples.stride / len(samples))
    chosen = np.unique(np.linspace(0, len(lengths) - 1, min(max(1, wanted), len(lengths))).round().astype(int))
    for start, length in ((starts[k], lengths[k]) for k in chosen):
        numbers = np.arange(start, start + length, samples.stride)
        for first in range(0, len(numbers), batch_size):
            part = numbers[first : first + batch_size]
            yield part, (part - start) // samples.stride


def _readable(answer: Callable[[], Targets]) -> Targets | None:
    """The targets, or None if the answer of a policy in training is not an action."""
    try:
        return answer()
    except InputError:
        return None


def _played(session: PolicySession, samples: Sequence[Sample], steps: np.ndarray) -> list[Targets | None]:
    """The answers of a session to consecutive samples, one step apart."""
    targets, step_ns = [], round(session.processor.step_dt * 1e9)
    for sample, step in zip(samples, steps.tolist(), strict=True):
        if step == 0:
            session.begin()
        seen = [replace(sample, stamp_ns=step * step_ns)]
        targets.append(_readable(lambda seen=seen: session.infer(seen)[0].targets))
    return targets
