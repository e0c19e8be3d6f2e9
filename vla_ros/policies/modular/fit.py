"""Whether parts fit together, tried on shapes alone, and what is said about them."""

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vla_ros.core.errors import InputError
from vla_ros.policies.parts.choice import Choice
from vla_ros.policies.parts.kinds import Features

BATCH = 3  # observations: no size of a part


def checked(policy: Any) -> None:
    """Raises InputError, which names the two parts, where one does not take what the other gives."""
    config, width = policy.config, policy.language.width
    cameras, first = len(config.cameras), policy.vision[0]
    for choice, tower in zip(config.vision, policy.vision, strict=True):
        if tower.image != first.image:
            raise InputError(f"policy: {config.vision[0].title} sees images of {first.image} pixels, {choice.title} of "
                             f"{tower.image}; expected the same, as images come in one size")
    images = torch.empty(BATCH, cameras, 3, first.image, first.image, device="meta")
    text = torch.empty(BATCH, width, device="meta")
    for choice, tower, link, projector in zip(
        config.vision, policy.vision, config.projector, policy.projectors, strict=True
    ):
        shape = BATCH, cameras, tower.tokens, tower.width
        seen = _given(choice, tower, (images, text), shape, "the images", link.title)
        _given(link, projector, (seen.flatten(0, 1),), (BATCH * cameras, projector.tokens, width), choice.title,
               config.language.title)
    sources = {"images": torch.empty(BATCH, policy.sources["images"], width, device="meta")}
    for name, encoder in policy.encoders.items():
        value = torch.empty(BATCH, *config.shapes[name], device="meta")
        count = torch.empty(BATCH, dtype=torch.int64, device="meta") if encoder.counted else None
        if encoder.camera and encoder.camera not in config.cameras:
            raise InputError(f"policy: {config.encoders[name].title} of stream {name!r}: camera {encoder.camera!r}, "
                             f"expected one of the policy's: {list(config.cameras)}")
        beside = [images[:, 0]] if encoder.camera else []
        sources[name] = _given(config.encoders[name], encoder, (value, count, *beside),
                               (BATCH, encoder.tokens, width), f"stream {name!r}", config.language.title)
    if policy.fusion:
        _given(config.fusion, policy.fusion, (sources,), (BATCH, policy.fusion.tokens, width), "images and sensors",
               config.language.title)
    tokens, most = policy.prefix + config.text_length, policy.language.most
    if 0 < most < tokens:
        raise InputError(f"policy: {tokens} tokens, {config.language.title} reads at most {most}; expected fewer: a "
                         "projector with queries, a shorter text_length")
    tokens = policy.prefix + 2
    x, valid = torch.empty(BATCH, tokens, width, device="meta"), torch.ones(BATCH, tokens, device="meta").bool()
    hidden = _given(config.language, policy.language, (x, valid), tuple(x.shape), "its embeddings", config.head.title)
    if policy.temporal:
        steps = torch.empty(BATCH, config.window, width, device="meta")
        _given(config.temporal, policy.temporal, (steps,), tuple(steps.shape), config.language.title, config.head.title)
    _head(policy, Features(hidden, valid, hidden[:, 0]))


def _head(policy: Any, features: Features) -> None:
    config, head = policy.config, policy.head
    shape = BATCH, config.horizon, config.action_dim
    draws = {name: torch.empty(one, device="meta") for name, one in head.draws(BATCH).items()}
    fixed = torch.utils._pytree.tree_map_only(Tensor, lambda value: value.to("meta"), head.prepare())
    _given(config.head, _Act(head), (features, draws, fixed), shape, config.language.title, "the chunk")


class _Act(nn.Module):
    """A head's answer as a module's."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, *args: Any) -> Tensor:
        return self.head.act(*args)


def _given(
    choice: Choice, part: nn.Module, args: tuple[Any, ...], shape: tuple[int, ...], before: str, after: str
) -> Tensor:
    """What the part makes of arguments on the meta device. Raises InputError unless it has this shape."""
    tensors = {name: tensor.to("meta") for name, tensor in chain(part.named_parameters(), part.named_buffers())}
    try:
        with torch.no_grad():
            out = functional_call(part, tensors, args)
    except InputError as error:
        raise InputError(f"policy: {choice.title}, from {before}: {error}") from None
    except Exception as error:  # torch's or foreign
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(f"policy: {choice.title} does not accept the output of {before}: {said}") from error
    if not isinstance(out, Tensor) or tuple(out.shape) != shape:
        found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"policy: {choice.title} gives {found}, {after} takes {list(shape)}; expected the same")
    return out


def described(policy: Any) -> dict[str, str]:
    """Rows for `vla-ros info`: each part with its parameters, how many are trained, and its tokens."""
    config, width, cameras = policy.config, policy.language.width, len(policy.config.cameras)
    rows = {}
    for i, (tower, projector) in enumerate(zip(policy.vision, policy.projectors, strict=True)):
        seen = f"{cameras} x {tower.tokens} tokens of {tower.width}, images of {tower.image} pixels"
        rows[f"vision {i + 1}" if i else "vision"] = _row(config.vision[i], tower, seen)
        joined = f"{cameras} x {projector.tokens} tokens of {width}"
        rows[f"projector {i + 1}" if i else "projector"] = _row(config.projector[i], projector, joined)
    for name, encoder in policy.encoders.items():
        rows[f"encoder of {name}"] = _row(config.encoders[name], encoder, f"{encoder.tokens} tokens of {width}")
    if policy.fusion:
        rows["fusion"] = _row(config.fusion, policy.fusion, f"{policy.fusion.tokens} tokens of {width}")
    state = ["1 of the joints"] if config.reads_state else []
    parts = [f"{n} of {name}" for name, n in policy.sources.items()]
    if policy.fusion:
        parts = [f"{policy.fusion.tokens} of the fusion"]
    parts += [*state, f"{config.text_length} of the instruction"]
    rows["sequence"] = f"{' + '.join(parts)} = {policy.prefix + config.text_length} tokens at most"
    rows["language"] = _row(config.language, policy.language, f"{width} wide, {config.token_rows:,} words")
    steps = f", windows of {config.window} steps" if config.window > 1 else ""
    if policy.temporal:
        rows["temporal"] = _row(config.temporal, policy.temporal, f"{config.window} steps of {width}")
    reads = "all hidden states" if policy.head.reads == "tokens" else "the last token"
    rows["head"] = _row(config.head, policy.head, f"of {reads}{steps}")
    return rows


def _row(choice: Choice, part: nn.Module, what: str) -> str:
    counts = [(p.numel(), p.requires_grad) for p in part.parameters()]
    total, trained = sum(n for n, _ in counts), sum(n for n, own in counts if own)
    how = "frozen" if total and not trained else "trained" if trained == total else f"{trained:,} of them trained"
    return f"{choice.kind}: {what}; {total:,} parameters, {how}"
