"""The Triton kernels beside the plain operations, in Triton's interpreter where there is no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # for `-m gpu`

import families

from vla_ros.nn import few_rows, kernels
from vla_ros.nn.attention import added_mask, grouped_attention
from vla_ros.nn.embeddings import rotary_table, rotate
from vla_ros.nn.fused import FusedSiglip, fuse
from vla_ros.nn.gemma import add_gated
from vla_ros.nn.norms import AdaptiveRMSNorm, RMSNorm, layer_normalised
from vla_ros.nn.siglip import Siglip, SiglipSize
from vla_ros.runtime.network import private_copy
from vla_ros.runtime.session import PolicySession, SessionOptions

TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(DEVICE, dtype)


def assert_near(found, expected, coarse=0.01):
    """`coarse`: of bfloat16, of the largest; it is rounded once, not twice, and the interpreter cuts it off."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    near = 3e-6 if found.dtype == torch.float32 else coarse
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
@pytest.mark.parametrize("many, rows", [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_add_norm_that_is_modulated(dtype, many, rows):
    """One modulation for all rows, of each episode, of each token, of both."""
    norm = AdaptiveRMSNorm(48, 16).to(DEVICE)
    norm.dense.weight.data, norm.dense.bias.data = numbers(144, 16), numbers(1, 144)[0]
    scale, shift, gate = norm.modulation(numbers(many, rows, 16), dtype)
    x, more = numbers(2, 3, 48, dtype=dtype), numbers(3, 2, 48, dtype=dtype).transpose(0, 1)
    total, out = kernels.add_norm(x, more, scale.detach(), norm.eps, shift.detach(), gate.detach())
    assert_near(total, add_gated(x, more, gate).detach())
    assert_near(out, norm(total, (scale, shift, gate))[0].detach())


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


@TYPES
@pytest.mark.parametrize("adds", [False, True])
def test_add_layer_norm(dtype, adds):
    norm = torch.nn.LayerNorm(48).to(DEVICE)
    norm.weight.data, norm.bias.data = numbers(48), 3 + numbers(1, 48)[0]
    x, more = 5 + numbers(2, 3, 48, dtype=dtype), numbers(3, 2, 48, dtype=dtype).transpose(0, 1)
    total, out = kernels.add_layer_norm(x, more if adds else None, norm.weight.detach(), norm.bias.detach(), norm.eps)
    if adds:
        assert_near(total, x + more)
    assert_near(out, layer_normalised(norm, x + more if adds else x).detach())


def normed(x, scale, shift):
    """In float64, which no order of sums shows in."""
    x = x.double()
    x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale.double()
    return x if shift is None else x + shift.double()


def modulated(width, moved):
    """A scale and, where the norm is adaptive, a shift."""
    return 1 + 0.1 * numbers(width), numbers(1, width)[0] if moved else None


@TYPES
@pytest.mark.parametrize("shared, length, moved", [(1, 5, True), (2, 20, False)])
def test_norm_turn(dtype, shared, length, moved):
    size, count, width = 40, 2, 72
    x, (scale, shift) = 3 * numbers(2, length, width, dtype=dtype), modulated(width, moved)
    weight = (numbers((count + 2 * shared) * size, width) / 8).to(dtype)
    heads = (normed(x, scale, shift) @ weight.double().t()).unflatten(-1, (-1, size)).transpose(1, 2)
    parts = [part.float() for part in heads.split([count, shared, shared], dim=1)]
    for positions in (torch.arange(length)[None], torch.arange(2 * length).view(2, length) * 7):
        table = rotary_table(positions.to(DEVICE), size)
        room = numbers(2, 2, shared, length + 3, size, dtype=dtype)
        kept = room[..., :3, :].clone()
        query = few_rows.norm_turn(x, scale, 1e-6, weight, *table, room[0, :, :, 3:], room[1, :, :, 3:], shift)
        assert_near(query.transpose(1, 2), rotate(parts[0], table).to(dtype))
        assert_near(room[0, :, :, 3:], rotate(parts[1], table).to(dtype))
        assert_near(room[1, :, :, 3:], parts[2].to(dtype))
        assert torch.equal(room[..., :3, :], kept)


@TYPES
@pytest.mark.parametrize("length, moved", [(3, False), (33, True)])
def test_norm_gated(dtype, length, moved):
    x, (scale, shift) = 3 * numbers(2, length, 72, dtype=dtype), modulated(72, moved)
    weight = (numbers(2 * 40, 72) / 4).to(dtype)
    gate, up = (normed(x, scale, shift) @ weight.double().t()).chunk(2, dim=-1)
    found = few_rows.norm_gated(x, scale, 1e-6, weight, shift)
    assert_near(found, (torch.nn.functional.gelu(gate, approximate="tanh") * up).to(dtype), 0.02)


@TYPES
@pytest.mark.parametrize("shared, size", [(1, 32), (2, 24)])
def test_attend(dtype, shared, size):
    """Of each row other keys are seen; of one none of the first block."""
    length, known = 7, 150
    query = 3 * numbers(2, length, 2 * shared, size, dtype=dtype)
    keys, values = (part[:, :, :known] for part in numbers(2, 2, shared, known + 9, size, dtype=dtype))
    sees = torch.arange(known, device=DEVICE) % 3 != torch.tensor([[0], [1]], device=DEVICE)
    sees[0, :70] = False
    mask = added_mask(sees[:, None, None], dtype)
    exact = [part.double() for part in (query.transpose(1, 2), keys, values, mask)]
    assert_near(few_rows.attend(query, keys, values, mask), grouped_attention(*exact).to(dtype))


@torch.no_grad()
@pytest.mark.parametrize("family", ["pi0", "pi05"])
@pytest.mark.parametrize("most", [0, few_rows.MOST])
def test_a_policy_with_fused_towers_answers_the_same(monkeypatch, family, most):
    """The expert in few launches, and in those of a tower of many tokens."""
    monkeypatch.setattr(few_rows, "MOST", most)
    loaded = families.fresh(family)
    policy = loaded.policy.to(DEVICE)
    batch = loaded.processor.inputs([families.sample(loaded.processor)])
    batch = {name: value.to(DEVICE) for name, value in batch.items()}
    draws = {name: numbers(*shape) for name, shape in policy.draws(1).items()}
    plain = policy.predict(batch, draws, num_steps=2)
    fuse(policy)
    assert_near(private_copy(policy).predict(batch, draws, num_steps=2), plain)


@torch.no_grad()
def test_siglip_with_fused_norms_answers_the_same():
    tower = Siglip(SiglipSize(hidden=48, depth=2, heads=2, mlp=96, patch=8, image=16)).to(DEVICE)
    images = numbers(2, 3, 16, 16)
    assert_near(FusedSiglip(tower)(images), tower(images))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_fused_towers_can_be_recorded(family):
    loaded = families.fresh(family)
    fuse(loaded.policy.store_as(torch.bfloat16).to("cuda"))
    sessions = [PolicySession(loaded, SessionOptions(graph=graph, seed=1)) for graph in (False, True)]
    for seed in range(2):
        (x,), (y,) = (session.infer([families.sample(loaded.processor, seed)]) for session in sessions)
        assert torch.equal(x.answer, y.answer)


def test_kernels_compile_for_a_gpu_that_is_not_there():
    """In another process: here they may be interpreted."""
    if not os.access(Path(triton.__file__).parent / "backends/nvidia/bin/ptxas", os.X_OK):
        pytest.skip("triton's ptxas is not executable")
    script = Path(__file__).parents[2] / "benchmarks/gpu/compile_kernels.py"
    done = subprocess.run([sys.executable, str(script), "--capabilities", "8.9"], capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and all(line["fits"] for line in lines), done.stdout + done.stderr
    names = "norm_turn", "norm_gated", "attend", "add_norm", "add_layer_norm", "turn", "gated"
    assert {line["kernel"] for line in lines} == {f"_{name}_kernel" for name in names}
