"""A part of each kind, as a package of one's own registers them for composed policies."""

from dataclasses import dataclass

import torch
from torch import nn

from vla_ros.policies import parts
from vla_ros.policies.policy import mean_of_valid


@parts.VISION.register("colours")
class Colours(parts.Vision):
    """Mean colours of an image, as one token."""

    image, tokens, width = 24, 1, 8

    def __init__(self, size, cameras, text_width):
        super().__init__()
        self.layer = nn.Linear(3 + text_width, self.width)

    def forward(self, images, text):
        seen = torch.cat([images.mean(dim=(-2, -1)), text[:, None].expand(-1, images.shape[1], -1)], dim=-1)
        return self.layer(seen.to(self.dtype))[:, :, None]


class Twice(parts.Projector):
    """Each token twice."""

    def __init__(self, size, width, tokens, out):
        super().__init__()
        self.tokens, self.layer = 2 * tokens, nn.Linear(width, out)

    def forward(self, x):
        return self.layer(x.to(self.dtype)).repeat(1, 2, 1)


class Recurrent(parts.Language):
    """A GRU: it, too, sees what is before a token."""

    @dataclass(frozen=True)
    class Size:
        width: int = 16
        vocabulary: int = 0

    def __init__(self, size):
        super().__init__()
        self.width, self.vocabulary = size.width, size.vocabulary
        self.words, self.gru = nn.Embedding(size.vocabulary, size.width), nn.GRU(size.width, size.width)

    def embed(self, tokens):
        return self.words(tokens)

    def forward(self, x, valid):
        return self.gru(x.to(self.dtype).transpose(0, 1))[0].transpose(0, 1)


class Straight(parts.Head):
    """A line from one row to another."""

    def __init__(self, size, width, horizon, action_dim):
        super().__init__()
        self.ends = nn.Linear(width, 2 * action_dim)
        self.register_buffer("along", torch.linspace(0, 1, horizon)[:, None])

    def act(self, features, draws=None, fixed=None, steer=None, step=None):
        first, last = self.ends(features.summary.to(self.dtype)).float()[:, None].chunk(2, dim=-1)
        return first + self.along * (last - first)

    def loss(self, features, actions, pad, **draws):
        return {"loss": mean_of_valid((self.act(features) - actions).square(), pad)}


class Scaled(parts.Encoder):
    """A stream's numbers as one token."""

    tokens = 1

    def __init__(self, size, shape, out):
        super().__init__()
        self.layer = nn.Linear(shape[0], out)

    def forward(self, x, count=None):
        return self.layer(x.to(self.dtype))[:, None]


class Sum(parts.Fusion):
    """The sum of the means."""

    tokens = 1

    def __init__(self, size, width, tokens):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, sources):
        return self.layer(sum(x.mean(dim=1).to(self.dtype) for x in sources.values()))[:, None]


parts.PROJECTORS["twice"] = Twice
parts.LANGUAGES["recurrent"] = Recurrent
parts.HEADS["straight"] = Straight
parts.ENCODERS["scaled"] = Scaled
parts.FUSIONS["sum"] = Sum
COMPOSED = {
    "vision": "colours", "projector": "twice", "language": "recurrent", "head": "straight", "fusion": "sum",
    "encoders": {"force": "scaled"}, "horizon": 4,
}
