"""Which parameters are trained and how: freezing, LoRA, gradient checkpointing, the moving average."""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vla_ros.core.errors import InputError
from vla_ros.nn.words import WordEncoder
from vla_ros.policies.policy import Policy
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.training.config import LoraConfig


def freeze(policy: nn.Module, patterns: tuple[str, ...]) -> None:
    """Stop training the parameters whose names match one of the regular expressions (searched).

    Raises InputError for a pattern that matches none, and when nothing is left to train.
    """
    names = dict(policy.named_parameters())
    for pattern in patterns:
        for name in _matching("freeze", pattern, names, "parameter", whole=False):
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise InputError(f"freeze {list(patterns)} leaves no parameter to train")


def take_weights(loaded: LoadedPolicy, other: LoadedPolicy, instructions: Sequence[str]) -> str:
    """Copy the other one's weights where name and shape are the same; returns what was taken and what stayed fresh.

    Where both read whole words, weights of words are copied word by word: the instructions may have words that the
    other one does not know, which stay fresh.

    Raises InputError for another family, for another vocabulary otherwise, and if nothing fits.
    """
    where = f"weights of a {other.family}"
    if loaded.family != other.family:
        raise InputError(f"{where}, expected a checkpoint of the family {loaded.family}")
    mine, theirs = whole_words(loaded), whole_words(other)
    tokenizers = [getattr(one.processor, "tokenizer", None) for one in (loaded, other)]
    read = [[t.size, *map(t.encode, instructions)] if t else w for t, w in zip(tokenizers, (mine, theirs), strict=True)]
    own, given = loaded.policy.state_dict(), other.policy.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    words: dict[str, Tensor] = {}
    if read[0] != read[1]:
        columns = [f"{name}.{WordEncoder.TABLE}" for name, module in loaded.policy.named_modules()
                   if isinstance(module, WordEncoder)]  # fmt: skip
        if mine and theirs:
            words = _by_word(own, given, mine, theirs, columns)
        if not words:
            raise InputError(f"{where} whose vocabulary is not that of the dataset's instructions, expected the same")
        fitting |= words
    if not fitting:
        raise InputError(f"{where}: none has the name and shape of one of the policy's, expected the same sizes")
    loaded.policy.load_state_dict(fitting, strict=False)
    said, fresh = f"{len(fitting)} of {len(own)} tensors taken", [name for name in own if name not in fitting]
    if words:
        said += f", {len(words)} of them for the {len(mine.keys() & theirs.keys())} of {len(mine)} words that both know"
    return f"{said}; {len(fresh)} stayed fresh" + (f": {', '.join(fresh[:4])}" if fresh else "") + (
        ", ..." if len(fresh) > 4 else "")  # fmt: skip


def whole_words(loaded: LoadedPolicy) -> Mapping[str, int]:
    """The words of a policy that has a row or column of weights for each, and their numbers; of others none."""
    if tokenizer := getattr(loaded.processor, "tokenizer", None):
        return tokenizer.whole_words
    known = getattr(loaded.policy.config, "vocabulary", ())
    return {word: number for number, word in enumerate(known)} if isinstance(known, tuple) else {}


def _by_word(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], mine: Mapping[str, int], theirs: Mapping[str, int],
    columns: Iterable[str],
) -> dict[str, Tensor]:
    """The tensors with a row for each word, and perhaps some rows after them, and those of `columns`, which have a
    column for each: the given one of each word of both."""
    both = [(number, theirs[word]) for word, number in mine.items() if word in theirs]
    found = {name: _placed(own[name], given[name], 1, both) for name in columns if name in given}
    if found or len(mine) == len(theirs):  # whose rows could not be told from those of other matrices
        return found
    for name, value in given.items():
        fresh = own.get(name, value)
        after = len(value) - len(theirs) if value.ndim else -1
        if after >= 0 and fresh.shape == (len(mine) + after, *value.shape[1:]):
            found[name] = _placed(fresh, value, 0, [*both, *((len(mine) + i, len(theirs) + i) for i in range(after))])
    return found


def _placed(fresh: Tensor, given: Tensor, axis: int, places: Sequence[tuple[int, int]]) -> Tensor:
    """`fresh` with the rows or columns of `given`; `places`: to which, from which."""
    to, source = (torch.tensor([pair[k] for pair in places], dtype=torch.long) for k in (0, 1))
    return fresh.index_copy(axis, to, given.index_select(axis, source))


def rate_factors(policy: nn.Module, rates: Mapping[str, float]) -> dict[nn.Parameter, float]:
    """Of the parameters whose names match `OptimizerConfig.rates`. Raises InputError for one that matches none."""
    names, factors = dict(policy.named_parameters()), {}
    for pattern, factor in rates.items():
        hits = _matching("optimizer.rates", pattern, names, "parameter", whole=False)
        factors |= {names[name]: factor for name in hits}
    return factors


def add_lora(policy: nn.Module, config: LoraConfig) -> None:
    """Add adapters to the linear layers that match; then only the adapters are trained, and the parameters that
    `config.full` names if they were trained before. Raises InputError."""
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    linear = [name for name, module in policy.named_modules() if isinstance(module, nn.Linear)]
    targets = _matching("lora.target", config.target, linear, "linear layer")
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    full = [p for pattern in config.full
            for p in map(trained.get, _matching("lora.full", pattern, trained, "trained parameter", whole=False))]
    policy.requires_grad_(False)
    inject_adapter_in_model(
        PeftConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets), policy
    )
    for parameter in full:
        parameter.requires_grad_(True)


def merged(policy: Policy) -> Policy:
    """A copy with its adapters merged into the weights, with the parameters of the original."""
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(policy)
    for name, module in list(plain.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, module.get_base_layer())
    return plain


def checkpoint_modules(policy: nn.Module, pattern: str) -> None:
    """Recompute the activations of the modules whose names match (whole) in the backward pass, to save memory.

    Raises InputError when none matches.
    """
    names = [name for name, _ in policy.named_modules() if name]
    for name in _matching("gradient_checkpointing", pattern, names, "module"):
        module = policy.get_submodule(name)
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)


class Average:
    """Moving average of a module's trained parameters: a ← d·a + (1 − d)·w after each step.

    d = min(decay, (1 + n) / (10 + n)) at the n-th update, so that the first weights are forgotten soon.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters() if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module, n: int) -> None:
        decay = min(self.decay, (1 + n) / (10 + n))
        parameters = dict(module.named_parameters())
        values = list(self.values.values())
        torch._foreach_lerp_(values, [parameters[name].detach() for name in self.values], 1 - decay)

    def load(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Within the context the module has the averaged weights; nothing is copied."""
        parameters = dict(module.named_parameters())
        own = {name: parameters[name].data for name in self.values}
        try:
            for name, value in self.values.items():
                parameters[name].data = value
            yield
        finally:
            for name, value in own.items():
                parameters[name].data = value


def _matching(field: str, pattern: str, names: Iterable[str], what: str, whole: bool = True) -> list[str]:
    """The names that match. Raises InputError if none does."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{field} {pattern!r}: not a regular expression: {error}") from error
    names = list(names)
    hits = [name for name in names if (compiled.fullmatch if whole else compiled.search)(name)]
    if not hits:
        some = ", ".join(names[:12]) + (f", ... ({len(names)})" if len(names) > 12 else "")
        raise InputError(f"{field} {pattern!r} matches no {what}; there are {some}")
    return hits
