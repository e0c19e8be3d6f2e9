"""A world model: images to beliefs and back, rewards, and whether an episode continues."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.policies.world_model.rssm import KINDS, Belief, StateSpace, divergence


@dataclass(frozen=True)
class WorldSize:
    """Sizes.

    Attributes:
        action_dim: A of an action.
        image: side of an image, pixels; each of `channels` halves it.
        cameras: images of a step.
        embedding: width of the encoder's output for a step.
        rssm: a key of `rssm.KINDS`.
        deterministic, stochastic, hidden: widths of its state and layers.
        condition: width of another input of rewards, such as an instruction.
    """

    action_dim: int = 7
    image: int = 224
    cameras: int = 1
    channels: tuple[int, ...] = (32, 64, 128, 256)
    embedding: int = 512
    rssm: str = "gaussian"
    deterministic: int = 256
    stochastic: int = 32
    hidden: int = 512
    condition: int = 0

    @property
    def side(self) -> int:
        """Side of the last feature map."""
        return self.image >> len(self.channels)


class Encoder(nn.Module):
    """(N, cameras, 3, image, image) in [-1, 1] to (N, embedding)."""

    def __init__(self, size: WorldSize) -> None:
        super().__init__()
        layers, width = [], 3 * size.cameras
        for channels in size.channels:
            layers += [nn.Conv2d(width, channels, 4, stride=2, padding=1), nn.ReLU()]
            width = channels
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * size.side**2, size.embedding))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.flatten(1, 2))


class Decoder(nn.Module):
    """(N, F) features to (N, cameras, 3, image, image)."""

    def __init__(self, size: WorldSize, features: int) -> None:
        super().__init__()
        first, self.cameras = size.channels[-1], size.cameras
        self.to_map = nn.Linear(features, first * size.side**2)
        self.shape = (first, size.side, size.side)
        widths = (*size.channels[::-1], 3 * size.cameras)
        layers: list[nn.Module] = []
        for width, following in zip(widths, widths[1:], strict=False):
            layers += [nn.ConvTranspose2d(width, following, 4, stride=2, padding=1), nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor) -> Tensor:
        images = self.net(self.to_map(features.to(self.to_map.weight.dtype)).unflatten(-1, self.shape))
        return images.unflatten(1, (self.cameras, 3))


class Scalar(nn.Sequential):
    """(..., F) to (...)."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(nn.Linear(features, hidden), nn.ELU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features)[..., 0]


class LatentWorldModel(nn.Module):
    """Encoder, state space, decoder, reward, and whether an episode continues.

    `encoder`: used in place of the convolutions.
    """

    def __init__(self, size: WorldSize, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.size = size
        sizes = {"action_dim": size.action_dim, "embedding": size.embedding, "deterministic": size.deterministic,
                 "hidden": size.hidden}
        if size.rssm == "gaussian":
            sizes["stochastic"] = size.stochastic
        self.rssm: StateSpace = KINDS[size.rssm](**sizes)
        self.features = self.rssm.deterministic + self.rssm.stochastic
        self.encoder = Encoder(size) if encoder is None else encoder
        self.decoder = Decoder(size, self.features)
        self.reward = Scalar(self.features + size.condition, size.hidden)
        self.continues = Scalar(self.features, size.hidden)

    def judged(self, features: Tensor, reward: Tensor, done: Tensor, condition: Tensor | None = None) -> Tensor:
        """Two losses (...) of (..., F) features: squared error of the (...) reward, and cross entropy of whether the
        episode ends there."""
        read = features if condition is None else torch.cat([features, condition], dim=-1)
        ending = functional.binary_cross_entropy_with_logits(self.continues(features), 1 - done, reduction="none")
        return torch.stack([(self.reward(read) - reward).square(), ending])

    def loss(
        self, images: Tensor, actions: Tensor, rewards: Tensor, done: Tensor, noise: Tensor | None = None,
        kl_scale: float = 1.0, free: float = 3.0,
    ) -> dict[str, Tensor]:
        """Losses for (B, T, cameras, 3, image, image) images in [-1, 1], with the (B, T, A) actions commanded at their
        steps, (B, T) rewards and (B, T) 1 at the end of the episode."""
        embeddings = self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        before = functional.pad(actions[:, :-1], (0, 0, 1, 0))
        beliefs, prior, posterior = self.rssm.observe(self.rssm.begin(len(images)), before, embeddings, noise)
        reconstruction = (self.decoder(beliefs.features.flatten(0, 1)) - images.flatten(0, 1)).square().mean()
        reward, ending = self.judged(beliefs.features, rewards, done).mean(dim=(1, 2))
        kl = divergence(posterior, prior, free).mean()
        terms = {"reconstruction": reconstruction, "reward": reward, "ending": ending, "kl": kl}
        return {"loss": reconstruction + reward + ending + kl_scale * kl} | terms

    def imagine(self, belief: Belief, actions: Tensor, noise: Tensor | None = None) -> tuple[Belief, Tensor, Tensor]:
        """Beliefs after (B, T, A) actions, their rewards and the probabilities that the episode continues, (B, T)."""
        beliefs = self.rssm.imagine(belief, actions, noise)
        return beliefs, self.reward(beliefs.features), self.continues(beliefs.features).sigmoid()
