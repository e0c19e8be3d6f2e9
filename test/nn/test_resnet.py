"""A frozen normalisation may be in the weights or behind them, channels first or last: the features are the same."""

import torch
from torch import nn

from vla_ros.nn import resnet
from vla_ros.nn.resnet import FrozenBatchNorm, ResNet


def plain(conv: nn.Conv2d, norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return norm(conv(x))


def network(name: str) -> ResNet:
    torch.manual_seed(0)
    made = ResNet(name, width=8).eval()
    for module in made.modules():
        if isinstance(module, FrozenBatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_()
    return made


@torch.no_grad()
def test_features_do_not_depend_on_how_they_are_computed(monkeypatch):
    for name in ("resnet18", "resnet50"):
        made, images = network(name), torch.randn(2, 3, 240, 320)
        features = made(images)
        assert features.is_contiguous(memory_format=torch.channels_last)  # this picture is a large one
        monkeypatch.setattr(resnet, "LARGE", images.numel())
        monkeypatch.setattr(resnet, "normalised", plain)
        expected = made(images)
        monkeypatch.undo()
        assert expected.is_contiguous()
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
