"""How GR00T N1.7 and OpenVLA of the published sizes are made, and an observation for each."""

from collections.abc import Callable

import torch

from vla_ros.nn.llama import TextSize
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.groot.model import Groot
from vla_ros.policies.groot.sizes import PUBLISHED, vlm_fields
from vla_ros.policies.openvla.config import LLAMA, OpenVLAConfig, TowerSize
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.policies.policy import Batch, Policy

Subject = tuple[Callable[[], Policy], Batch]
WORDS = 20  # of a prompt, in tokens

GROOT_HEAD = {  # of the published 3B
    "text_layers": 16, "max_state_dim": 132, "max_action_dim": 132, "chunk_size": 40, "dit_layers": 32, "vl_layers": 4,
    "image_size": (256, 256), "image_path": "square",
}  # fmt: skip
_SMALL_GROOT = {
    "vision": {"hidden": 32, "depth": 2, "heads": 2, "mlp": 64, "patch": 4, "grid": 6, "deepstack": (0,)},
    "text": {"width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp": 128, "vocabulary": 300, "head_norm": True},
    "mrope": (4, 2, 2), "text_layers": 2, "feature_dim": 64, "vl_layers": 1, "vl_heads": 1, "hidden": 32, "width": 48,
    "dit_layers": 4, "dit_heads": 1, "chunk_size": 8, "max_seq_len": 16, "image_size": (32, 32), "image_path": "square",
    "image_token": 299,
}  # fmt: skip


def groot(size: str, cameras: int) -> Subject:
    """N1.7, "full" or "tiny"."""
    fields = _SMALL_GROOT if size == "tiny" else vlm_fields("n1.7", PUBLISHED["n1.7"], "GR00T N1.7") | GROOT_HEAD
    names = [f"camera_{index}" for index in range(cameras)]
    robot = {"generation": "n1.7", "cameras": names, "state_dim": 6, "real_action_dim": 6}
    config = GrootConfig.from_dict(robot | fields)
    rows, columns = config.image_size
    seen = cameras * (rows // (2 * config.vision.patch)) * (columns // (2 * config.vision.patch))
    tokens = torch.randint(0, config.image_token, (1, seen + WORDS), generator=torch.Generator().manual_seed(1))
    tokens[:, :seen] = config.image_token
    return lambda: Groot(config), {
        "images": _images(1, cameras, rows, columns), "tokens": tokens, "token_mask": torch.ones_like(tokens).bool(),
        "positions": torch.arange(tokens.shape[1]).expand(1, 3, -1).contiguous(),
        "state": torch.zeros(1, len(config.state_steps), config.max_state_dim),
        "embodiment": torch.zeros(1, dtype=torch.int64),
    }  # fmt: skip


def openvla(size: str, cameras: int) -> Subject:
    """OpenVLA 7B, which writes seven tokens, or a "tiny" one."""
    small = size == "tiny"
    text = TextSize(
        width=LLAMA["hidden_size"], heads=LLAMA["num_attention_heads"], kv_heads=LLAMA["num_attention_heads"],
        head_dim=128, mlp=LLAMA["intermediate_size"], vocabulary=32_064, epsilon=LLAMA["rms_norm_eps"],
    )  # fmt: skip
    names = tuple(f"camera_{index}" for index in range(cameras))
    if small:
        text = TextSize(width=32, heads=2, kv_heads=2, head_dim=16, mlp=64, vocabulary=400)
        dino = TowerSize(hidden=16, depth=2, heads=2, mlp=32, patch=8, image=32, prefix=5, layer_scale=True)
        siglip, more = TowerSize(hidden=24, depth=2, heads=2, mlp=48, patch=8, image=32), {
            "layers": 2, "action_end": 400, "blank": 5,
        }  # fmt: skip
    else:
        dino = TowerSize(hidden=1024, depth=24, heads=16, mlp=4096, patch=14, image=224, prefix=5, layer_scale=True)
        siglip, more = TowerSize(hidden=1152, depth=27, heads=16, mlp=4304, patch=14, image=224), {}
    config = OpenVLAConfig(action_dim=7, cameras=names, siglip=siglip, dino=dino, text=text, **more)
    tokens = torch.randint(0, config.text.vocabulary, (1, WORDS), generator=torch.Generator().manual_seed(1))
    side = config.siglip.image
    return lambda: OpenVLA(config), {
        "images": _images(1, cameras, side, side), "tokens": tokens, "token_mask": torch.ones_like(tokens).bool(),
    }  # fmt: skip


def _images(*shape: int) -> torch.Tensor:
    """(rows, cameras, 3, height, width) uint8."""
    rows, cameras, height, width = shape
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (rows, cameras, 3, height, width), dtype=torch.uint8, generator=generator)
