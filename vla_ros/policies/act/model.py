"""Action Chunking with Transformers (Zhao et al. 2023, https://arxiv.org/abs/2304.13705), as in LeRobot."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.keypoint_stem import KeypointStem, KeypointStemSize
from vla_ros.nn.resnet import ResNet, feature_size
from vla_ros.nn.words import WordEncoder
from vla_ros.policies.act.config import ACTConfig
from vla_ros.policies.act.transformer import Decoder, Encoder, sinusoid_1d, sinusoid_2d
from vla_ros.policies.backbones import KEYPOINT_STEM
from vla_ros.policies.policy import Answer, Batch, Draws, Fixed, Memory, Policy, Steer, mean_of_valid, tensors


@tensors
class ACTContext:
    """The encoder's S tokens, (B, S, dim), without and with their positions."""

    tokens: Tensor
    keys: Tensor


class ACT(Policy):
    """Images, state and a latent to a chunk, in one pass.

    A batch contains, depending on the configuration:
        images: (B, N, 3, height, width) uint8, or float that is already normalised; N cameras.
        state: (B, state_dim) normalised.
        environment_state: (B, environment_dim) normalised.
        words: (B, W) word counts.
    """

    config: ACTConfig
    float32 = (r"action_head\.", r"stem\.")

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim_model
        if config.use_vae:
            self.vae_encoder = Encoder(config, config.n_vae_encoder_layers)
            self.vae_encoder_cls_embed = nn.Embedding(1, dim)
            if config.state_dim:
                self.vae_encoder_robot_state_input_proj = nn.Linear(config.state_dim, dim)
            self.vae_encoder_action_input_proj = nn.Linear(config.action_dim, dim)
            self.vae_encoder_latent_output_proj = nn.Linear(dim, 2 * config.latent_dim)
            tokens = 1 + bool(config.state_dim) + config.chunk_size
            self.register_buffer("vae_encoder_pos_enc", sinusoid_1d(tokens, dim)[None])
        if config.cameras and config.vision_backbone == KEYPOINT_STEM:
            size = KeypointStemSize(image=config.image_size[0])
            self.stem = KeypointStem(size, len(config.cameras), text_width=dim, width=dim)
        elif config.cameras:
            dilated = config.replace_final_stride_with_dilation
            self.backbone = ResNet(config.vision_backbone, config.backbone_norm, config.backbone_width, dilated)
            self.encoder_img_feat_input_proj = nn.Conv2d(self.backbone.out_channels, dim, 1)
            sizes = config.image_sizes or (config.image_size,) * len(config.cameras)
            tables = [sinusoid_2d(*feature_size(*size, dilated), dim) for size in sizes]
            self.register_buffer("image_positions", torch.cat(tables), persistent=False)
        if config.cameras:
            # Set from the checkpoint's statistics, for each camera; identity until then.
            shape = (len(config.cameras), 3, 1, 1)
            self.register_buffer("image_mean", torch.zeros(shape, device="cpu"), persistent=False)
            self.register_buffer("image_std", torch.ones(shape, device="cpu"), persistent=False)
        self.encoder = Encoder(config, config.n_encoder_layers)
        self.decoder = Decoder(config)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, dim)
        if config.state_dim:
            self.encoder_robot_state_input_proj = nn.Linear(config.state_dim, dim)
        if config.environment_dim:
            self.encoder_env_state_input_proj = nn.Linear(config.environment_dim, dim)
        if config.vocabulary:
            self.language = WordEncoder(len(config.vocabulary), dim)
        n_1d = 1 + bool(config.state_dim) + bool(config.environment_dim) + bool(config.vocabulary)
        self.encoder_1d_feature_pos_embed = nn.Embedding(n_1d, dim)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, dim)
        self.action_head = nn.Linear(dim, config.action_dim)
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> ACTContext:
        """With a latent of zero, as published: inference is not random."""
        return self.encode_tokens(batch, None)

    def act(
        self, context: ACTContext, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None
    ) -> Answer:
        """(B, H, D) normalised actions in one pass of the decoder."""
        queries = context.tokens.new_zeros(len(context.tokens), self.config.chunk_size, self.config.dim_model)
        out = self.decoder(queries, context.tokens, context.keys, self.decoder_pos_embed.weight)
        return Answer(self.action_head(out.to(self.action_head.weight.dtype)))

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """L1 error and the KL divergence of the latent. `draws["noise"]`: (B, L) of the latent's sample."""
        actions, pad = batch["actions"], batch["action_is_pad"]
        latent, mean, log_variance = None, None, None
        if self.config.use_vae:
            mean, log_variance = self.encode_actions(batch)
            noise = draws["noise"] if "noise" in draws else torch.randn_like(mean)
            latent = mean + (log_variance / 2).exp() * noise
        predicted = self.act(self.encode_tokens(batch, latent)).actions
        error = functional.l1_loss(predicted, actions, reduction="none")
        l1 = (error * ~pad[:, :, None]).mean() if self.config.loss_mean == "all" else mean_of_valid(error, pad)
        if latent is None:
            return {"loss": l1, "l1": l1}
        kl = (-0.5 * (1 + log_variance - mean.square() - log_variance.exp())).sum(-1).mean()
        return {"loss": l1 + self.config.kl_weight * kl, "l1": l1, "kl": kl}

    def encode_actions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The latent's mean and log variance, (B, L) each, from state and actions; padded actions are ignored."""
        actions, pad = batch["actions"], batch["action_is_pad"]
        tokens = [self.vae_encoder_cls_embed.weight[None].expand(len(actions), -1, -1)]
        if self.config.state_dim:
            tokens.append(self.vae_encoder_robot_state_input_proj(batch["state"])[:, None])
        tokens.append(self.vae_encoder_action_input_proj(actions))
        padding = functional.pad(pad, (len(tokens) - 1, 0), value=False)
        out = self.vae_encoder(torch.cat(tokens, dim=1), self.vae_encoder_pos_enc, padding)[:, 0]
        return self.vae_encoder_latent_output_proj(out).chunk(2, dim=-1)

    def encode_tokens(self, batch: Batch, latent: Tensor | None) -> ACTContext:
        """The observation and a (B, L) latent, None for zero."""
        config = self.config
        weight = self.encoder_latent_input_proj.weight
        size = next(len(value) for key, value in batch.items() if key in ("state", "images", "environment_state"))
        if latent is None:
            latent = weight.new_zeros(size, config.latent_dim)
        tokens = [self.encoder_latent_input_proj(latent)]
        if config.state_dim:
            tokens.append(self.encoder_robot_state_input_proj(batch["state"].to(weight.dtype)))
        if config.environment_dim:
            tokens.append(self.encoder_env_state_input_proj(batch["environment_state"].to(weight.dtype)))
        condition = None
        if config.vocabulary:
            condition = self.language(batch["words"].to(weight.dtype))
            tokens.append(condition)
        x = torch.stack(tokens, dim=1)
        positions = self.encoder_1d_feature_pos_embed.weight
        if config.cameras:
            images, places = self.image_tokens(batch["images"], condition)
            x = torch.cat([x, images], dim=1)
            positions = torch.cat([positions, places])
        tokens = self.encoder(x, positions)
        return ACTContext(tokens, tokens + positions)

    def image_tokens(self, images: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, N, 3, height, width) to tokens (B, N * n, dim), camera after camera, and their positions (N * n, dim)."""
        dtype, dim = self.encoder_latent_input_proj.weight.dtype, self.config.dim_model
        if images.dtype == torch.uint8:  # normalised here, so that images are copied to the GPU as bytes
            images = (images.to(torch.float32) / 255 - self.image_mean) / (self.image_std + 1e-8)
        size = len(images)
        if self.config.vision_backbone == KEYPOINT_STEM:  # its tokens contain their positions
            tokens = self.stem(images, condition).flatten(1, 2).to(dtype)
            return tokens, tokens.new_zeros(tokens.shape[1:])
        images = images.to(dtype)
        if sizes := self.config.image_sizes:
            whole = [images[:, i, :, :height, :width] for i, (height, width) in enumerate(sizes)]
        else:
            whole = [images.flatten(0, 1)]
        features = [self.encoder_img_feat_input_proj(self.backbone(each)) for each in whole]
        tokens = [each.flatten(2).transpose(1, 2).reshape(size, -1, dim) for each in features]
        return torch.cat(tokens, dim=1), self.image_positions.to(dtype)
