"""Names of parts. Register your own by `HEADS["my_head"] = MyHead`, by the decorator `@HEADS.register("my_head")`,
or by an entry point of the group `vla_ros.parts.heads` in your package."""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from vla_ros.core import plugins
from vla_ros.core.errors import InputError, shown
from vla_ros.policies.parts.kinds import Encoder, Fusion, Head, Language, Part, Projector, Temporal, Vision
from vla_ros.policies.parts.presets import LANGUAGE_SIZES, TOWER_SIZES

P = TypeVar("P", bound=type[Part])


class Registry:
    """Names of one kind of part -> classes; built-in ones are imported on first use. No Mapping: who walks records (a
    comparison, a digest, graphs.json) would import every part that is installed.

    Args:
        kind: for messages, "head".
        base: class from which each derives.
        built_in: name -> "module:class" below `vla_ros.policies.parts`.
        presets: names of published parts -> a name and fields of its size.
    """

    def __init__(
        self, kind: str, base: type[Part], built_in: Mapping[str, str],
        presets: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.kind, self.base, self.presets = kind, base, dict(presets or {})
        self.group = f"vla_ros.parts.{kind.split()[0]}s"
        self._built_in = {
            name: EntryPoint(name, f"vla_ros.policies.parts.{where}", self.group) for name, where in built_in.items()
        }
        self._own: dict[str, type[Part]] = {}

    def __getitem__(self, name: str) -> type[Part]:
        """Raises InputError that lists the known names."""
        if isinstance(name, str) and name in self._own:
            return self._own[name]
        points = _installed(self.group, tuple(sys.path)) | self._built_in
        if not isinstance(name, str) or name not in points:
            raise InputError(f"{self.kind} {shown(name)}, expected one of {sorted({*self, *self.presets})}, or one of "
                             f"your own by an entry point of the group {self.group}")
        return self._checked(name, plugins.loaded(points[name], self.kind))

    def __setitem__(self, name: str, part: type[Part]) -> None:
        """Raises InputError for a name that exists, and for a class that is not such a part."""
        if not isinstance(name, str) or not name:
            raise InputError(f"{self.kind} {shown(name)}, expected a name")
        if name in self or name in self.presets:
            raise InputError(f"{self.kind} {name!r} is there already, expected another name")
        self._own[name] = self._checked(name, part)

    def register(self, name: str) -> Callable[[P], P]:
        """A class decorator: `@HEADS.register("my_head")`."""

        def decorate(part: P) -> P:
            self[name] = part
            return part

        return decorate

    def __iter__(self) -> Iterator[str]:
        return iter({**self._built_in, **_installed(self.group, tuple(sys.path)), **self._own})

    def __deepcopy__(self, memo: Any) -> "Registry":
        return self  # policies are copied, including the choices in their configurations

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return any(name == known for known in self)

    def _checked(self, name: str, part: Any) -> type[Part]:
        if not (isinstance(part, type) and issubclass(part, self.base)):
            raise InputError(f"{self.kind} {name!r}: {shown(part)}, expected a class derived from {self.base.__name__}")
        return part


@cache
def _installed(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


VISION = Registry("vision tower", Vision, {
    "siglip": "towers:SiglipTower", "clip": "towers:ClipTower", "dinov2": "towers:Dinov2Tower",
    "keypoint_stem": "stems:StemTower", "resnet": "stems:ResNetTower",
}, TOWER_SIZES)
PROJECTORS = Registry("projector", Projector, {
    "linear": "projectors:LinearProjector", "mlp": "projectors:MlpProjector",
    "attention": "projectors:AttentionProjector", "perceiver": "projectors:PerceiverProjector",
    "resampler": "projectors:ResamplerProjector",
})
LANGUAGES = Registry("language model", Language, {
    "qwen2": "language:Qwen2", "llama": "language:Llama", "phi3": "language:Phi3",
}, LANGUAGE_SIZES)
HEADS = Registry("head", Head, {
    "mlp": "heads:MlpHead", "gaussian": "heads:GaussianHead", "discrete": "heads:DiscreteHead",
    "diffusion": "denoising:DiffusionHead", "flow": "denoising:FlowHead",
    "transformer": "autoregressive:TransformerHead", "gpt_actions": "autoregressive:GptActionsHead",
    "lstm": "windows:LstmHead", "gpt": "windows:GptHead", "fc": "windows:FcHead",
})
ENCODERS = Registry("encoder", Encoder, {
    "points": "points:PointCloudEncoder", "pointnet": "points:PointNetEncoder",
    "pointnet2": "abstraction:SetEncoder", "point_transformer": "points:PointTransformerEncoder",
    "radar_points": "points:RadarPointEncoder", "voxel": "voxels:VoxelEncoder", "bev": "voxels:BirdsEyeEncoder",
    "polar": "sectors:PolarEncoder",
    "depth": "grids:GridEncoder", "depth_transformer": "grids:DepthTransformerEncoder",
    "depth_multiscale": "grids:MultiScaleEncoder", "rgbd": "grids:RgbdEncoder", "radar": "grids:GridEncoder",
    "range_doppler": "grids:RangeDopplerEncoder",
    "imu": "series:SeriesEncoder", "imu_conv": "series:ConvSeriesEncoder", "imu_lstm": "series:LstmSeriesEncoder",
    "imu_multimodal": "series:MultimodalSeriesEncoder",
    "numbers": "series:NumbersEncoder",
})
FUSIONS = Registry("fusion", Fusion, {
    "concat": "fusion:ConcatFusion", "cross_modal": "fusion:CrossModalFusion",
    "hierarchical": "fusion:HierarchicalFusion", "gated": "fusion:GatedFusion",
})
TEMPORALS = Registry("temporal part", Temporal, {
    "transformer": "temporal:TransformerTemporal", "lstm": "temporal:LstmTemporal", "working": "temporal:WorkingMemory",
    "episodic": "episodic:EpisodicMemory",
})
REGISTRIES = {
    "vision": VISION, "projector": PROJECTORS, "language": LANGUAGES, "head": HEADS, "encoder": ENCODERS,
    "fusion": FUSIONS, "temporal": TEMPORALS,
}
