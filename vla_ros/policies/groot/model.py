"""GR00T N1, N1.5, N1.6 and N1.7: features of a vision-language model, and a flow-matching action head over them.

Time runs from 1 (noise) to 0 (actions) here, as in the other flow policies; in the published code it runs the other
way, and the network sees it truncated to a bucket, trunc(1000 (1 - time)).
"""

import math

import torch
from torch import Tensor, nn

from vla_ros.nn.norms import layer_normalised
from vla_ros.nn.siglip import SiglipLayer
from vla_ros.policies.flow import FlowPolicy, sample
from vla_ros.policies.groot.backbone import Backbone
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.groot.head import ActionHead, StepConstants
from vla_ros.policies.policy import Answer, Batch, Draws, Fixed, Memory, Steer, Traits, tensors


@tensors
class GrootContext:
    """Input of the action head's steps.

    Attributes:
        keys, values: (B, heads, P, head_dim) of each DiT layer that attends to the features.
        masks: none, or two (B, 1, 1, P) bool: text tokens and image tokens.
        state: (B, 1, width) token.
        embodiment: (B,) int64.
    """

    keys: list[Tensor]
    values: list[Tensor]
    masks: list[Tensor]
    state: Tensor
    embodiment: Tensor


class Groot(FlowPolicy):
    """A batch contains
        images: (B, N, 3, height, width) uint8, or float in [-1, 1]; those of other sizes in images_1, images_2, …; all
            in the order of their tokens.
        tokens: (B, L) int64 with placeholders for the images' tokens; token_mask: (B, L) bool, padding on the left.
        positions: (B, 3, L) int64 (N1.7).
        state: (B, K, max_state_dim) normalised and padded, K = `state_history`.
        embodiment: (B,) int64, selects the weights of the embodiment-specific layers.
        action_mask: (B, H, D) bool, numbers that the loss covers; by default the robot's own that are not padding.
    """

    config: GrootConfig

    def __init__(self, config: GrootConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        width = config.feature_dim
        self.vl_norm = nn.LayerNorm(width) if config.vl_norm else None
        self.vl_layers = nn.ModuleList(
            SiglipLayer(width, config.vl_heads, 4 * width, 1e-5, config.dropout) for _ in range(config.vl_layers)
        )
        self.head = ActionHead(config)
        scale = config.noise_s
        if config.new_clock:
            self.time_draw = config.noise_beta, scale, 1 - scale
        else:
            self.time_draw = config.noise_beta, 1 / scale, 0.0
        # Of the embodiment-specific layers, only those of states and actions: the others are a tenth of the network.
        self.float32 = (r".*norm", r"backbone\.vision\.embed\.", r"head\.(state_in\.layer1|action_in\.layer1)\.",
                        r"head\.(action_out\.layer2\.|positions)")
        self.float32 += (r"backbone\.vision\.",) if config.has_stem else ()
        self.traits = Traits(guidance=("prior",) if config.ramps else ("prior", "exact"), pads=config.padding_is_masked)

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> GrootContext:
        """Keys and values of the features, and the state's token."""
        more = sorted((name for name in batch if name.startswith("images_")), key=lambda name: (len(name), name))
        groups = [batch["images"], *(batch[name] for name in more)]
        tokens, valid = batch["tokens"], batch["token_mask"]
        at_image, text = tokens == self.config.image_token, None
        if self.config.has_stem:
            text = self.backbone.vision.summary(self.backbone.embedding(tokens), valid & ~at_image)
        parts = [self.backbone.image_tokens(images, text) for images in groups]
        images = torch.cat([part for part, _ in parts], dim=1)
        deeper = [torch.cat(level, dim=1) for level in zip(*(deep for _, deep in parts), strict=True)]
        positions = batch.get("positions")
        features = self.backbone(
            tokens, valid, images, deeper, None if positions is None else positions.transpose(0, 1)
        )
        return self.attend(features, at_image, valid, batch)

    def attend(self, features: Tensor, at_image: Tensor, valid: Tensor, batch: Batch) -> GrootContext:
        """The rest of `encode`, from (B, P, feature_dim) features and their (B, P) masks."""
        if self.vl_norm is not None:
            features = layer_normalised(self.vl_norm, features)
        for layer in self.vl_layers:
            features = layer(features)
        keys, values = zip(*(layer.remember(features) for layer in self.head.layers if layer.source), strict=True)
        masks = [(valid & part)[:, None, None] for part in (~at_image, at_image)] if self.config.alternate else []
        state = self.head.state_token(batch["state"], batch["embodiment"], batch.get("state_dropped"))
        return GrootContext(list(keys), list(values), masks, state, batch["embodiment"])

    def prepare(self, num_steps: int | None = None) -> Fixed:
        """For the times k / num_steps of the published code, exactly truncated to buckets."""
        number = num_steps or self.config.num_steps
        buckets = [int(step / number * self.config.buckets) for step in range(number)]
        return self.head.constants(torch.tensor(buckets, device=self.head.out.weight.device))

    def step_constants(self, time: Tensor) -> StepConstants:
        """For (N,) times in training."""
        return self.head.constants(((1 - time) * self.config.buckets).trunc().long())

    def velocity(self, ready: GrootContext, noisy: Tensor, constants: StepConstants) -> Tensor:
        """noise - actions, (B, H, D), of (B, H, D) noisy actions with the constants of one time or of B."""
        known = list(zip(ready.keys, ready.values, strict=True))
        return -self.head.velocity(noisy, constants, ready.state, ready.embodiment, known, ready.masks)

    def act(
        self, context: GrootContext, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None
    ) -> Answer:
        """Actions (B, H, D). N1.7 follows a running chunk with its own ramp, the others with π's guidance."""
        if steer is None or not self.config.ramps:
            return super().act(context, draws, fixed, steer)
        constants, noise = self.prepare() if fixed is None else fixed, draws["noise"]
        rows = torch.arange(noise.shape[1], device=noise.device)
        covered = (rows < steer.overlap[:, None])[..., None]
        pace = ramp(steer, noise.shape[1], self.config.ramp_rate).to(noise.dtype)

        def velocity(x: Tensor, step: int) -> Tensor:
            return self.velocity(context, x, constants[step : step + 1]) * pace

        return Answer(sample(velocity, torch.where(covered, steer.actions.to(noise.dtype), noise), len(constants)))

    def loss(self, batch: Batch, dropped: Tensor | None = None, **draws: Tensor) -> dict[str, Tensor]:
        """Mean squared error of the velocity over the numbers of `action_mask`.

        `dropped`: (B,) bool, samples without their state, drawn with the probability `state_dropout` in training.
        """
        if dropped is None and self.config.state_dropout and self.training:
            dropped = torch.rand(len(batch["state"]), device=batch["state"].device) < self.config.state_dropout
        error = self.element_loss(batch if dropped is None else batch | {"state_dropped": dropped}, **draws)
        mask = batch.get("action_mask")
        if mask is None:
            own = torch.arange(error.shape[-1], device=error.device) < self.config.action_width
            mask = ~batch["action_is_pad"][..., None] & own
        count = mask.sum()
        count = count + 1e-6 if self.config.new_clock else count.clamp(min=1)
        return {"loss": (error * mask).sum() / count}

    def freeze(self) -> "Groot":
        """Freeze what the configuration says: `tune_llm`, `tune_visual`, `tune_projector`, …"""
        config, head, backbone = self.config, self.head, self.backbone
        backbone.requires_grad_(config.tune_llm)
        for layer in backbone.layers[len(backbone.layers) - min(config.tune_top_llm_layers, len(backbone.layers)) :]:
            layer.requires_grad_(True)
        backbone.vision.requires_grad_(config.tune_visual)
        if backbone.projection is not None:
            backbone.projection.requires_grad_(True)
        for part in (head.state_in, head.action_in, head.action_out):
            part.requires_grad_(config.tune_projector)
        head.positions.requires_grad_(config.tune_projector)
        for part in (self.vl_layers, *(() if self.vl_norm is None else (self.vl_norm,))):
            part.requires_grad_(config.tune_vlln)
        for part in (head.layers, head.time_1, head.time_2, head.modulation, head.out):
            part.requires_grad_(config.tune_diffusion_model)
        return self


def ramp(steer: Steer, horizon: int, rate: float) -> Tensor:
    """(B, H, 1) float32 factors on the velocity of each row: 0 for frozen rows, 1 from the overlap's end on.

    Between them r(u) = (1 - exp(-rate u)) / (1 - exp(-rate)) at the inner points of [0, 1], evenly spaced: u =
    (i - d + 1) / (E - d + 1) for row i with d = `frozen`, E = `overlap` (Isaac GR00T N1.7, `get_action`).
    """
    rows = torch.arange(horizon, device=steer.overlap.device, dtype=torch.float64)
    overlap = steer.overlap[:, None].double()
    frozen = torch.minimum(steer.frozen[:, None].double(), overlap)
    share = ((rows - frozen + 1) / (overlap - frozen + 1)).clamp(0, 1)
    grown = -torch.expm1(-rate * share) / -math.expm1(-rate)
    grown = torch.where(rows < frozen, 0.0, grown)
    return torch.where(rows < overlap, grown, 1.0).float()[..., None]
