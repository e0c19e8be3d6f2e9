"""The same π0 in other people's code, with random weights of the same shapes."""

from collections.abc import Callable

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.base import Batch
from vla_ros.policies.pi0.config import Pi0Config


def transformers_pi0(
    config: Pi0Config, batch: Batch, device: torch.device, dtype: torch.dtype, num_steps: int
) -> Callable[[], Tensor]:
    """A call of `sample_actions` of transformers' π0 on the batch. Raises InputError where it cannot be built."""
    if config.adaptive:
        raise InputError("transformers has no π0.5")
    if not isinstance(config.vision, SiglipSize):
        raise InputError("transformers' π0 has no such vision tower")
    try:
        from transformers import PI0Config, PI0ForConditionalGeneration
    except ImportError as error:
        raise InputError(f"transformers without π0: {error}") from None
    vision, prefix, expert = config.vision, config.prefix, config.expert
    image_token = config.vocabulary

    def gemma(size, **more):
        return {
            "model_type": "gemma", "hidden_size": size.width, "num_hidden_layers": size.depth,
            "intermediate_size": size.mlp, "num_attention_heads": size.heads, "num_key_value_heads": size.kv_heads,
            "head_dim": size.head_dim, "vocab_size": config.vocabulary, **more,
        }  # fmt: skip

    vlm = {
        "model_type": "paligemma",
        "text_config": gemma(prefix),
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": vision.hidden, "intermediate_size": vision.mlp,
            "num_hidden_layers": vision.depth, "num_attention_heads": vision.heads, "patch_size": vision.patch,
            "image_size": vision.image, "vision_use_head": False,
        },
        "projection_dim": prefix.width,
        "image_token_id": image_token,
    }  # fmt: skip
    whole = PI0Config(
        vlm_config=vlm, dit_config=gemma(expert), chunk_size=config.horizon,
        max_state_dim=config.state_dim, max_action_dim=config.action_dim, num_inference_steps=num_steps,
    )  # fmt: skip
    with torch.device("meta"):
        model = PI0ForConditionalGeneration(whole)
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.02
            parameter.normal_(std=scale, generator=generator)
        for name, buffer in model.named_buffers():
            _fill_buffer(name, buffer, whole)
    cameras, tokens = len(config.cameras), batch["tokens"].to(device)
    patches = (vision.image // vision.patch) ** 2
    ids = torch.cat([torch.full((1, cameras * patches), image_token, device=device), tokens], dim=1)
    inputs = {
        "state": batch["state"].to(device, dtype),
        "input_ids": ids,
        "pixel_values": (batch["images"].to(device).to(dtype) / 127.5 - 1),
        "pixel_attention_mask": batch["image_mask"].to(device),
        "attention_mask": torch.ones_like(ids),
        "noise": torch.zeros(1, config.horizon, config.action_dim, device=device, dtype=dtype),
        "num_steps": num_steps,
    }
    return lambda: model.sample_actions(**inputs).float()


def _fill_buffer(name: str, buffer: Tensor, config) -> None:
    """Values that the constructor would have computed, had the model not been made without memory."""
    if name.endswith("position_ids"):
        buffer.copy_(torch.arange(buffer.shape[-1], device=buffer.device).expand_as(buffer))
    elif name.endswith("inv_freq"):
        size = 2 * buffer.numel()
        powers = torch.arange(0, size, 2, device=buffer.device, dtype=torch.float32) / size
        buffer.copy_(10_000.0**-powers)
    elif name.endswith("embed_scale"):
        width = config.vlm_config.text_config.hidden_size if "vlm" in name else config.dit_config.hidden_size
        buffer.fill_(width**0.5)
    elif "sinusoid" in name or "period" in name or "freq" in name:
        buffer.copy_(torch.linspace(0.0, 1.0, buffer.numel(), device=buffer.device).view_as(buffer))
    else:
        buffer.zero_()
