"""benchmarks/gpu: the count of launches, and the published sizes, on the meta device."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks/gpu"))
import gpu_subjects
import launches

from vla_ros.bench.subjects import pi0_config
from vla_ros.nn.fused import fuse
from vla_ros.nn.meta import without_numbers
from vla_ros.policies.pi0.model import Pi0


@pytest.mark.parametrize("name", ["groot", "openvla"])
def test_published_sizes_take_their_observation(name):
    """On the meta device: shapes alone."""
    make, batch = getattr(gpu_subjects, name)("full", 2)
    with without_numbers():
        policy = make()
    policy = policy.store_as(torch.bfloat16).to("meta").eval()
    batch = {name: value.to("meta") for name, value in batch.items()}
    draws = {name: torch.empty(shape, device="meta") for name, shape in policy.draws(1).items()}
    with torch.no_grad():
        actions = policy.act(policy.encode(batch, policy.begin(1), draws), draws, policy.prepare()).actions
    assert actions.shape == ((1, 40, 132) if name == "groot" else (1, 7))


def test_the_counter_counts_what_is_no_view():
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(64, 32, bias=False)

    with torch.device("meta"):
        module, x = One(), torch.empty(8, 64)
        mask = torch.empty(1, 8, dtype=torch.bool)
    with torch.no_grad(), launches.CountLaunches(module) as counted:
        y = module.linear(x[None].transpose(0, 1)).view(1, 8, 32)
        y = functional.rms_norm(y, (32,))
        functional.scaled_dot_product_attention(y, y, y, attn_mask=mask)
        torch.empty(100, device="meta").copy_(x.flatten()[:100])
    found = counted.found
    assert found.kinds == {"mm": 1, "rms_norm": 1, "mask of bools": 1, "attention": 1, "copy_": 1}
    assert found.weights == 4 * 32 * 64
    size = 4 * 8 * 32
    product, norm, attention = 4 * 8 * 64 + found.weights + size, 2 * size, 8 + 2 * (1 + 4) * 8 // 2 + 4 * size
    assert found.moved == found.bytes.total() == product + norm + attention + 800


@pytest.mark.parametrize("adaptive, fused, most", [
    (False, False, 5450), (True, False, 5600), (False, True, 1600), (True, True, 1850),
])
def test_launches_of_the_published_size(adaptive, fused, most):
    """What a change adds unnoticed is noticed here."""
    with without_numbers():
        policy = Pi0(pi0_config("full", 3, adaptive))
    if fused:
        pytest.importorskip("triton")
        fuse(policy)
    found = launches.pass_of(launches.count(policy.store_as(torch.bfloat16).eval(), 10), 10)
    assert found["launches"] <= most
    assert found["bound_gb"] == pytest.approx(11.5, rel=0.1)
