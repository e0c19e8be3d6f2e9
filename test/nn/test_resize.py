"""Smooth resizing, and what takes its place in an exported graph."""

import pytest
import torch

from vla_ros.nn.resize import resize_smooth


class Resized(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return resize_smooth(x, self.size)


@pytest.mark.parametrize("size", [(5, 9), (16, 12), (31, 40), (3, 24)])
def test_the_exported_form_is_the_same(size):
    x = torch.randn(2, 3, 16, 12, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(Resized(size), (x,))
    assert not any("upsample" in str(node.target) for node in program.graph.nodes)
    assert torch.allclose(program.module()(x), Resized(size)(x), rtol=0, atol=2e-6)
