"""Triton kernels of the operations between the products of a layer: they compute in float32 and round at the end.

They need triton, a dependency of torch for a GPU. Without a GPU they run in Triton's interpreter
(`TRITON_INTERPRET=1`), which is slow and only meant for tests.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _summed(x, more, gate, total, place, own, inside, ADD: tl.constexpr, GATE: tl.constexpr):
    """A row of x in float32; with ADD its sum with `more` (GATE: times `gate`), rounded to the type of `total`."""
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        added = tl.load(more + place, mask=inside, other=0.0).to(tl.float32)
        if GATE:
            added *= tl.load(gate + own, mask=inside, other=0.0).to(tl.float32)
        value = (value + added).to(total.dtype.element_ty)
        tl.store(total + place, value, mask=inside)
        value = value.to(tl.float32)
    return value


@triton.jit
def _add_norm_kernel(
    x, more, gate, scale, shift, total, out, width, epsilon, length, outer, inner, ADD: tl.constexpr,
    GATE: tl.constexpr, SHIFT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside, place = column < width, row.to(tl.int64) * width + column
    own = (row // length) * outer + (row % length) * inner + column
    value = _summed(x, more, gate, total, place, own, inside, ADD, GATE)
    shrink = tl.rsqrt(tl.sum(value * value, 0) / width + epsilon)
    normed = value * shrink * tl.load(scale + own, mask=inside, other=0.0)
    if SHIFT:
        normed += tl.load(shift + own, mask=inside, other=0.0)
    tl.store(out + place, normed.to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("vla_ros::add_norm", mutates_args=())
def add_norm(
    x: Tensor, more: Tensor | None, scale: Tensor, epsilon: float, shift: Tensor | None = None,
    gate: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The sum of (..., width) `x` and `more`, and its RMS norm times the (width,) float32 scale; without `more` the sum
    is empty.

    Adaptive norms have an (N, R, width) float32 scale and `shift`, of one or of all of the N · R rows of `x`; `gate`,
    of the same shape, is what `more` is multiplied with.
    """
    x, width = x.contiguous(), x.shape[-1]
    total, out = (torch.empty_like(x) if more is not None else x.new_empty(0)), torch.empty_like(x)
    many, rows = scale.shape[:2] if scale.dim() == 3 else (1, 1)
    more, gate, scale, shift = (x if part is None else part.contiguous() for part in (more, gate, scale, shift))
    grid, block = (x.numel() // width,), triton.next_power_of_2(width)
    _add_norm_kernel[grid](
        x, more, gate, scale, shift, total, out, width, epsilon, x.shape[-2], rows * width if many > 1 else 0,
        width if rows > 1 else 0, ADD=total.numel() > 0, GATE=gate is not x, SHIFT=shift is not x, BLOCK=block,
    )  # fmt: skip
    return total, out


@add_norm.register_fake
def _(x: Tensor, more: Tensor | None, scale: Tensor, epsilon: float, shift: Tensor | None = None,
      gate: Tensor | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape if more is not None else 0), x.new_empty(x.shape)


@triton.jit
def _add_layer_norm_kernel(
    x, more, weight, bias, total, out, width, epsilon, ADD: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    inside, place = column < width, tl.program_id(0).to(tl.int64) * width + column
    value = _summed(x, more, more, total, place, column, inside, ADD, False)
    value = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    value = value * tl.rsqrt(tl.sum(value * value, 0) / width + epsilon)
    normed = value * tl.load(weight + column, mask=inside, other=0.0) + tl.load(bias + column, mask=inside, other=0.0)
    tl.store(out + place, normed.to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("vla_ros::add_layer_norm", mutates_args=())
def add_layer_norm(
    x: Tensor, more: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """As `add_norm`, with the LayerNorm of a (width,) float32 weight and bias."""
    x, width = x.contiguous(), x.shape[-1]
    total, out = (torch.empty_like(x) if more is not None else x.new_empty(0)), torch.empty_like(x)
    more = x if more is None else more.contiguous()
    grid, block = (x.numel() // width,), triton.next_power_of_2(width)
    _add_layer_norm_kernel[grid](x, more, weight, bias, total, out, width, epsilon, ADD=total.numel() > 0, BLOCK=block)
    return total, out


@add_layer_norm.register_fake
def _(x: Tensor, more: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape if more is not None else 0), x.new_empty(x.shape)


@triton.jit
def _turn_kernel(
    heads, cos, sin, query, keys, values, length, total, count, shared, table_row, key_row, key_head, value_row,
    value_head, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0), tl.program_id(1)
    row, place, size = token // length, token % length, 2 * HALF
    column = tl.arange(0, BLOCK)
    inside = column < HALF
    source = heads + (token.to(tl.int64) * total + head) * size + column
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, mask=inside, other=0.0).to(tl.float32)
    if head < count + shared:
        turn = row * table_row + place * size + HALF + column  # the second half of the sines is positive
        c, s = tl.load(cos + turn, mask=inside, other=0.0), tl.load(sin + turn, mask=inside, other=0.0)
        first, second = first * c - second * s, second * c + first * s
    if head < count:
        target = query + (token.to(tl.int64) * count + head) * size + column
    elif head < count + shared:
        target = keys + row.to(tl.int64) * key_row + (head - count) * key_head + place * size + column
    else:
        target = values + row.to(tl.int64) * value_row + (head - count - shared) * value_head + place * size + column
    tl.store(target, first.to(query.dtype.element_ty), mask=inside)
    tl.store(target + HALF, second.to(query.dtype.element_ty), mask=inside)


@torch.library.custom_op("vla_ros::turn", mutates_args=("keys", "values"))
def turn(heads: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Queries (B, S, count, D) and, written to their destination, keys and values (B, shared, S, D), from the product
    of one matrix (B, S, (count + 2 shared) D); queries and keys are rotated by a `rotary_table`."""
    heads = heads.contiguous()
    (rows, shared, length, size), total = keys.shape, heads.shape[2] // keys.shape[3]
    count = total - 2 * shared
    query = heads.new_empty(rows, length, count, size)
    table = cos.stride(0) if cos.shape[0] > 1 else 0
    _turn_kernel[(rows * length, total)](
        heads, cos, sin, query, keys, values, length, total, count, shared, table, keys.stride(0), keys.stride(1),
        values.stride(0), values.stride(1), HALF=size // 2, BLOCK=triton.next_power_of_2(size // 2),
    )  # fmt: skip
    return query


@turn.register_fake
def _(heads: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    rows, shared, length, size = keys.shape
    return heads.new_empty(rows, length, heads.shape[2] // size - 2 * shared, size)


@triton.jit
def _gated_kernel(both, out, width, BLOCK: tl.constexpr):
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, row = column < width, tl.program_id(0).to(tl.int64)
    gate = tl.load(both + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    # tanh(u) = 2 sigmoid(2 u) - 1
    gelu = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    tl.store(out + row * width + column, (gelu * up).to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("vla_ros::gated", mutates_args=())
def gated(both: Tensor) -> Tensor:
    """(..., 2 · width) gate and up to gelu(gate) · up, (..., width), with the tanh form of GELU."""
    both, width = both.contiguous(), both.shape[-1] // 2
    out = both.new_empty(*both.shape[:-1], width)
    block = min(1024, triton.next_power_of_2(width))
    _gated_kernel[(out.numel() // width, triton.cdiv(width, block))](both, out, width, BLOCK=block)
    return out


@gated.register_fake
def _(both: Tensor) -> Tensor:
    return both.new_empty(*both.shape[:-1], both.shape[-1] // 2)
