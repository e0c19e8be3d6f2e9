"""Other ways to run the same policy in this process: without optimisations, and π0 in transformers' code."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vla_ros.bench.timing import Timing, draws_for, time_calls, time_session
from vla_ros.core.errors import InputError
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.images import signed
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.policy import Batch, Draws, Policy


def time_peers(
    policy: Policy, batch: Batch, device: torch.device, dtype: torch.dtype, runs: int, num_steps: int | None
) -> list[Timing]:
    """On a GPU without recorded graphs; π0 with images and text again in each step, and in transformers' code."""
    timings = []
    if device.type == "cuda":
        timings.append(time_session(policy, batch, device, runs, num_steps, graph=False))
    if not isinstance(policy, Pi0):
        return timings
    steps = num_steps or policy.config.num_steps
    draws, uploaded = draws_for(policy, device), {name: value.to(device) for name, value in batch.items()}

    def uncached() -> Tensor:
        return without_cache(policy, uploaded, draws, steps)

    timings.append(time_calls("vla_ros, images and text again each step", uncached, device, runs))
    name = "transformers' π0"
    try:
        call = transformers_pi0(policy.config, batch, device, dtype, steps)
    except (InputError, torch.OutOfMemoryError) as error:
        return [*timings, Timing(name, problem=str(error).splitlines()[0])]
    return [*timings, time_calls(name, call, device, runs)]


def without_cache(policy: Pi0, batch: Batch, draws: Draws, num_steps: int) -> Tensor:
    """(B, H, D) as a policy without a cache computes them: images and text again for each step."""
    one_step = policy.prepare(1)
    for _ in range(num_steps):
        draws = {"noise": policy.act(policy.encode(batch), draws, one_step).actions}
    return draws["noise"]


def transformers_pi0(
    config: Pi0Config, batch: Batch, device: torch.device, dtype: torch.dtype, num_steps: int
) -> Callable[[], Tensor]:
    """A call of `sample_actions` of transformers' π0 on the batch. Raises InputError if it cannot be built."""
    model = transformers_pi0_model(config, device, dtype, num_steps)
    inputs = transformers_pi0_inputs(config, batch, device, dtype)
    shape = (len(inputs["state"]), config.horizon, config.action_dim)
    inputs |= {"noise": torch.zeros(shape, device=device, dtype=dtype), "num_steps": num_steps}
    return lambda: model.sample_actions(**inputs).float()


def transformers_pi0_model(config: Pi0Config, device: torch.device, dtype: torch.dtype, num_steps: int) -> nn.Module:
    """transformers' π0 in evaluation mode, without gradients. Raises InputError if it cannot be built."""
    if config.adaptive:
        raise InputError("transformers has no π0.5")
    if not isinstance(config.vision, SiglipSize):
        raise InputError("it has no such vision tower")
    try:
        from transformers import PI0Config, PI0ForConditionalGeneration
    except ImportError as error:
        raise InputError(f"transformers without π0: {error}") from None
    vision, prefix, expert = config.vision, config.prefix, config.expert

    def gemma(size):
        return {
            "model_type": "gemma", "hidden_size": size.width, "num_hidden_layers": size.depth,
            "intermediate_size": size.mlp, "num_attention_heads": size.heads, "num_key_value_heads": size.kv_heads,
            "head_dim": size.head_dim, "vocab_size": config.vocabulary,
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
        "image_token_id": config.vocabulary,
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
    return model


def transformers_pi0_inputs(
    config: Pi0Config, batch: Batch, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What that model takes, (B, ...) each, of a batch of ours."""
    cameras, tokens = len(config.cameras), batch["tokens"].to(device)
    patches = (config.vision.image // config.vision.patch) ** 2
    image_ids = torch.full((len(tokens), cameras * patches), config.vocabulary, device=device)
    ids = torch.cat([image_ids, tokens], dim=1)
    return {
        "state": batch["state"].to(device, dtype),
        "input_ids": ids,
        "pixel_values": signed(batch["images"].to(device)).to(dtype),
        "pixel_attention_mask": batch["image_mask"].to(device),
        "attention_mask": torch.ones_like(ids),
    }


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
