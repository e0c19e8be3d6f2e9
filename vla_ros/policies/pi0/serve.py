"""A published π0 folder and a robot's embodiment made into a policy that serves."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from vla_ros.core.errors import InputError
from vla_ros.nn.meta import without_numbers
from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.policies.normalisation import Normalisation
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.names import load_published, sort_keys
from vla_ros.policies.pi0.processor import Pi0Processor
from vla_ros.policies.pi0.published import Published, read_published
from vla_ros.policies.pi0.report import report
from vla_ros.policies.registry import LoadedPolicy, LoadOptions
from vla_ros.policies.tokenizer import Tokenizer, load_tokenizer


def load(path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
    """The policy with its weights, matrices in `options.dtype` (float32 when None).

    With an embodiment everything that serving needs must be there: clock, statistics, tokenizer, matching dimensions.
    Without one the policy can be measured and described but fits no robot.

    Raises InputError that names the file and what is missing; for tensors with a list of them.
    """
    found = read_published(path, layout, options.overrides)
    processor = make_processor(path, found, options)
    with without_numbers():
        policy = Pi0(processor.config)
    load_published(policy, found.tensors, str(path), options.device, options.dtype or torch.float32)
    return LoadedPolicy("pi0", policy.eval(), processor, layout, _report(path, found, processor))


def describe(path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
    """What `load` would find, from the headers of the weights alone."""
    found = read_published(path, layout, options.overrides)
    return _report(path, found, make_processor(path, found, options))


def make_processor(path: Path, found: Published, options: LoadOptions) -> Pi0Processor:
    """Raises InputError where embodiment and checkpoint do not fit together."""
    where = f"checkpoint {path}"
    tokenizer = _tokenizer(path, options)
    if options.embodiment is None:
        embodiment = _placeholder(found)
        state, actions = (n or Normalisation("identity", {}) for n in (found.state, found.actions))
        return Pi0Processor(found.config, embodiment, state, actions, tokenizer)
    embodiment = options.embodiment
    if embodiment.step_dt is None:
        raise InputError(f"{where}: it does not say how far apart its action rows are; set step_dt in the policy file")
    if found.state is None or found.actions is None:
        raise InputError(f"{where}: {'; '.join(found.notes)}; set overrides.statistics in the policy file")
    if tokenizer is None:
        raise InputError(f"{where}: it brings no tokenizer; give the folder of PaliGemma's tokenizer (`tokenizer`)")
    for what, told, expected in (
        ("state", len(embodiment.state), found.state_dim),
        ("action", len(embodiment.actions), found.action_dim),
    ):
        if expected is not None and told != expected:
            raise InputError(f"{where}: {what} of {expected} dimensions, the policy file gives {told}")
    if found.relative is not None:
        for index, (relative, dimension) in enumerate(zip(found.relative, embodiment.actions, strict=True)):
            if relative and dimension.mode == "absolute":
                raise InputError(
                    f"{where}: action {index} ({dimension.joint}) is the difference to the state, the policy file says "
                    "absolute, expected mode: delta"
                )
    config: Pi0Config = replace(found.config, step_dt=embodiment.step_dt, loss_dims=len(embodiment.actions))
    return Pi0Processor(config, embodiment, found.state, found.actions, tokenizer)


def _tokenizer(path: Path, options: LoadOptions) -> Tokenizer | None:
    """The one that was given, else the folder's own, else none."""
    if options.tokenizer is not None:
        return load_tokenizer(options.tokenizer)
    if (path / "tokenizer.json").is_file() or list(path.glob("*.model")):
        return load_tokenizer(path)
    return None


def _placeholder(found: Published) -> Embodiment:
    """Joints without names, so that the network and its processor can run; no robot has such joints."""
    config = found.config
    sizes = []
    for said, normalisation, most in (
        (found.state_dim, found.state, config.state_dim),
        (found.action_dim, found.actions, config.action_dim),
    ):
        lengths = [len(values) for values in normalisation.statistics.values()] if normalisation else []
        sizes.append(said or min([most, *lengths]))
    relative = found.relative or (False,) * sizes[1]
    actions = tuple(Dimension(f"joint_{i}", mode="delta" if relative[i] else "absolute") for i in range(sizes[1]))
    state = tuple(Dimension(f"joint_{i}" if i < sizes[1] else None) for i in range(sizes[0]))
    return Embodiment({name: name for name in config.cameras}, state, actions)


def _report(path: Path, found: Published, processor: Pi0Processor) -> dict[str, str]:
    _, unused = sort_keys(found.tensors.shapes, found.config.adaptive, str(path))
    rows = dict(report(processor.config, processor))
    if processor.embodiment.step_dt is None:
        rows["horizon"] = f"{processor.horizon} rows; how far apart, the policy file says (step_dt)"
        rows["joints"] = "the policy file names them"
    rows["tokenizer"] = "found" if processor.tokenizer else "not in the folder: PaliGemma's must be given"
    if found.notes:
        rows["notes"] = "; ".join(found.notes)
    rows["not used"] = "; ".join(f"{key}: {reason}" for key, reason in _grouped(unused)) or "nothing"
    return rows


def _grouped(unused: Mapping[str, str]) -> list[tuple[str, str]]:
    """Keys that are left out for the same reason, as their first and their number."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in unused.items():
        by_reason.setdefault(reason, []).append(key)
    return [
        (keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more", reason)
        for reason, keys in by_reason.items()
    ]
