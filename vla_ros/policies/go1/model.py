"""GO-1 (AgiBot-World 2025, https://arxiv.org/abs/2503.06669): an action expert attends to InternVL2.5's keys and values
of images and text, in every layer.

The keys, which are rotated already, are projected to fewer numbers by the bridge and rotated again when they are read:
by the expert of GO-1 Air, or by GO-1's latent planner, whose keys and values go to the expert, which rotates them once
more. Both count positions over the whole prompt including its padding, so padding changes the answer. The expert
predicts clean actions from noisy ones; time, control frequency and state are tokens that only see each other.
"""

import math

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.nn.attention import causal_mask, grouped_attention
from vla_ros.nn.embeddings import Rotary, rotary_table, rotate
from vla_ros.nn.internvit import InternVit
from vla_ros.nn.keypoint_stem import KeypointStem
from vla_ros.nn.llama import LlamaLayer, LlamaNorm
from vla_ros.policies.flow import prior_weights
from vla_ros.policies.go1.config import GO1Config, TowerSize
from vla_ros.policies.images import IMAGENET
from vla_ros.policies.policy import Answer, Batch, Draws, Memory, Policy, Steer, Traits, tensors

TIME_FEATURES = 256
HEAD = 3  # tokens before the actions: time, control frequency, state
LATENTS = 4  # the planner's tokens


@tensors
class GO1Context:
    """Images, text, frequency and state, as input of the expert.

    Attributes:
        keys, values: (B, kv_heads, P, head_dim) of each layer, the keys rotated.
        visible: (B, 1, n * groups, P + n) bool, True if one of the expert's n = 3 + H tokens sees a key.
        rotary: cosines and sines of the n tokens.
        head: (B, 2, width), frequency and state.
    """

    keys: list[Tensor]
    values: list[Tensor]
    visible: Tensor
    rotary: Rotary
    head: Tensor


@tensors
class GO1Steps:
    """Of N steps: `times`, (N, width) tokens; `mix`, (N, 3): x ← mix · (x, clean actions, those of the step before)."""

    times: Tensor
    mix: Tensor


class Bridge(nn.Module):
    """Project keys and values of every layer to heads of another width."""

    def __init__(self, depth: int, width: int, out: int) -> None:
        super().__init__()
        self.keys, self.values = (nn.ModuleList(nn.Linear(width, out) for _ in range(depth)) for _ in range(2))
        for layer in (*self.keys, *self.values):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class Planner(nn.Module):
    """Four tokens, whose inputs are all -1, that attend to the prompt; the output is their keys and values."""

    def __init__(self, size: TowerSize, out: int) -> None:
        super().__init__()
        self.size = size
        self.token_in = _adaptor(1, size.width)
        self.layers = _tower(size)
        self.bridge = Bridge(size.depth, size.head_dim, out)

    def forward(self, keys: list[Tensor], values: list[Tensor], valid: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, kv_heads, L, D) of each layer and (B, L) bool to (B, kv_heads, L + 4, E) of each layer."""
        length, matrix = valid.shape[1], self.layers[0].qkv.weight
        x = self.token_in(matrix.new_full((1, LATENTS, 1), -1.0)).expand(len(valid), -1, -1)
        before, own = _rotaries(self.size, length, LATENTS, valid.device)
        mask = functional.pad(valid, (0, LATENTS), value=True)[:, None, None]
        out: tuple[list[Tensor], list[Tensor]] = [], []
        for i, layer in enumerate(self.layers):
            query, key, value = layer.project(x, own)
            key, value = torch.cat([rotate(keys[i], before), key], 2), torch.cat([values[i], value], 2)
            out[0].append(self.bridge.keys[i](key))
            out[1].append(self.bridge.values[i](value))
            if i + 1 < len(self.layers):  # the last layer's output for these tokens is not read
                x = layer.finish(x, grouped_attention(query, key, value, mask))
        return out


class GO1(Policy):
    """A batch contains
        images: (B, C, 3, size, size) uint8, or float that is already normalised.
        tokens: (B, L) int64, `config.image_token` at each position of an image's token; token_mask: (B, L) bool.
        state: (B, S) normalised.
        control_frequency: (B,) Hz.
    """

    config: GO1Config
    traits = Traits(guidance=("prior",), pads=False)
    compiled = ("encode", "denoise")
    float32 = (r"action_out\.2\.", r"stem\.")

    def __init__(self, config: GO1Config) -> None:
        super().__init__()
        self.config = config
        text, expert = config.text, config.expert
        width = expert.width
        pixels = torch.tensor([IMAGENET["mean"].tolist(), IMAGENET["std"].tolist()], device="cpu")
        self.register_buffer("pixels", pixels[..., None, None], persistent=False)
        if config.has_stem:
            self.stem = KeypointStem(config.vision, len(config.cameras), text.width, text.width, long_prompts=True)
        else:
            self.vision, features = InternVit(config.vision), config.vision.hidden * config.shuffle**2
            self.connector = nn.Sequential(
                nn.LayerNorm(features), nn.Linear(features, text.width), nn.GELU(), nn.Linear(text.width, text.width)
            )
        self.embedding = nn.Embedding(config.vocabulary, text.width)
        self.text = _tower(text)
        read = config.planner or expert
        self.bridge = Bridge(text.depth, text.head_dim, read.head_dim)
        self.planner = None if config.planner is None else Planner(config.planner, expert.head_dim)
        self.time_in, self.frequency_in = (
            nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(2)
        )
        self.state_in, self.action_in = _adaptor(config.state_dim, width), _adaptor(config.action_dim, width)
        self.expert = _tower(expert)
        self.expert_norm, self.action_norm = LlamaNorm(width, expert.epsilon), LlamaNorm(width, 1e-6)
        self.action_out = nn.Sequential(
            nn.Linear(width, width), nn.GELU(approximate="tanh"), nn.Linear(width, config.action_dim)
        )
        nn.init.zeros_(self.action_out[2].weight)
        nn.init.zeros_(self.action_out[2].bias)
        with torch.device("cpu"):  # its tables are needed even if the network is built on the meta device
            self.scheduler = DDPMScheduler(config.num_train_timesteps, beta_schedule=config.beta_schedule)

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"noise": (size, self.config.horizon, self.config.action_dim)}

    def prepare(self, num_steps: int | None = None) -> GO1Steps:
        """Tokens and coefficients of the steps."""
        times, mix = solver(self.config, num_steps or self.config.num_steps)
        weight = self.time_in[0].weight
        # The published model runs in bfloat16, which rounds the times of its steps: 999 becomes 1000.
        times = times.to(weight.device, weight.dtype).float()
        return GO1Steps(self._scalar(self.time_in, times), mix.to(weight.device))

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> GO1Context:
        """Keys and values of every layer for the expert, and the tokens that are the same in every step."""
        keys, values, valid = self.read_prompt(batch["images"], batch["tokens"], batch["token_mask"])
        if self.planner is not None:
            keys, values = self.planner(keys, values, valid)
            valid = functional.pad(valid, (0, LATENTS), value=True)
        size, length, own = self.config.expert, valid.shape[1], HEAD + self.config.horizon
        before, rotary = _rotaries(size, length, own, valid.device)
        block = torch.ones(own, own, dtype=torch.bool, device=valid.device)
        block[:HEAD, HEAD:] = False
        visible = torch.cat([valid[:, None].expand(-1, own, -1), block.expand(len(valid), -1, -1)], dim=2)
        visible = visible[:, None].repeat_interleave(size.heads // size.kv_heads, dim=2)
        weight = self.state_in[0].weight
        frequency = batch["control_frequency"].to(weight.dtype).float()
        head = [self._scalar(self.frequency_in, frequency), self.state_in(batch["state"].to(weight.dtype))]
        keys = [rotate(key, before) for key in keys]
        return GO1Context(keys, values, visible, rotary, torch.stack(head, dim=1))

    def read_prompt(self, images: Tensor, tokens: Tensor, valid: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Bridged keys and values of every layer, (B, kv_heads, L, D) each, and the mask again."""
        size, x = self.config.text, self.embedding(tokens)
        here = tokens == self.config.image_token
        seen = self.encode_images(images, self.stem.summary(x, valid & ~here) if self.config.has_stem else None)
        x = x.masked_scatter(here[..., None], seen.to(x.dtype))
        rotary = rotary_table((valid.cumsum(dim=1) - 1).masked_fill(~valid, 1), size.head_dim, size.theta)
        sees = causal_mask(valid, size.heads // size.kv_heads)
        keys, values = [], []
        for i, layer in enumerate(self.text):
            query, key, value = layer.project(x, rotary)
            keys.append(self.bridge.keys[i](key))
            values.append(self.bridge.values[i](value))
            if i + 1 < len(self.text):  # the last layer's output for these tokens is not read
                x = layer.finish(x, grouped_attention(query, key, value, sees))
        return keys, values, valid

    def encode_images(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """(B, C, 3, size, size) to (B, C, tokens, width): blocks of patches, without the first token, become
        tokens; or the tokens of the stem, which locates what the text's (B, width) summary names."""
        if images.dtype == torch.uint8:  # on the device, so that images are uploaded as bytes
            images = (images.float() / 255 - self.pixels[0]) / self.pixels[1]
        if self.config.has_stem:
            return self.stem(images, text)
        features = self.vision(images.flatten(0, 1))[:, 1:]
        side, shuffle = math.isqrt(features.shape[1]), self.config.shuffle
        # (N, block row, block column, row in block, column in block, hidden)
        blocks = features.unflatten(1, (side // shuffle, shuffle, side // shuffle, shuffle)).transpose(2, 3)
        return self.connector(blocks.flatten(3).flatten(1, 2)).unflatten(0, images.shape[:2])

    def act(
        self, context: GO1Context, draws: Draws | None = None, fixed: GO1Steps | None = None, steer: Steer | None = None
    ) -> Answer:
        """(B, H, D) normalised actions from (B, H, D) noise.

        With a running chunk the estimate of the clean actions is moved towards it at every step, and the last step
        returns the estimate: frozen rows end up exactly as given.
        """
        steps, x = self.prepare() if fixed is None else fixed, draws["noise"]
        weights = None if steer is None else prior_weights(steer, self.config.horizon).to(x.dtype)
        before = torch.zeros_like(x)
        for i in range(len(steps.mix)):
            clean = self.denoise(context, x, steps.times[i : i + 1])
            if steer is not None:
                clean = clean + weights * (steer.actions.to(x.dtype) - clean)
            x = steps.mix[i, 0] * x + steps.mix[i, 1] * clean + steps.mix[i, 2] * before
            before = clean
        return Answer(x)

    def denoise(self, context: GO1Context, noisy: Tensor, time: Tensor) -> Tensor:
        """Clean actions, (B, H, D), of (B, H, D) noisy ones with the token of one time or of B, (B, width)."""
        actions = self.action_in(noisy.to(self.action_in[0].weight.dtype))
        x = torch.cat([time[:, None].expand(len(noisy), -1, -1), context.head, actions], dim=1)
        for layer, keys, values in zip(self.expert, context.keys, context.values, strict=True):
            query, key, value = layer.project(x, context.rotary)
            key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
            x = layer.finish(x, grouped_attention(query, key, value, context.visible))
        first, activation, last = self.action_out
        x = activation(first(self.action_norm(self.expert_norm(x)[:, HEAD:])))
        return last(x.to(last.weight.dtype)).to(noisy.dtype)

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Mean squared error of the clean actions; rows after the end of an episode count too, as published.

        `draws`: `noise` like actions, `time` (B,) int64.
        """
        actions = batch["actions"]
        noise = draws["noise"] if "noise" in draws else torch.randn_like(actions)
        time = draws.get("time")
        if time is None:
            time = torch.randint(0, self.config.num_train_timesteps, (len(actions),), device=actions.device)
        noisy = self.scheduler.add_noise(actions, noise, time)
        clean = self.denoise(self.encode(batch), noisy, self._scalar(self.time_in, time.float()))
        return {"loss": functional.mse_loss(clean, actions)}

    def _scalar(self, layers: nn.Sequential, values: Tensor) -> Tensor:
        """(N,) times or frequencies to (N, width) tokens."""
        features = get_timestep_embedding(values, TIME_FEATURES, flip_sin_to_cos=True, downscale_freq_shift=0)
        return layers(features.to(layers[0].weight.dtype))


def solver(config: GO1Config, num_steps: int) -> tuple[Tensor, Tensor]:
    """(N,) times of the steps and their (N, 3) coefficients, see `GO1Steps`.

    DPM-Solver++(2M) of Lu et al. 2022 (https://arxiv.org/abs/2211.01095, algorithm 2) over diffusers' noise levels;
    the first and the last step are of first order. Raises InputError for more steps than noise levels.
    """
    if not 1 <= num_steps <= config.num_train_timesteps:
        raise InputError(f"num_steps {num_steps}, expected 1 to num_train_timesteps {config.num_train_timesteps}")
    with torch.device("cpu"):
        scheduler = DPMSolverMultistepScheduler(config.num_train_timesteps, beta_schedule=config.beta_schedule)
        scheduler.set_timesteps(num_steps)
    levels = scheduler.sigmas.double()  # ratio of noise to signal, one more than steps; the last is zero
    signal = (1 + levels.square()).rsqrt()
    spread = levels * signal
    position = signal.log() - spread.log()
    rows = []
    for i in range(num_steps):
        step = position[i + 1] - position[i]
        clean = -signal[i + 1] * torch.expm1(-step)
        slope = 0.5 * step / (position[i] - position[i - 1]) if 0 < i < num_steps - 1 else torch.zeros_like(step)
        rows.append(torch.stack([spread[i + 1] / spread[i], clean * (1 + slope), -clean * slope]))
    return scheduler.timesteps.double(), torch.stack(rows).float()


def _tower(size: TowerSize) -> nn.ModuleList:
    return nn.ModuleList(LlamaLayer(size, size.width, size.mlp, grouped=True) for _ in range(size.depth))


def _adaptor(width: int, out: int) -> nn.Sequential:
    layers = [nn.Linear(width, out), nn.Linear(out, out), nn.Linear(out, out)]
    gelu = nn.GELU(approximate="tanh")
    return nn.Sequential(layers[0], gelu, layers[1], gelu, layers[2])


def _rotaries(size: TowerSize, length: int, own: int, device: torch.device) -> tuple[Rotary, Rotary]:
    """Rotations of `length` tokens that are read, and of a tower's `own` tokens after them."""
    parts = torch.arange(length + own, device=device)[None].split([length, own], dim=1)
    return tuple(rotary_table(part, size.head_dim, size.theta) for part in parts)
