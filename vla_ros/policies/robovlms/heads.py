"""From a backbone's output for some tokens to actions, with or without earlier steps."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.norms import layer_normalised
from vla_ros.policies.robovlms.config import GPT_HEADS, GPT_LAYERS, LSTM_LAYERS

TRUNK = (1024, 512, 256)


class Trunk(nn.Sequential):
    """Linear layers with ReLU between them; fresh ones preserve the variance (He et al. 2015)."""

    def __init__(self, width: int, out: int) -> None:
        sizes = (width, *TRUNK, out)
        layers = [part for pair in zip(sizes, sizes[1:], strict=False) for part in (nn.Linear(*pair), nn.ReLU())]
        super().__init__(*layers[:-1])
        for layer in layers[::2]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class Lstm(nn.Module):
    """Parameters have torch's names of an LSTM; the state is zero at the start of every window.

    Fresh weights are larger than torch's, with which the signal would vanish in four layers.
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
        """(N, K, width) to (N, K, hidden), each from itself and the steps before it."""
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
    """Blocks of GPT-2 over a window, with learned positions."""

    def __init__(self, width: int, hidden: int, window: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden) if width != hidden else nn.Identity()
        self.places = nn.Parameter(torch.randn(window, hidden) * 0.02)
        self.layers = nn.ModuleList(GptLayer(hidden) for _ in range(GPT_LAYERS))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, width), K at most the window, to (N, K, hidden), each from itself and the steps before it."""
        x = self.first(x) + self.places[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return layer_normalised(self.norm, x)


class Head(nn.Module):
    """A body that may read earlier steps, then a trunk for the pose and, if there is a gripper, one for it.

    `body` takes (N, K, width), oldest first; later steps never affect earlier ones.

    Args:
        kind: "lstm" or "gpt", which read earlier steps, or "fc".
        hidden: width of the body's output.
        window: largest number of steps that a "gpt" reads.
    """

    def __init__(
        self, kind: str, width: int, hidden: int, window: int, chunk: int, pose_dim: int, gripper: bool
    ) -> None:
        super().__init__()
        if kind == "lstm":
            self.body = Lstm(width, hidden)
        elif kind == "gpt":
            self.body = Gpt(width, hidden, window)
        else:
            self.body = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, hidden))
        self.chunk = chunk
        self.pose = Trunk(hidden, chunk * pose_dim)
        if gripper:
            self.gripper = Trunk(hidden, chunk)

    def decode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """From (..., hidden) of the body to poses (..., chunk, pose_dim) in [-1, 1] and logits (..., chunk) of an open
        gripper."""
        pose = self.pose(x).tanh().unflatten(-1, (self.chunk, -1))
        return pose.float(), self.gripper(x).float() if hasattr(self, "gripper") else None


def losses(
    pose: Tensor, logits: Tensor | None, actions: Tensor, kept: Tensor, gripper_weight: float
) -> dict[str, Tensor]:
    """Losses of (B, L, chunk, pose_dim) poses and (B, L, chunk) logits for (B, L, chunk, D) actions, over those `kept`:
    Huber (delta 1) and binary cross entropy."""
    count = kept.sum().clamp(min=1)
    error = functional.huber_loss(pose, actions[..., : pose.shape[-1]], reduction="none")
    arm = (error * kept[..., None]).sum() / (count * pose.shape[-1])
    if logits is None:
        return {"loss": arm}
    error = functional.binary_cross_entropy_with_logits(logits, (actions[..., -1] + 1) / 2, reduction="none")
    gripper = (error * kept).sum() / count
    return {"loss": arm + gripper_weight * gripper, "arm": arm, "gripper": gripper}


def joined(pose: Tensor, logits: Tensor | None) -> Tensor:
    """(B, chunk, D) from (B, chunk, pose_dim) and (B, chunk); the gripper is 1 (open) or -1."""
    if logits is None:
        return pose
    gripper = torch.where(logits > 0, 1.0, -1.0) + 0 * logits  # NaN stays NaN
    return torch.cat([pose, gripper[..., None]], dim=-1)
