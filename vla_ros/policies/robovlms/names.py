"""Names of RoboVLMs' tensors in published files, which begin with "model."."""

from collections.abc import Collection

from vla_ros.policies.formats.weights import Rename, Unused, renamed
from vla_ros.policies.robovlms.config import BACKBONES, RoboVLMConfig

TIED = Unused("the same as the embeddings of the words")
_HEAD, _RESAMPLER = r"(?:act_head|lm_head)\.", r"vision_resampler\."
_BLOCK, _READER = _HEAD + r"gpt\.h\.(\d+)\.", _RESAMPLER + r"layers\.(\d+)\."
RULES = (
    (r"embed_(?:arm_state|gripper_state|state)\..*", Unused("no state is read, as published")),
    (_HEAD + r"rnn\.(.*)", r"head.body.\1"),
    (_HEAD + r"actions\.mlp\.(.*)", r"head.pose.\1"),
    (_HEAD + r"gripper\.mlp\.(.*)", r"head.gripper.\1"),
    (_HEAD + r"mlp\.(.*)", r"head.body.\1"),
    (_BLOCK + r"attn\.(?:bias|masked_bias)", Unused("the mask is computed")),
    (_BLOCK + r"ln_(\d)\.(.*)", r"head.body.layers.\1.norm\2.\3"),
    *((_BLOCK + theirs + r"\.(.*)", rf"head.body.layers.\1.{ours}.\2") for theirs, ours in (
        (r"attn\.c_attn", "qkv"), (r"attn\.c_proj", "out"), (r"mlp\.c_fc", "up"), (r"mlp\.c_proj", "down"))),
    (_HEAD + r"gpt\.ln_f\.(.*)", r"head.body.norm.\1"),
    (_HEAD + r"gpt\.wpe\.weight", "head.body.places"),
    (_HEAD + r"fc\.(.*)", r"head.body.first.\1"),
    (_READER + r"0\.norm_media\.(.*)", r"vision_resampler.layers.\1.media_norm.\2"),
    (_READER + r"0\.norm_latents\.(.*)", r"vision_resampler.layers.\1.latent_norm.\2"),
    *((_READER + theirs + r"\.(.*)", rf"vision_resampler.layers.\1.{ours}.\2") for theirs, ours in (
        (r"0\.to_q", "query"), (r"0\.to_kv", "key_value"), (r"0\.to_out", "out"), (r"1\.0", "mlp_norm"),
        (r"1\.1", "up"), (r"1\.3", "down"))),
)  # fmt: skip


def rename(config: RoboVLMConfig, keys: Collection[str]) -> Rename:
    """From a published file's keys to the module's. Of the two names of the word embedding, the first that exists is
    read."""
    rules = (*BACKBONES[config.kind].rules(config.backbone), *RULES)

    def name(key: str) -> str:
        return renamed(key.removeprefix("model."), rules)

    words = sorted(key for key in keys if name(key) == "backbone.embedding.weight")
    return lambda key: TIED if key in words[1:] else name(key)
