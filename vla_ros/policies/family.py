"""A policy family as one value, and what is the same for all of them: load, describe, save, build."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import record, value_of
from vla_ros.nn.meta import without_numbers
from vla_ros.nn.words import make_vocabulary
from vla_ros.policies.dimension import UNUSED, not_rad
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.formats import lerobot_writer, own
from vla_ros.policies.formats.adapter import Adapter, check_base, is_adapter, open_tensors
from vla_ros.policies.formats.lerobot import LeRobotFolder, read_folder
from vla_ros.policies.formats.lerobot_robot import lerobot_parts
from vla_ros.policies.formats.lerobot_rtc import read_guidance
from vla_ros.policies.formats.lerobot_statistics import is_statistic
from vla_ros.policies.formats.weights import Rename, TensorFolder, Unused, check_weights, load_weights, plain_name
from vla_ros.policies.images import FITS, IMAGENET
from vla_ros.policies.normalisation import Normalisation, Statistics, widened
from vla_ros.policies.options import ACTION, STATE, LoadOptions, Parts, TrainingData, read_config
from vla_ros.policies.policy import Policy
from vla_ros.policies.processor import Processor, StandardProcessor, short_name
from vla_ros.policies.report import report, unused
from vla_ros.policies.statistics_file import check_kind, check_quantiles
from vla_ros.policies.tokenizer import Tokenizer, find_tokenizer

OWN = "vla_ros"
REFUSED = "does not load"


@dataclass
class LoadedPolicy:
    """A policy with everything that is needed to serve, train or save it.

    Attributes:
        family: registered name ("pi0", "act", ...).
        layout: where the weights came from ("vla_ros", "lerobot", "openpi", "transformers").
    """

    family: str
    policy: Policy
    processor: Processor
    layout: str = OWN


@dataclass(frozen=True)
class Layout:
    """A published form of a family's checkpoint folders.

    Attributes:
        recognise: whether a config.json has this form.
        read: (family, path, options) -> sizes and the other parts. Raises InputError.
        rename: (sizes, keys of the file) -> a function from each key to the module's, or why it is not used.
        optional: keys of the module that may be missing in a file, since they follow from the sizes.
        overrides: names that a policy file may set only for this form.
        export: (policy, processor) -> the contents of a folder of this form, if we can write one. Raises InputError.
        tensors: path -> the folder's tensors, if not all of them are in safetensors files.
    """

    recognise: Callable[[Mapping[str, Any]], bool]
    read: Callable[["Family", Path, LoadOptions], tuple[Any, Parts]]
    rename: Callable[[Any, Collection[str]], Rename]
    optional: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    export: Callable[[Policy, StandardProcessor], lerobot_writer.Form] | None = None
    tensors: Callable[[Path], TensorFolder] | None = None

    def open(self, path: Path, base: Path | None) -> tuple[TensorFolder, Adapter | None]:
        """The folder's tensors; for a LoRA adapter, those of its base with the adapter. Raises InputError."""
        if self.tensors is None or base is not None or is_adapter(path):
            return open_tensors(path, base)
        return self.tensors(path), None

    def names(self, sizes: Any, keys: Collection[str]) -> Rename:
        """`rename`, which also handles statistics that old folders store among the weights, and names of
        torch.compile."""
        statistic = Unused("statistics of an old folder; the processor has them")
        rename = self.rename(sizes, [plain_name(key) for key in keys])
        return lambda key: statistic if is_statistic(key) else rename(plain_name(key))


@dataclass(frozen=True)
class Family:
    """The declaration of a family; an entry point names such a value.

    Attributes:
        name: value of `family` in a training config and in config.json.
        config: frozen dataclass of the sizes. Required are `horizon`, `action_dim`, `n_obs_steps`, `cameras` and
            `image_size`; also used, if present: `state_dim`, `past` (rows before the newest observation), `pads`
            (states and actions are padded), `needs_every_camera` (False: an absent one is left out),
            `own_dims` (the field that says how many of the D dimensions are the robot's own, which the loss covers),
            `tokenizer_of` (whose tokenizer it needs), `unserved` (why no robot can follow it), `spatial` (why only a
            tool can), `summary()` (rows for `vla-ros info`), `image_title` (for it too: how images are resized, if
            `fit` does not say it), `plain_statistics(feature, dimensions, statistics)` (both as (D,) rows, if
            statistics are stored in another form), `from_dict(values, where)` and `to_dict()` (if `records.record` is
            not enough), `check_file_of_statistics(file)` (raises InputError if no such file can be used),
            `from_lerobot(folder, options)` (see `lerobot`).
        policy: sizes -> the network with fresh weights.
        processor: a `StandardProcessor`.
        title: shown to users.
        layouts: published forms of its checkpoint folders by name, besides our own.
        fit: how a fresh policy's images are resized, a key of `images.FITS`.
        normalisation: of a fresh policy, a key of `normalisation.MODES`.
        defaults: fields of the sizes whose defaults for fresh policies differ from the published ones.
        overrides: fields of the sizes that a policy file may set, because no weight depends on them.
        fresh: (values of the training config, data) -> fields of the sizes that depend on the data, and the tokenizer;
            None: action_dim, state_dim and cameras, and the vocabulary if the config says `language: true`.
        begin: (policy, tokenizer, data), sets up fresh weights after their random initialisation.
        tokens: (path, options, the prompt's tokenizer) -> a tokenizer that also handles other tokens than text. Raises
            InputError if a file that it needs is missing.
    """

    name: str
    config: type
    policy: Callable[[Any], Policy]
    processor: type[StandardProcessor]
    title: str = ""
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    fit: str = "pad"
    normalisation: str = "mean_std"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    fresh: Callable[[dict[str, Any], TrainingData], tuple[dict[str, Any], Tokenizer | None]] | None = None
    begin: Callable[[Policy, Tokenizer | None, TrainingData], None] | None = None
    tokens: Callable[[Path, LoadOptions, Tokenizer], Tokenizer] | None = None

    def recognise(self, path: Path, config: Mapping[str, Any]) -> str | None:
        """The layout of the folder, None if it belongs to another family."""
        if config.get("family") == self.name:
            return OWN
        return next((name for name, layout in self.layouts.items() if layout.recognise(config)), None)

    def load(self, path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
        """The policy with its weights. Raises InputError; for tensors it lists every missing, extra and misshapen
        key."""
        sizes, parts, processor = self._all_but_weights(path, layout, options)
        policy, weights = self._empty(sizes), self._weights(path, layout, sizes, options.base)
        _set_image_statistics(policy, _pictures(sizes), parts.images, parts.fit, path)
        load_weights(policy, *weights, options.device, options.dtype or torch.float32)
        return LoadedPolicy(self.name, policy.eval(), processor, layout)

    def describe(self, path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
        """What `vla-ros info` prints: title -> value. Of the weights it reads only names, shapes and types; if `load`
        would refuse them, `REFUSED` contains its message. Raises InputError."""
        sizes, parts = self.open(path, layout, options)
        processor = self._processor(f"checkpoint {path}", sizes, parts)
        policy = self._empty(sizes)
        rows = report(self.title or self.name, _count(policy), processor, parts)
        try:
            tensors, _, rename, _ = weights = self._weights(path, layout, sizes, options.base)
            if layout in self.layouts:
                rows["not used"] = unused(rename, tensors.shapes)
            check_weights(policy, *weights)
        except InputError as error:
            rows[REFUSED] = str(error)
        return rows

    def processor_of(self, path: Path, layout: str, options: LoadOptions) -> StandardProcessor:
        """The processor that `load` returns, without reading the weights. Raises InputError."""
        return self._all_but_weights(path, layout, options)[2]

    def _all_but_weights(
        self, path: Path, layout: str, options: LoadOptions
    ) -> tuple[Any, Parts, StandardProcessor]:
        sizes, parts = self.open(path, layout, options)
        missing = parts.missing
        if parts.no_statistics and not options.without_statistics:
            missing += (f"no normalisation: {parts.no_statistics}; set overrides.statistics in the policy file",)
        if missing and options.serves:
            raise InputError(f"checkpoint {path}: {'; '.join(missing)}")
        return sizes, parts, self._processor(f"checkpoint {path}", sizes, parts)

    def save(self, path: Path, loaded: LoadedPolicy) -> None:
        """Write a folder in our own layout that can be served directly; complete or absent."""
        sizes = loaded.policy.config
        rows = sizes.to_dict() if hasattr(sizes, "to_dict") else asdict(sizes)
        own.write(path, self.name, rows, loaded.policy, loaded.processor, _image_statistics(loaded.policy))

    def export(self, path: Path, loaded: LoadedPolicy, layout: str) -> tuple[str, ...]:
        """Write a folder of a published form, complete or absent; returns notes for the user. Raises InputError."""
        form = self.layouts.get(layout)
        if form is None or form.export is None:
            able = [name for name, each in self.layouts.items() if each.export]
            instead = f"one of {able}" if able else "another family: this one can be written as graphs alone"
            raise InputError(f"export: {self.title or self.name} to {layout!r}, expected {instead}")
        said = form.export(loaded.policy, loaded.processor)
        return lerobot_writer.write(path, said, loaded.processor, _image_statistics(loaded.policy))

    def build(self, config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
        """A policy with fresh weights, in the units and order of the dataset.

        Args:
            config: fields of the sizes that do not depend on the data, and `normalisation`, a key of
                `normalisation.MODES`.

        Raises InputError.
        """
        values = dict(config)
        mode = value_of(str, values.pop("normalisation", self.normalisation), "policy.normalisation")
        said, tokenizer = self.fresh(values, data) if self.fresh else (self._from_data(values, data), None)
        for name in said:
            if name in config:
                raise InputError(f"policy.{name}: {config[name]!r}; it comes from the dataset, expected no such field")
        sizes = self.sizes({**self.defaults, **values, **said}, "policy")
        if getattr(sizes, "tokenizer_of", None) and tokenizer is None:
            raise InputError(f"policy: it would read {sizes.tokenizer_of}, which fresh weights do not have")
        data.check_path()
        statistics = {feature: widened(data.statistics[feature]) for feature in (STATE, ACTION)}
        if data.path:  # they follow below from the rows
            statistics[ACTION] = {name: np.full(data.action_dim, value) for name, value in UNUSED.items()}
        parts = Parts(
            Embodiment.identity(
                data.joints, {name: name for name in data.cameras}, data.step_dt, data.hold, data.tool, data.path
            ),
            *(Normalisation(mode, statistics[feature]) for feature in (STATE, ACTION)),
            {name: IMAGENET for name in _pictures(sizes)},
            self.fit,
            tokenizer,
        )
        policy = self.policy(sizes)
        if hasattr(policy, "image_mean"):
            _set_image_statistics(policy, _pictures(sizes), parts.images, parts.fit, Path())
        processor = self._processor("policy", sizes, parts)  # which knows whether the tokenizer is the policy's
        if self.begin:
            self.begin(policy, tokenizer, data)
        return LoadedPolicy(self.name, policy, processor.with_statistics(data) if data.path else processor)

    def sizes(self, values: Mapping[str, Any], where: str) -> Any:
        """An instance of `config`. Raises InputError that names the field."""
        read = getattr(self.config, "from_dict", None) or partial(record, self.config)
        return read(values, where)

    def parameters(self, sizes: Any) -> int:
        """Number of parameters of such a network; nothing is allocated."""
        return _count(self._empty(sizes))

    def open(self, path: Path, layout: str, options: LoadOptions) -> tuple[Any, Parts]:
        """Everything of a folder except its weights, with the options' overrides applied. Raises InputError."""
        check_base(path, options.base)
        form = self.layouts.get(layout)
        known = ("statistics", *self.overrides, *(form.overrides if form else ()))
        for name in options.overrides:
            if name not in known:
                raise InputError(f"checkpoint {path}: overrides: unknown {name!r}, expected some of {sorted(known)}")
        if form:
            sizes, parts = form.read(self, path, options)
        else:
            values, parts = own.read(path, options, self.fit)
            sizes = self.sizes(values, f"checkpoint {path}: config.json: policy")
        if hasattr(sizes, "check_file_of_statistics") and "statistics" in options.overrides:
            sizes.check_file_of_statistics(str(options.overrides["statistics"]))
        hints = {f.name: f.type for f in fields(self.config)}
        sizes = replace(sizes, **{
            name: value_of(hints[name], value, f"overrides.{name}")
            for name, value in options.overrides.items() if name in self.overrides
        })
        if padded := getattr(sizes, "own_dims", None):
            sizes = replace(sizes, **{padded: len(parts.embodiment.actions)})
        full = {short_name(name): name for name in sizes.cameras}
        cameras = {full.get(name, name): camera for name, camera in parts.embodiment.cameras.items()}
        embodiment = replace(parts.embodiment, cameras=cameras)
        if options.step_dt is not None:
            embodiment = replace(embodiment, step_dt=options.step_dt)
        if options.names:
            embodiment = embodiment.in_order(options.names[1])
        if options.file_of_statistics and not options.without_statistics:
            check_kind(options.file_of_statistics, embodiment.actions)
            check_quantiles(options.file_of_statistics, {STATE: parts.state, ACTION: parts.actions})
        if options.serves and not options.without_statistics and (form or options.embodiment):
            _check_units(f"checkpoint {path}", sizes, embodiment, parts, options)
        missing = [reason] if (reason := getattr(sizes, "unserved", "")) else []
        if (reason := getattr(sizes, "spatial", "")) and embodiment.tool is None:
            missing.append(reason)
        if embodiment.step_dt is None:
            missing.append("it does not contain the time between action rows; set step_dt in the policy file")
        tokenizer = None
        if whose := getattr(sizes, "tokenizer_of", None):
            tokenizer = find_tokenizer(path, options.tokenizer, read_config(path).get("vlm_model_name"))
            if tokenizer is None:
                missing.append(f"no tokenizer in it, expected {whose}; give its folder as tokenizer")
            elif self.tokens:
                try:
                    tokenizer = self.tokens(path, options, tokenizer)
                except InputError as error:
                    tokenizer = None
                    missing.append(str(error))
        return sizes, replace(parts, embodiment=embodiment, tokenizer=tokenizer, missing=tuple(missing))

    def _empty(self, sizes: Any) -> Policy:
        """The network on the meta device."""
        with without_numbers():
            return self.policy(sizes)

    def _weights(
        self, path: Path, layout: str, sizes: Any, base: Path | None
    ) -> tuple[TensorFolder, str, Rename, tuple[str, ...]]:
        """Arguments of `load_weights` and `check_weights` besides the network. Raises InputError."""
        form = self.layouts.get(layout)
        tensors, adapter = form.open(path, base) if form else open_tensors(path, base)
        rename = form.names(sizes, tensors.shapes) if form else lambda key: key
        if adapter:
            tensors = adapter.over(tensors, rename)
        return tensors, str(path), rename, form.optional if form else ()

    def _processor(self, where: str, sizes: Any, parts: Parts) -> StandardProcessor:
        try:
            return self.processor(sizes, parts.embodiment, parts.state, parts.actions, parts.fit, parts.tokenizer)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    def _from_data(self, values: dict[str, Any], data: TrainingData) -> dict[str, Any]:
        known = {f.name for f in fields(self.config)}
        said = {"action_dim": data.action_dim, "state_dim": len(data.joints), "cameras": data.cameras}
        if "vocabulary" in known:
            said["vocabulary"] = make_vocabulary(data.instructions) if values.pop("language", False) else ()
        return {name: value for name, value in said.items() if name in known}


def _count(policy: Policy) -> int:
    return sum(parameter.numel() for parameter in policy.parameters())


def lerobot(
    *types: str, rename: Callable[[Any, Collection[str]], Rename],
    fit: str | Callable[[LeRobotFolder, LoadOptions], tuple[str, str]], optional: tuple[str, ...] = (),
    overrides: tuple[str, ...] = (), export: Callable[[Any, StandardProcessor], lerobot_writer.Form] | None = None,
) -> Layout:
    """LeRobot's folders, old and new, of these `type`s.

    Args:
        fit: how LeRobot resizes images, or a function that returns it for a folder, with a note that gives the reason.
    """

    def read(family: Family, path: Path, options: LoadOptions) -> tuple[Any, Parts]:
        folder = read_folder(path, read_config(path))
        sizes = family.config.from_lerobot(folder, options)
        chosen, note = (fit, "") if isinstance(fit, str) else fit(folder, options)
        parts = lerobot_parts(folder, sizes.cameras, options, chosen)
        rtc = read_guidance(folder)[1] if hasattr(sizes, "guidance") else ""
        parts = replace(parts, notes=(*parts.notes, *filter(None, (note, rtc))))
        widths = len(parts.embodiment.state), len(parts.embodiment.actions)
        if widths != (folder.state_dim, folder.action_dim):  # a base checkpoint on a robot with fewer joints
            sizes = family.config.from_lerobot(folder.of_widths(*widths), options)
        return sizes, parts

    return Layout(lambda config: config.get("type") in types, read, rename, optional, overrides, export)


def _check_units(where: str, sizes: Any, embodiment: Embodiment, parts: Parts, options: LoadOptions) -> None:
    """Raises InputError if the statistics of state or actions cannot be those of joints in rad or m."""
    plain = getattr(sizes, "plain_statistics", lambda feature, *same: same)
    limits = {j.name: max(-j.lower, j.upper) for j in options.robot.joints} if options.robot else {}
    for feature, dimensions, rows in (
        (STATE, embodiment.state, parts.state.statistics), (ACTION, embodiment.actions, parts.actions.statistics)
    ):
        if why := not_rad(*plain(feature, dimensions, rows), limits):
            raise InputError(f"{where}: {feature}: {why} in a policy file (see config/policies/so101_lerobot.yaml)")


def _pictures(sizes: Any) -> tuple[str, ...]:
    """Names of the rows of `image_mean` and `image_std`."""
    return getattr(sizes, "pictures", sizes.cameras)


def _set_image_statistics(
    policy: Policy, names: tuple[str, ...], images: Statistics, fit: str, path: Path
) -> None:
    """Copy mean and std of each image to the policy's buffers. Raises InputError if they are needed but missing."""
    if not hasattr(policy, "image_mean"):
        for name, rows in images.items():
            if np.any(rows.get("mean", 0) != 0) or np.any(rows.get("std", 1) != 1):
                raise InputError(f"checkpoint {path}: {name} is normalised, this family takes pixels unchanged")
        return
    if FITS[fit].dtype != np.uint8:
        raise InputError(f"checkpoint {path}: image_fit {fit!r}, this family takes whole levels; expected one of "
                         f"{[name for name, one in FITS.items() if one.dtype == np.uint8]}")
    for buffer, name in ((policy.image_mean, "mean"), (policy.image_std, "std")):
        for row, image in zip(buffer, names, strict=True):
            values = np.asarray(images.get(image, {}).get(name, ()), dtype=np.float32)
            if values.size != 3 or not np.isfinite(values).all():
                raise InputError(f"checkpoint {path}: {name} of the image {image!r}: {values.size} numbers, expected 3 "
                                 f"that are finite: {shown(values.tolist())}")
            row.copy_(torch.from_numpy(values.reshape(3, 1, 1)))


def _image_statistics(policy: Policy) -> Statistics:
    """The inverse of `_set_image_statistics`."""
    if not hasattr(policy, "image_mean"):
        return {}
    pairs = {"mean": policy.image_mean, "std": policy.image_std}
    return {
        name: {key: buffer[i].flatten().double().cpu().numpy() for key, buffer in pairs.items()}
        for i, name in enumerate(_pictures(policy.config))
    }
