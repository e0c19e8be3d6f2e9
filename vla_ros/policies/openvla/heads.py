"""OFT's parts beside the language model: a head that reads hidden states, and projectors of numbers to its width."""

from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.norms import layer_normalised


class Projector(nn.Module):
    """Numbers to one token: two layers with GELU between them."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., width)."""
        return self.fc2(functional.gelu(self.fc1(x.to(self.fc1.weight.dtype))))


class ResidualLayer(nn.Module):
    """x + ReLU(Linear(LayerNorm(x))), as published: the ReLU is after the layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        return x + functional.relu(self.linear(layer_normalised(self.norm, x)))


class ActionHead(nn.Module):
    """From the hidden states of all dimensions of a row to the row: actions, or the noise in them."""

    def __init__(self, action_dim: int, width: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.norm_in, self.fc1 = nn.LayerNorm(action_dim * width), nn.Linear(action_dim * width, width)
        self.blocks = nn.ModuleList(ResidualLayer(width) for _ in range(2))
        self.norm_out, self.fc2 = nn.LayerNorm(width), nn.Linear(width, action_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, H * D, width) to (B, H, D) float32."""
        x = hidden.to(self.fc1.weight.dtype).unflatten(1, (-1, self.action_dim)).flatten(2)
        x = functional.relu(self.fc1(layer_normalised(self.norm_in, x)))
        for block in self.blocks:
            x = block(x)
        return self.fc2(layer_normalised(self.norm_out, x)).float()
