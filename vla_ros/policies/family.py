"""A policy family as one value, and what is done alike for all of them: load, describe, save, build."""

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
    """A policy with all that is needed to serve, train or save it.

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
        recognise: whether a config.json is of this form.
        read: (family, path, options) -> sizes and the other parts. Raises InputError.
        rename: (sizes, keys of the file) -> a function from each key to the module's, or why it is not used.
        optional: keys of the module that a file may lack, since they follow from the sizes.
        overrides: names that a policy file may set for this form alone.
        export: (policy, processor) -> what a folder of this form holds, where we write such. Raises InputError.
        tensors: path -> the folder's tensors, where they are not in safetensors files alone.
    """

    recognise: Callable[[Mapping[str, Any]], bool]
    read: Callable[["Family", Path, LoadOptions], tuple[Any, Parts]]
    rename: Callable[[Any, Collection[str]], Rename]
    optional: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    export: Callable[[Policy, StandardProcessor], lerobot_writer.Form] | None = None
    tensors: Callable[[Path], TensorFolder] | None = None

    def open(self, path: Path, base: Path | None) -> tuple[TensorFolder, Adapter | None]:
        """The folder's tensors, or those of its base and the adapter that it is. Raises InputError."""
        if self.tensors is None or base is not None or is_adapter(path):
            return open_tensors(path, base)
        return self.tensors(path), None

    def names(self, sizes: Any, keys: Collection[str]) -> Rename:
        """`rename`, also for the statistics that old folders keep among the weights and for names of torch.compile."""
        statistic = Unused("statistics of an old folder; the processor has them")
        rename = self.rename(sizes, [plain_name(key) for key in keys])
        return lambda key: statistic if is_statistic(key) else rename(plain_name(key))


@dataclass(frozen=True)
class Family:
    """What a family declares; an entry point names such a value.

    Attributes:
        name: as `family` of a training config and of config.json says it.
        config: frozen dataclass of the sizes. Asked for are `horizon`, `action_dim`, `n_obs_steps`, `cameras` and
            `image_size`; and, where there are such, `state_dim`, `past` (rows before the newest observation), `pads`
            (states and actions are padded), `needs_every_camera` (False: an absent one can be left out),
            `own_dims` (the field that says how many of the D dimensions are the robot's own, which the loss covers),
            `tokenizer_of` (whose tokenizer it needs), `unserved` (why no robot can follow it), `spatial` (why a tool
            alone can), `summary()` (rows for `vla-ros info`), `image_title` (for it too: how images come to their size,
            where `fit` does not say), `plain_statistics(feature, dimensions, statistics)` (both as (D,) rows, where
            statistics are kept otherwise), `from_dict(values, where)` and `to_dict()` (more than `records.record`),
            `check_file_of_statistics(file)` (raises InputError where none can be given),
            `from_lerobot(folder, options)` (see `lerobot`).
        policy: sizes -> the network with fresh weights.
        processor: a `StandardProcessor`.
        title: shown to users.
        layouts: published forms of its checkpoint folders by name, besides our own.
        fit: how a fresh policy's images get their size, a key of `images.FITS`.
        normalisation: of a fresh policy, a key of `normalisation.MODES`.
        defaults: fields of the sizes that fresh policies have otherwise than published ones.
        overrides: fields of the sizes that a policy file may set: what no weight depends on.
        fresh: (values of the training config, data) -> fields of the sizes that the data decide, and the tokenizer;
            None for action_dim, state_dim and cameras, and the vocabulary where the config says `language: true`.
        begin: (policy, tokenizer, data), what fresh weights need besides chance.
        tokens: (path, options, the prompt's tokenizer) -> a tokenizer that knows more than text. Raises InputError
            where what it needs is not there.
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
        """The layout of such a folder, None if it is another family's."""
        if config.get("family") == self.name:
            return OWN
        return next((name for name, layout in self.layouts.items() if layout.recognise(config)), None)

    def load(self, path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
        """The policy with its weights. Raises InputError, for tensors with every missing, extra and misshapen key."""
        sizes, parts, processor = self._all_but_weights(path, layout, options)
        policy, weights = self._empty(sizes), self._weights(path, layout, sizes, options.base)
        _set_image_statistics(policy, _pictures(sizes), parts.images, parts.fit, path)
        load_weights(policy, *weights, options.device, options.dtype or torch.float32)
        return LoadedPolicy(self.name, policy.eval(), processor, layout)

    def describe(self, path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
        """What `vla-ros info` prints: title -> value, of weights no more than the names, shapes and types. Where `load`
        would refuse these, `REFUSED` says so in its words. Raises InputError."""
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
        """What `load` gives as the processor, without the weights. Raises InputError."""
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
        """Write a folder in our own layout that serves as it is; complete or absent."""
        sizes = loaded.policy.config
        rows = sizes.to_dict() if hasattr(sizes, "to_dict") else asdict(sizes)
        own.write(path, self.name, rows, loaded.policy, loaded.processor, _image_statistics(loaded.policy))

    def export(self, path: Path, loaded: LoadedPolicy, layout: str) -> tuple[str, ...]:
        """Write a folder of a published form, complete or absent; what a user should know. Raises InputError."""
        form = self.layouts.get(layout)
        if form is None or form.export is None:
            able = [name for name, each in self.layouts.items() if each.export]
            raise InputError(f"export: {self.title or self.name} to {layout!r}, expected one of {able or 'none'}")
        said = form.export(loaded.policy, loaded.processor)
        return lerobot_writer.write(path, said, loaded.processor, _image_statistics(loaded.policy))

    def build(self, config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
        """A policy with fresh weights in the dataset's own units and order.

        Args:
            config: fields of the sizes that the data do not decide; `normalisation`: a key of `normalisation.MODES`.

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
        if self.begin:
            self.begin(policy, tokenizer, data)
        processor = self._processor("policy", sizes, parts)
        return LoadedPolicy(self.name, policy, processor.with_statistics(data) if data.path else processor)

    def sizes(self, values: Mapping[str, Any], where: str) -> Any:
        """An instance of `config`. Raises InputError that names the field."""
        read = getattr(self.config, "from_dict", None) or partial(record, self.config)
        return read(values, where)

    def parameters(self, sizes: Any) -> int:
        """How many parameters such a network has; nothing is allocated."""
        return _count(self._empty(sizes))

    def open(self, path: Path, layout: str, options: LoadOptions) -> tuple[Any, Parts]:
        """Everything of a folder but its weights, with the options' overrides applied. Raises InputError."""
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
        """The network without numbers."""
        with without_numbers():
            return self.policy(sizes)

    def _weights(
        self, path: Path, layout: str, sizes: Any, base: Path | None
    ) -> tuple[TensorFolder, str, Rename, tuple[str, ...]]:
        """What `load_weights` and `check_weights` take besides the network. Raises InputError."""
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
        fit: how LeRobot fits images to their size, or a function that says it of a folder, with a note why.
    """

    def read(family: Family, path: Path, options: LoadOptions) -> tuple[Any, Parts]:
        folder = read_folder(path, read_config(path))
        sizes = family.config.from_lerobot(folder, options)
        chosen, note = (fit, "") if isinstance(fit, str) else fit(folder, options)
        parts = lerobot_parts(folder, sizes.cameras, options, chosen)
        rtc = read_guidance(folder)[1] if hasattr(sizes, "guidance") else ""
        parts = replace(parts, notes=(*parts.notes, *filter(None, (note, rtc))))
        widths = len(parts.embodiment.state), len(parts.embodiment.actions)
        if widths != (folder.state_dim, folder.action_dim):  # a base checkpoint on a robot of fewer joints
            sizes = family.config.from_lerobot(folder.of_widths(*widths), options)
        return sizes, parts

    return Layout(lambda config: config.get("type") in types, read, rename, optional, overrides, export)


def _check_units(where: str, sizes: Any, embodiment: Embodiment, parts: Parts, options: LoadOptions) -> None:
    """Raises InputError if the statistics of state or actions cannot be of joints in rad or m, as they are told."""
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
    """Put mean and std of each image into the policy's buffers. Raises InputError if it has none and needs them."""
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
