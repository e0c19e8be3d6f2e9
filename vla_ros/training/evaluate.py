"""How good a policy is on held-out episodes."""

import numpy as np
import torch

from vla_ros.policies.policy import Policy
from vla_ros.policies.processor import Processor
from vla_ros.training.samples import Samples


@torch.no_grad()
def evaluate(
    policy: Policy, processor: Processor, samples: Samples, limit: int, batch_size: int, device: torch.device, seed: int
) -> dict[str, float]:
    """Held-out loss, and the error of predicted actions in rad or m: mean over steps, and of the first step.

    The frames are spread evenly over the episodes, the draws of noise the same at each call.
    """
    numbers = np.unique(np.linspace(0, len(samples) - 1, min(limit, len(samples))).round().astype(int))
    losses, errors, first, count = 0.0, 0.0, 0.0, 0
    was_training = policy.training
    policy.eval()
    for start in range(0, len(numbers), batch_size):
        chosen = samples.get(numbers[start : start + batch_size])
        batch = {name: value.to(device) for name, value in processor.inputs(chosen).items()}
        torch.manual_seed(seed + start)
        losses += float(policy.loss(batch)["loss"]) * len(chosen)
        torch.manual_seed(seed + start)
        targets = processor.outputs(policy.predict(batch).float().cpu(), chosen)
        actions = np.stack([
            one.joint_positions(processor.joints, sample.state[-1]) for one, sample in zip(targets, chosen, strict=True)
        ])
        past = -processor.first_action_step
        true = np.stack([sample.actions[past:] for sample in chosen])
        valid = ~np.stack([sample.action_is_pad[past:] for sample in chosen])
        error = np.abs(actions - true).mean(-1)
        errors += float(((error * valid).sum(1) / valid.sum(1)).sum())
        first += float(error[:, 0].sum())
        count += len(chosen)
    policy.train(was_training)
    return {"held_out_loss": losses / count, "action_error": errors / count, "first_action_error": first / count}
