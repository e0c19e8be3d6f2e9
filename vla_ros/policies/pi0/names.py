"""Names of published π0 weights and where they go.

Three published layouts hold the same tensors under other names. `RENAMES` brings every name to openpi's, `TABLE` says
which of our parameters (or which rows of a fused one) an openpi tensor is, `unused` says what is not needed and why.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from vla_ros.core.errors import InputError
from vla_ros.nn.meta import without_numbers
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.lerobot import is_statistic
from vla_ros.policies.formats.weights import Shape, TensorFolder, Tensors, check_keys
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.model import Pi0

P = "paligemma_with_expert.paligemma.model"
X = "paligemma_with_expert.gemma_expert.model"
EMBEDDING = f"{P}.language_model.embed_tokens.weight"
HEAD = "paligemma_with_expert.paligemma.lm_head.weight"

# Applied to every key in this order. The replacement may use the groups of the pattern.
RENAMES: tuple[tuple[str, str, str], ...] = (
    # who writes it so, pattern, replacement
    ("LeRobot", r"model\.(?=paligemma_with_expert|action_|state_proj|time_mlp)", ""),
    ("LeRobot until 0.3", r"paligemma_with_expert\.paligemma\.language_model\.model\.", f"{P}.language_model."),
    ("LeRobot until 0.3", r"paligemma_with_expert\.paligemma\.language_model\.lm_head\.", HEAD.removesuffix("weight")),
    ("LeRobot until 0.3", r"paligemma_with_expert\.paligemma\.(vision_tower|multi_modal_projector)\.", rf"{P}.\1."),
    ("transformers, in memory", r"model\.vlm\.", f"{P}."),
    ("transformers, in memory", r"model\.dit\.", f"{X}."),
    ("transformers, in memory", r"embed_action_time\.", ""),
    ("transformers, saved", rf"{re.escape(P)}\.language_model\.model\.", f"{P}.language_model."),
    ("transformers from 5.6", rf"{re.escape(P)}\.vision_tower\.(?!vision_model\.)", f"{P}.vision_tower.vision_model."),
)
# The time MLP has two names; which one a file uses does not say which model it is (rule of openpi's loader).
TIME_MLP = {False: ("time_mlp_", "action_time_mlp_"), True: ("action_time_mlp_", "time_mlp_")}  # by `adaptive`

_VISION = f"{P}.vision_tower.vision_model"
_TOWER = "image_tokens.tower"
# openpi's name: our name. {v}: vision layers, {g}: Gemma layers, *: weight and bias, [n]: n-th block of rows.
TABLE = {
    f"{_VISION}.embeddings.patch_embedding.*": f"{_TOWER}.patches.*",
    f"{_VISION}.embeddings.position_embedding.weight": f"{_TOWER}.positions",
    f"{_VISION}.encoder.layers.{{v}}.layer_norm1.*": f"{_TOWER}.layers.{{v}}.norm1.*",
    f"{_VISION}.encoder.layers.{{v}}.self_attn.q_proj.*": f"{_TOWER}.layers.{{v}}.qkv.*[0]",
    f"{_VISION}.encoder.layers.{{v}}.self_attn.k_proj.*": f"{_TOWER}.layers.{{v}}.qkv.*[1]",
    f"{_VISION}.encoder.layers.{{v}}.self_attn.v_proj.*": f"{_TOWER}.layers.{{v}}.qkv.*[2]",
    f"{_VISION}.encoder.layers.{{v}}.self_attn.out_proj.*": f"{_TOWER}.layers.{{v}}.out.*",
    f"{_VISION}.encoder.layers.{{v}}.layer_norm2.*": f"{_TOWER}.layers.{{v}}.norm2.*",
    f"{_VISION}.encoder.layers.{{v}}.mlp.fc1.*": f"{_TOWER}.layers.{{v}}.fc1.*",
    f"{_VISION}.encoder.layers.{{v}}.mlp.fc2.*": f"{_TOWER}.layers.{{v}}.fc2.*",
    f"{_VISION}.post_layernorm.*": f"{_TOWER}.norm.*",
    f"{P}.multi_modal_projector.linear.*": "image_tokens.projector.*",
    EMBEDDING: "embedding.weight",
    "state_proj.*": "state_in.*",
    "action_in_proj.*": "action_in.*",
    "action_time_mlp_in.*": "time_in.*",
    "action_time_mlp_out.*": "time_out.*",
    "time_mlp_in.*": "time_in.*",
    "time_mlp_out.*": "time_out.*",
    "action_out_proj.*": "action_out.*",
}
for _theirs, _ours in ((f"{P}.language_model", "prefix"), (X, "expert")):
    TABLE |= {
        f"{_theirs}.layers.{{g}}.input_layernorm.weight": f"{_ours}.layers.{{g}}.input_norm.weight",
        f"{_theirs}.layers.{{g}}.input_layernorm.dense.*": f"{_ours}.layers.{{g}}.input_norm.dense.*",
        f"{_theirs}.layers.{{g}}.self_attn.q_proj.weight": f"{_ours}.layers.{{g}}.qkv.weight[0]",
        f"{_theirs}.layers.{{g}}.self_attn.k_proj.weight": f"{_ours}.layers.{{g}}.qkv.weight[1]",
        f"{_theirs}.layers.{{g}}.self_attn.v_proj.weight": f"{_ours}.layers.{{g}}.qkv.weight[2]",
        f"{_theirs}.layers.{{g}}.self_attn.o_proj.weight": f"{_ours}.layers.{{g}}.out.weight",
        f"{_theirs}.layers.{{g}}.post_attention_layernorm.weight": f"{_ours}.layers.{{g}}.post_norm.weight",
        f"{_theirs}.layers.{{g}}.post_attention_layernorm.dense.*": f"{_ours}.layers.{{g}}.post_norm.dense.*",
        f"{_theirs}.layers.{{g}}.mlp.gate_proj.weight": f"{_ours}.layers.{{g}}.gate_up.weight[0]",
        f"{_theirs}.layers.{{g}}.mlp.up_proj.weight": f"{_ours}.layers.{{g}}.gate_up.weight[1]",
        f"{_theirs}.layers.{{g}}.mlp.down_proj.weight": f"{_ours}.layers.{{g}}.down.weight",
        f"{_theirs}.norm.weight": f"{_ours}.norm.weight",
        f"{_theirs}.norm.dense.*": f"{_ours}.norm.dense.*",
    }


@dataclass(frozen=True)
class Place:
    """Where a tensor goes: a parameter of `Pi0`, and its rows where several tensors make up one parameter."""

    name: str
    rows: slice | None = None


def openpi_name(key: str) -> str:
    """The name that openpi gives to a tensor of any published layout."""
    for _, pattern, replacement in RENAMES:
        key = re.sub(f"^{pattern}", replacement, key)
    return key


def unused(name: str, adaptive: bool, names: Mapping[str, str]) -> str | None:
    """Why a tensor (openpi's name) is not needed; None when it is.

    Args:
        names: all openpi names of the file.
    """
    if is_statistic(name):
        return "normalisation statistics of an old LeRobot folder; the processor has them"
    if name in ("paligemma_with_expert.gemma_expert.lm_head.weight", f"{X}.embed_tokens.weight"):
        return "the expert writes no text"
    if name == HEAD and EMBEDDING in names:
        return "the policy writes no text"
    if adaptive and name.startswith("state_proj."):
        return "π0.5 reads the state in the prompt"
    if adaptive and re.fullmatch(rf"{re.escape(X)}\.(.*layernorm|norm)\.weight", name):
        return "π0.5's expert has adaptive norms"
    return None


def sort_keys(shapes: Mapping[str, Shape], adaptive: bool, where: str) -> tuple[dict[str, str], dict[str, str]]:
    """Keys of a published file: openpi's name -> key in the file of those needed, and key -> reason of the others."""
    names: dict[str, str] = {}
    for key in shapes:
        name = openpi_name(key)
        wrong, right = TIME_MLP[adaptive]
        if name.startswith(wrong):
            name = right + name.removeprefix(wrong)
        if name in names:
            raise InputError(f"checkpoint {where}: {names[name]} and {key} both stand for {name}")
        names[name] = key
    left = {names[name]: reason for name in names if (reason := unused(name, adaptive, names))}
    needed = {name: key for name, key in names.items() if key not in left}
    if EMBEDDING not in needed and HEAD in needed:  # tied: openpi's files hold the head alone
        needed[EMBEDDING] = needed.pop(HEAD)
    return needed, left


def places(config: Pi0Config) -> dict[str, tuple[Place, Shape]]:
    """Every tensor that a published file of this configuration must hold: openpi's name -> its place and shape."""
    with without_numbers():
        ours = {name: tuple(tensor.shape) for name, tensor in Pi0(config).state_dict().items()}
    result = {}
    wrong = TIME_MLP[config.adaptive][0]
    for theirs, own in TABLE.items():
        for name, target in _expand(theirs, own, config):
            parameter, _, block = target.partition("[")
            if parameter not in ours or name.startswith(wrong):
                continue
            shape, rows = ours[parameter], None
            if block:
                sizes = _blocks(parameter, config)
                index = int(block[0])
                rows = slice(sum(sizes[:index]), sum(sizes[: index + 1]))
                shape = (sizes[index], *shape[1:])
            result[name] = (Place(parameter, rows), shape)
    return result


def load_published(policy: Pi0, tensors: Tensors, where: str, device: torch.device, dtype: torch.dtype) -> None:
    """Fill a policy built on the meta device from a file of any published layout.

    Raises InputError that lists every missing, extra and misshapen tensor, before anything is read.
    """
    wanted = places(policy.config)
    needed, _ = sort_keys(tensors.shapes, policy.config.adaptive, where)
    check_keys(
        {name: shape for name, (_, shape) in wanted.items()},
        {name: tensors.shapes[key] for name, key in needed.items()},
        where,
    )
    sources = {key: wanted[name][0] for name, key in needed.items()}
    assign(policy, tensors, sources, device, dtype)


def load_own(policy: Pi0, tensors: Tensors, where: str, device: torch.device, dtype: torch.dtype) -> None:
    """Fill a policy built on the meta device from a file with our own names. Raises InputError as above."""
    wanted = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
    check_keys(wanted, tensors.shapes, where)
    assign(policy, tensors, {key: Place(key) for key in wanted}, device, dtype)


def assign(
    policy: nn.Module, tensors: Tensors, sources: Mapping[str, Place], device: torch.device, dtype: torch.dtype
) -> None:
    """Read tensor after tensor straight into its place on the device, in its final type.

    At any time the host holds what is loaded and a small part of the file more; a GPU's host only the latter.
    """
    shapes = {name: tensor.shape for name, tensor in policy.state_dict().items()}
    for key, place in sources.items():
        module, _, leaf = place.name.rpartition(".")
        owner = policy.get_submodule(module)
        parameter = getattr(owner, leaf)
        if parameter.is_meta and device.type != "meta":
            empty = torch.empty(shapes[place.name], device=device, dtype=stored_dtype(place.name, dtype))
            parameter = nn.Parameter(empty, requires_grad=parameter.requires_grad)
            setattr(owner, leaf, parameter)
        target = parameter.data if place.rows is None else parameter.data[place.rows]
        if isinstance(tensors, TensorFolder):
            for rows, piece in tensors.pieces(key):
                target[rows].copy_(piece)
        else:
            target.copy_(tensors.read(key))


def stored_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """The type of a parameter when the matrices are of `dtype`: norms, image patches and the small projections of
    state, actions and time stay float32 (as openpi keeps them), and so does the keypoint stem."""
    matrix = re.fullmatch(
        r"embedding\.weight|image_tokens\.projector\.\w+|image_tokens\.tower\.layers\.\d+\.(qkv|out|fc1|fc2)\.\w+|"
        r"(prefix|expert)\.layers\.\d+\.(qkv|out|gate_up|down)\.weight",
        name,
    )
    return dtype if matrix else torch.float32


def _expand(theirs: str, own: str, config: Pi0Config) -> list[tuple[str, str]]:
    """All pairs of names that a line of TABLE stands for."""
    pairs = [(theirs, own)]
    depths = {"{v}": getattr(config.vision, "depth", 0), "{g}": config.prefix.depth}
    for mark, depth in depths.items():
        if mark in theirs:
            pairs = [(a.replace(mark, str(i)), b.replace(mark, str(i))) for a, b in pairs for i in range(depth)]
    if "*" in theirs:
        pairs = [(a.replace("*", leaf), b.replace("*", leaf)) for a, b in pairs for leaf in ("weight", "bias")]
    return pairs


def _blocks(parameter: str, config: Pi0Config) -> tuple[int, ...]:
    """Rows of the tensors that make up a fused parameter, in order."""
    if parameter.startswith(_TOWER):
        assert isinstance(config.vision, SiglipSize)
        return (config.vision.hidden,) * 3
    size = config.prefix if parameter.startswith("prefix.") else config.expert
    if ".gate_up." in parameter:
        return (size.mlp, size.mlp)
    return (size.heads * size.head_dim, size.kv_heads * size.head_dim, size.kv_heads * size.head_dim)
