"""From what a backbone left in some tokens to actions, with and without what was before."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.norms import layer_normalised
from vla_ros.policies.robovlms.config import GPT_HEADS, GPT_LAYERS, LSTM_LAYERS, RoboVLMConfig

TRUNK = (1024, 512, 256)


class Trunk(nn.Sequential):
    """Linear layers with ReLU between them; fresh ones keep the size of what goes through (He et al. 2015)."""

    def __init__(self, width: int, out: int) -> None:
        sizes = (width, *TRUNK, out)
        layers = [part for pair in zip(sizes, sizes[1:], strict=False) for part in (nn.Linear(*pair), nn.ReLU())]
        super().__init__(*layers[:-1])
        for layer in layers[::2]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class Lstm(nn.Module):
    """Named as torch names an LSTM's parameters; from zeros at every window's start.

    Fresh weights are larger than torch's, by whose small ones four layers forget what they see.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.names = []
        for layer in range(LSTM_LAYERS):
            rows = {"weight_ih": (4 * hidden, hidden if layer else width), "weight_hh": (4 * hidden, hidden),
                    "bias_ih": (4 * hidden,), "bias_hh": (4 * hidden,)}
            for name, shape in rows.items():
                self.names.append(f"{name}_l{layer}")
                bound = ((3 if len(shape) > 1 else 1) / hidden) ** 0.5
                values = torch.empty(shape).uniform_(-bound, bound)
                self.register_parameter(self.names[-1], nn.Parameter(values))

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, width) to (N, K, hidden), each of what is before it."""
        weights = [getattr(self, name) for name in self.names]
        zeros = x.new_zeros(LSTM_LAYERS, len(x), self.hidden)
        return torch.lstm(x, (zeros, zeros), weights, True, LSTM_LAYERS, 0.0, self.training, False, True)[0]


class Matrix(nn.Module):
    """A linear layer stored as GPT-2 stores it: (in, out)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(width, out) * 0.02), nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class GptLayer(nn.Module):
    """LayerNorm, causal attention, LayerNorm, tanh-GELU MLP (Radford et al. 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = Matrix(width, 3 * width), Matrix(width, width)
        self.up, self.down = Matrix(width, 4 * width), Matrix(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, width) to the same."""
        query, key, value = self.qkv(layer_normalised(self.norm1, x)).unflatten(-1, (3, GPT_HEADS, -1)).permute(
            2, 0, 3, 1, 4
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(layer_normalised(self.norm2, x)), approximate="tanh"))


class Gpt(nn.Module):
    """Blocks of GPT-2 over a window, with learned places."""

    def __init__(self, width: int, hidden: int, window: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden) if width != hidden else nn.Identity()
        self.places = nn.Parameter(torch.randn(window, hidden) * 0.02)
        self.layers = nn.ModuleList(GptLayer(hidden) for _ in range(GPT_LAYERS))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, width), K at most the window, to (N, K, hidden), each of what is before it."""
        x = self.first(x) + self.places[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return layer_normalised(self.norm, x)


class Head(nn.Module):
    """A body that may read the steps before, then a trunk for the pose and one for the gripper, where there is one.

    `body` sees (N, K, latent * width), oldest first, and what stands behind a step never reaches it.
    """

    def __init__(self, config: RoboVLMConfig) -> None:
        super().__init__()
        width, hidden = config.latent * config.backbone.width, config.latent * config.hidden
        if config.head == "lstm":
            self.body = Lstm(width, hidden)
        elif config.head == "gpt":
            hidden = config.hidden
            self.body = Gpt(width, hidden, config.window)
        else:
            self.body = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, hidden))
        self.chunk = config.chunk
        self.pose = Trunk(hidden, config.chunk * config.pose_dim)
        if config.gripper:
            self.gripper = Trunk(hidden, config.chunk)

    def decode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(..., hidden) of the body to poses (..., chunk, pose_dim) in [-1, 1] and logits (..., chunk) of an open
        gripper."""
        pose = self.pose(x).tanh().unflatten(-1, (self.chunk, -1))
        return pose.float(), self.gripper(x).float() if hasattr(self, "gripper") else None
