"""Diffusion Policy (Chi et al. 2023, https://arxiv.org/abs/2303.04137): a one-dimensional U-Net, conditioned on a
history of observations, converts noise to actions."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.keypoint_stem import KeypointStem, KeypointStemSize
from vla_ros.nn.words import WordEncoder
from vla_ros.policies.backbones import KEYPOINT_STEM
from vla_ros.policies.diffusion.config import DiffusionConfig
from vla_ros.policies.diffusion.schedule import Step, make_scheduler, make_steps
from vla_ros.policies.diffusion.unet import UNet
from vla_ros.policies.diffusion.vision import RgbEncoder
from vla_ros.policies.flow import prior_weights
from vla_ros.policies.policy import Answer, Batch, Draws, Memory, Policy, Steer, Traits, mean_of_valid, tensors


@tensors
class DiffusionContext:
    """`condition`: (B, T * features), the observation as input of each denoising step."""

    condition: Tensor


class DiffusionPolicy(Policy):
    """A batch contains, depending on the configuration:

        images: (B, T, N, 3, height, width) uint8, or float that is already normalised; N cameras.
        state: (B, T, S) normalised.
        environment_state: (B, T, E) normalised.
        words: (B, W) word counts, or tokens: (B, L) of CLIP's tokenizer.
    """

    config: DiffusionConfig
    traits = Traits(guidance=("prior",))
    compiled = ("encode", "denoise")
    float32 = (r"unet\.final_conv\.1\.", r"stem\.")

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        cameras = len(config.cameras)
        if cameras and config.vision_backbone == KEYPOINT_STEM:
            size = KeypointStemSize(image=config.image_size[0])
            self.stem = KeypointStem(size, cameras, text_width=config.language_dim, width=config.stem_width)
        elif cameras and config.use_separate_rgb_encoder_per_camera:
            self.rgb_encoder = nn.ModuleList(RgbEncoder(config) for _ in range(cameras))
        elif cameras:
            self.rgb_encoder = RgbEncoder(config)
        if cameras:  # set from the checkpoint's statistics, for each camera; identity until then
            self.register_buffer("image_mean", torch.zeros(cameras, 3, 1, 1, device="cpu"), persistent=False)
            self.register_buffer("image_std", torch.ones(cameras, 3, 1, 1, device="cpu"), persistent=False)
        if config.clip_text is not None:
            from transformers import CLIPTextConfig, CLIPTextModelWithProjection  # takes seconds, rarely needed

            text = CLIPTextConfig(**config.clip_text)
            self.language_encoder = CLIPTextModelWithProjection(text).requires_grad_(False)
            # Computed, not stored, so it needs its values even if the network is built on the meta device.
            places = torch.arange(text.max_position_embeddings, device="cpu")[None]
            self.language_encoder.text_model.embeddings.register_buffer("position_ids", places, persistent=False)
            self.language_projection = nn.Linear(text.projection_dim, config.language_dim)
        elif config.vocabulary:
            self.language = WordEncoder(len(config.vocabulary), config.language_dim)
        self.unet = UNet(config)
        self.scheduler = make_scheduler(config)
        # The noise of the rows before the newest observation, and the noise that DDPM adds at each step: fixed,
        # so that the sampled actions are a function of the noise they start from.
        generator = torch.Generator("cpu").manual_seed(0)
        shape = (config.num_train_timesteps + 1, config.unet_horizon, config.action_dim)
        fixed = torch.randn(shape, generator=generator, device="cpu")
        self.register_buffer("past_noise", fixed[:1, : config.past].clone(), persistent=False)
        self.register_buffer("path_noise", fixed[1:].clone(), persistent=False)

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"noise": (size, self.config.horizon, self.config.action_dim)}

    def prepare(self, num_steps: int | None = None) -> tuple[Step, ...]:
        """The coefficients of each step."""
        return make_steps(self.config, self.config.num_steps if num_steps is None else num_steps)

    def act(
        self, context: DiffusionContext, draws: Draws | None = None, fixed: tuple[Step, ...] | None = None,
        steer: Steer | None = None,
    ) -> Answer:
        """(B, H, D) normalised actions from the newest observation on, from (B, H, D) noise.

        With a running chunk the estimate of the clean actions is moved towards it at every step; frozen rows end up
        exactly as given.
        """
        noise = draws["noise"]
        x = torch.cat([self.past_noise.to(noise.dtype).expand(len(noise), -1, -1), noise], dim=1)
        front = (0, 0, self.config.past, 0)  # rows before the newest observation are not guided
        if steer is not None:
            target = functional.pad(steer.actions.to(x.dtype), front)
            weights = functional.pad(prior_weights(steer, self.config.horizon).to(x.dtype), front)
        for i, step in enumerate(self.prepare() if fixed is None else fixed):
            time = torch.full((len(x),), step.time, dtype=torch.float32, device=x.device)
            clean, epsilon = self._estimates(x, self.denoise(context, x, time), step)
            if steer is not None:
                epsilon = epsilon + weights * ((x - step.signal * target) / step.noise_level - epsilon)
                clean = clean + weights * (target - clean)
            x = step.clean * clean + step.noisy * x + step.noise * epsilon
            if step.spread:
                x = x + step.spread * self.path_noise[i].to(x.dtype)
        return Answer(x[:, self.config.past :])

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> DiffusionContext:
        """For each observation step: state, cameras, environment, text."""
        config, state = self.config, batch["state"]
        dtype = self.unet.mid_modules[0].conv1.block[0].weight.dtype
        size, steps = state.shape[:2]
        parts = [state.to(dtype)]
        text = self._text(batch, dtype)
        if config.cameras:
            parts.append(self._image_features(batch["images"], text, dtype))
        if config.environment_dim:
            parts.append(batch["environment_state"].to(dtype))
        if text is not None:
            parts.append(text[:, None].expand(size, steps, -1))
        return DiffusionContext(torch.cat(parts, dim=-1).flatten(1))

    def denoise(self, context: DiffusionContext, noisy: Tensor, time: Tensor) -> Tensor:
        """(B, rows, D) of the U-Net: noise or clean actions, by `prediction_type`, at (B,) scheduler steps."""
        return self.unet(noisy, time, context.condition)

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Mean squared error of the network's output. `draws`: `noise` like actions, `time` (B,) int64."""
        actions = batch["actions"]  # for all the network's rows, including the past ones
        noise = draws["noise"] if "noise" in draws else torch.randn_like(actions)
        time = draws.get("time")
        if time is None:
            time = torch.randint(0, self.config.num_train_timesteps, (len(actions),), device=actions.device)
        noisy = self.scheduler.add_noise(actions, noise, time)
        target = noise if self.config.prediction_type == "epsilon" else actions
        error = functional.mse_loss(self.denoise(self.encode(batch), noisy, time), target, reduction="none")
        return {"loss": mean_of_valid(error, batch["action_is_pad"] if self.config.do_mask_loss_for_padding else None)}

    def _estimates(self, x: Tensor, out: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Estimates of clean actions and noise from the network's output."""
        config = self.config
        clean = out if config.prediction_type == "sample" else (x - step.noise_level * out) / step.signal
        epsilon = out if config.prediction_type == "epsilon" else (x - step.signal * clean) / step.noise_level
        if config.clip_sample:
            clean = clean.clamp(-config.clip_sample_range, config.clip_sample_range)
        return clean, epsilon

    def _text(self, batch: Batch, dtype: torch.dtype) -> Tensor | None:
        if self.config.vocabulary:
            return self.language(batch["words"].to(dtype))
        if self.config.clip_text is None:
            return None
        with torch.no_grad():  # CLIP is causal and its output is read at the end token: padding needs no mask
            out = self.language_encoder(input_ids=batch["tokens"])
        return functional.dropout(
            self.language_projection(out.text_embeds.to(dtype)), self.config.language_dropout, self.training
        )

    def _image_features(self, images: Tensor, text: Tensor | None, dtype: torch.dtype) -> Tensor:
        """(B, T, N * features of an image)."""
        if images.dtype == torch.uint8:  # normalised here, so that images are copied to the GPU as bytes
            images = (images.to(torch.float32) / 255 - self.image_mean) / (self.image_std + 1e-8)
        size, steps = images.shape[:2]
        images = images.to(dtype)
        if self.config.vision_backbone == KEYPOINT_STEM:  # the keypoints' token and the mean of the patches' tokens
            text = text[:, None].expand(-1, steps, -1).flatten(0, 1)
            tokens = self.stem(images.flatten(0, 1), text).to(dtype)
            features = torch.cat([tokens[:, :, 0], tokens[:, :, 1:].mean(dim=2)], dim=-1)
            return features.reshape(size, steps, -1)
        if self.config.use_separate_rgb_encoder_per_camera:
            features = [encoder(images[:, :, i].flatten(0, 1)) for i, encoder in enumerate(self.rgb_encoder)]
            return torch.cat(features, dim=-1).unflatten(0, (size, steps))
        return self.rgb_encoder(images.flatten(0, 2)).reshape(size, steps, -1)
