"""The Triton kernels beside the plain operations, in Triton's interpreter where there is no GPU."""

import pytest
import torch

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # for `-m gpu`

import families

from vla_ros.core.errors import InputError
from vla_ros.nn import kernels
from vla_ros.nn.embeddings import rotary_table, rotate
from vla_ros.nn.fused import FusedTower
from vla_ros.nn.norms import RMSNorm
from vla_ros.runtime.network import private_copy
from vla_ros.runtime.session import PolicySession, SessionOptions

TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(DEVICE, dtype)


def assert_near(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    near = 3e-6 if found.dtype == torch.float32 else 0.01  # of the largest: bfloat16 is rounded once, not twice
    assert float((found - expected).abs().max()) <= near * float(expected.abs().max())


@TYPES
@pytest.mark.parametrize("adds", [False, True])
def test_add_norm(dtype, adds):
    norm = RMSNorm(48).to(DEVICE)
    norm.weight.data = numbers(48)
    x, more = numbers(2, 3, 48, dtype=dtype), numbers(3, 2, 48, dtype=dtype).transpose(0, 1)
    total, out = kernels.add_norm(x, more if adds else None, norm.scale().detach(), norm.eps)
    if adds:
        assert_near(total, x + more)
    assert_near(out, norm(x + more if adds else x)[0].detach())


@TYPES
@pytest.mark.parametrize("shared", [1, 2])
def test_turn(dtype, shared):
    size, count, length = 24, 4, 5
    heads = numbers(2, length, (count + 2 * shared) * size, dtype=dtype)
    parts = heads.unflatten(-1, (-1, size)).transpose(1, 2).split([count, shared, shared], dim=1)
    for positions in (torch.arange(length)[None], torch.arange(2 * length).view(2, length) * 7):
        table = rotary_table(positions.to(DEVICE), size)
        room = numbers(2, 2, shared, length + 3, size, dtype=dtype)
        kept = room[..., :3, :].clone()
        query = kernels.turn(heads, *table, room[0, :, :, 3:], room[1, :, :, 3:])
        assert_near(query.transpose(1, 2), rotate(parts[0], table))
        assert_near(room[0, :, :, 3:], rotate(parts[1], table))
        assert torch.equal(room[1, :, :, 3:], parts[2]) and torch.equal(room[..., :3, :], kept)


@TYPES
def test_gated(dtype):
    both = 3 * numbers(2, 3, 2 * 40, dtype=dtype)
    gate, up = both.chunk(2, dim=-1)
    assert_near(kernels.gated(both), torch.nn.functional.gelu(gate, approximate="tanh") * up)


@torch.no_grad()
def test_a_policy_with_fused_towers_answers_the_same():
    loaded = families.fresh("pi0")
    policy = loaded.policy.to(DEVICE)
    batch = loaded.processor.inputs([families.sample(loaded.processor)])
    batch = {name: value.to(DEVICE) for name, value in batch.items()}
    draws = {name: numbers(*shape) for name, shape in policy.draws(1).items()}
    plain = policy.predict(batch, draws)
    policy.prefix, policy.expert = FusedTower(policy.prefix), FusedTower(policy.expert)
    assert_near(private_copy(policy).predict(batch, draws), plain)


@pytest.mark.gpu
def test_fused_towers_can_be_recorded():
    loaded = families.fresh("pi0")
    policy = loaded.policy.store_as(torch.bfloat16).to("cuda")
    policy.prefix, policy.expert = FusedTower(policy.prefix), FusedTower(policy.expert)
    sessions = [PolicySession(loaded, SessionOptions(graph=graph, seed=1)) for graph in (False, True)]
    for seed in range(2):
        (x,), (y,) = (session.infer([families.sample(loaded.processor, seed)]) for session in sessions)
        assert torch.equal(x.answer, y.answer)


def test_adaptive_norms_are_refused():
    with pytest.raises(InputError, match="adaptive norms"):
        FusedTower(families.fresh("pi05").policy.expert)
