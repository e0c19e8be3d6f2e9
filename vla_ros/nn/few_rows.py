"""Triton kernels of a Gemma layer for few tokens, when most of the time is spent on reading the weights: the norm is
fused into the product that follows it, which reads the rows anyway. Products accumulate in float32; their factors have
the type of the rows.

Block sizes are calculated for an H100 (as many programs as it has multiprocessors); they were not measured on a GPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST = 128  # rows; with more, products are limited by arithmetic, and cuBLAS is faster


@triton.jit
def _normed_products(
    x, weight, scale, shift, row, known, first, second, inside, epsilon, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, SHIFT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The RMS norm of rows of `x` times the rows `first` and `second` of the weight: (ROWS, COLUMNS) float32 each.

    With SHIFT the norm is moved by that before: the products of the weight and it, the same for all rows, are added.
    """
    one, two = tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((ROWS, COLUMNS), tl.float32)
    left, right = tl.zeros((COLUMNS,), tl.float32), tl.zeros((COLUMNS,), tl.float32)
    squares, within = tl.zeros((ROWS,), tl.float32), known[:, None]
    for start in range(0, WIDTH, DEPTH):
        k = start + tl.arange(0, DEPTH)
        there = k < WIDTH
        value = tl.load(x + row[:, None] * WIDTH + k[None, :], mask=within & there[None, :], other=0.0).to(tl.float32)
        squares += tl.sum(value * value, 1)
        value = value * tl.load(scale + k, mask=there, other=0.0)[None, :]
        cell = there[:, None] & inside[None, :]
        a = tl.load(weight + first[None, :] * WIDTH + k[:, None], mask=cell, other=0.0)
        b = tl.load(weight + second[None, :] * WIDTH + k[:, None], mask=cell, other=0.0)
        if SHIFT:
            moved = tl.load(shift + k, mask=there, other=0.0)[:, None]
            left, right = left + tl.sum(a.to(tl.float32) * moved, 0), right + tl.sum(b.to(tl.float32) * moved, 0)
        value = value.to(weight.dtype.element_ty)
        if WIDE:  # the interpreter cannot multiply bfloat16
            value, a, b = value.to(tl.float32), a.to(tl.float32), b.to(tl.float32)
        one = tl.dot(value, a, one, input_precision="ieee")
        two = tl.dot(value, b, two, input_precision="ieee")
    shrink = tl.rsqrt(squares / WIDTH + epsilon)[:, None]
    return one * shrink + left[None, :], two * shrink + right[None, :]


@triton.jit
def _norm_turn_kernel(
    x, weight, scale, shift, cos, sin, query, keys, values, rows, epsilon, length, count, shared, table_row, key_row,
    key_head, value_row, value_head, HALF: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, SHIFT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    known, inside, size = token < rows, column < HALF, 2 * HALF
    first = (head * size + column).to(tl.int64)
    one, two = _normed_products(x, weight, scale, shift, token.to(tl.int64), known, first, first + HALF, inside,
                                epsilon, WIDTH, ROWS, COLUMNS, DEPTH, SHIFT, WIDE)  # fmt: skip
    row, place, cell = (token // length).to(tl.int64), token % length, known[:, None] & inside[None, :]
    if head < count + shared:
        turn = (row * table_row + place * size + HALF)[:, None] + column[None, :]  # the positive half of the sines
        c, s = tl.load(cos + turn, mask=cell, other=0.0), tl.load(sin + turn, mask=cell, other=0.0)
        one, two = one * c - two * s, two * c + one * s
    if head < count:
        target = query + ((row * length + place) * count + head) * size
    elif head < count + shared:
        target = keys + row * key_row + (head - count) * key_head + place * size
    else:
        target = values + row * value_row + (head - count - shared) * value_head + place * size
    target = target[:, None] + column[None, :]
    tl.store(target, one.to(query.dtype.element_ty), mask=cell)
    tl.store(target + HALF, two.to(query.dtype.element_ty), mask=cell)


@torch.library.custom_op("vla_ros::norm_turn", mutates_args=("keys", "values"))
def norm_turn(
    x: Tensor, scale: Tensor, epsilon: float, weight: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor,
    shift: Tensor | None = None,
) -> Tensor:
    """`kernels.turn` of the product of a ((count + 2 shared) D, width) weight and the RMS norm of (B, S, width) `x`
    with its float32 scale and optional shift, of `width` numbers each: queries (B, S, count, D); keys and values are
    written to their destination."""
    x, (rows, shared, length, size) = x.contiguous(), keys.shape
    count = len(weight) // size - 2 * shared
    query = x.new_empty(rows, length, count, size)
    tokens, columns = rows * length, 16
    block = _rows(tokens)
    grid = triton.cdiv(tokens, block), count + 2 * shared, triton.cdiv(size // 2, columns)
    _norm_turn_kernel[grid](
        x, weight, scale, scale if shift is None else shift.contiguous(), cos, sin, query, keys, values, tokens,
        epsilon, length, count, shared,
        cos.stride(0) if cos.shape[0] > 1 else 0, keys.stride(0), keys.stride(1), values.stride(0), values.stride(1),
        HALF=size // 2, WIDTH=x.shape[-1], ROWS=block, COLUMNS=columns, DEPTH=64, SHIFT=shift is not None,
        WIDE=not x.is_cuda, num_stages=4,
    )  # fmt: skip
    return query


@norm_turn.register_fake
def _(x: Tensor, scale: Tensor, epsilon: float, weight: Tensor, cos: Tensor, sin: Tensor, keys: Tensor,
      values: Tensor, shift: Tensor | None = None) -> Tensor:  # fmt: skip
    rows, shared, length, size = keys.shape
    return x.new_empty(rows, length, len(weight) // size - 2 * shared, size)


@triton.jit
def _norm_gated_kernel(
    x, weight, scale, shift, out, rows, hidden, epsilon, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr, SHIFT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    known, inside = token < rows, column < hidden
    gate, up = _normed_products(x, weight, scale, shift, token, known, column, column + hidden, inside, epsilon,
                                WIDTH, ROWS, COLUMNS, DEPTH, SHIFT, WIDE)  # fmt: skip
    # tanh(u) = 2 sigmoid(2 u) - 1
    gelu = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    place = token[:, None] * hidden + column[None, :]
    tl.store(out + place, (gelu * up).to(out.dtype.element_ty), mask=known[:, None] & inside[None, :])


@torch.library.custom_op("vla_ros::norm_gated", mutates_args=())
def norm_gated(x: Tensor, scale: Tensor, epsilon: float, weight: Tensor, shift: Tensor | None = None) -> Tensor:
    """`kernels.gated` of the product of a (2 · hidden, width) weight and the RMS norm of (..., width) `x` with its
    float32 scale and optional shift, of `width` numbers each: (..., hidden)."""
    x, hidden, width = x.contiguous(), len(weight) // 2, x.shape[-1]
    out = x.new_empty(*x.shape[:-1], hidden)
    rows, columns = x.numel() // width, 32
    block = _rows(rows)
    _norm_gated_kernel[(triton.cdiv(rows, block), triton.cdiv(hidden, columns))](
        x, weight, scale, scale if shift is None else shift.contiguous(), out, rows, hidden, epsilon, WIDTH=width,
        ROWS=block, COLUMNS=columns, DEPTH=64, SHIFT=shift is not None, WIDE=not x.is_cuda, num_stages=4,
    )  # fmt: skip
    return out


@norm_gated.register_fake
def _(x: Tensor, scale: Tensor, epsilon: float, weight: Tensor, shift: Tensor | None = None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight) // 2)


@triton.jit
def _attend_kernel(
    query, keys, values, mask, out, queries, shared, groups, length, key_row, key_head, value_row, value_head,
    mask_row, shrink, KNOWN: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Each program: ROWS of the queries that share a head of keys, over all keys."""
    which, head = tl.program_id(1).to(tl.int64) // shared, tl.program_id(1).to(tl.int64) % shared
    number = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column, inside = tl.arange(0, BLOCK), number < queries
    within = column < SIZE
    # Query `number` is head `number % groups` of those that share the keys, of token `number // groups`.
    token = which * length + number // groups
    place = ((token * shared + head) * groups + number % groups)[:, None] * SIZE + column[None, :]
    cell = inside[:, None] & within[None, :]
    asked = tl.load(query + place, mask=cell, other=0.0)
    total, found = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    most = tl.full((ROWS,), float("-inf"), tl.float32)
    keys += which * key_row + head * key_head
    values += which * value_row + head * value_head
    for start in range(0, KNOWN, COLUMNS):
        k = start + tl.arange(0, COLUMNS)
        there = k < KNOWN
        part = there[:, None] & within[None, :]
        key = tl.load(keys + k[:, None] * SIZE + column[None, :], mask=part, other=0.0)
        value = tl.load(values + k[:, None] * SIZE + column[None, :], mask=part, other=0.0)
        if WIDE:
            score = tl.dot(asked.to(tl.float32), tl.trans(key.to(tl.float32)), input_precision="ieee")
        else:
            score = tl.dot(asked, tl.trans(key), input_precision="ieee")
        added = tl.load(mask + which * mask_row + k, mask=there, other=float("-inf")).to(tl.float32)
        score = score * shrink + added[None, :]
        higher = tl.maximum(most, tl.max(score, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # for rows that have seen no key yet
        weight, fade = tl.exp(score - base[:, None]), tl.exp(most - base)
        total = total * fade + tl.sum(weight, 1)
        weight = weight.to(key.dtype)
        if WIDE:
            found = found * fade[:, None] + tl.dot(weight.to(tl.float32), value.to(tl.float32), input_precision="ieee")
        else:
            found = found * fade[:, None] + tl.dot(weight, value, input_precision="ieee")
        most = higher
    tl.store(out + place, (found / total[:, None]).to(out.dtype.element_ty), mask=cell)


@torch.library.custom_op("vla_ros::attend", mutates_args=())
def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention of few queries (B, S, count, D) over many keys and values (B, shared, K, D): (B, S, count · D).

    `mask`: (B, 1, 1, K), added to the scores of all queries; each row must see at least one key.
    """
    query, (rows, length, count, size), (shared, known) = query.contiguous(), query.shape, keys.shape[1:3]
    out, groups = query.new_empty(rows, length, count * size), count // shared
    queries, block = length * groups, 16
    _attend_kernel[(triton.cdiv(queries, block), rows * shared)](
        query, keys, values, mask, out, queries, shared, groups, length, keys.stride(0), keys.stride(1),
        values.stride(0), values.stride(1), mask.stride(0), size**-0.5, KNOWN=known, SIZE=size,
        BLOCK=max(16, triton.next_power_of_2(size)), ROWS=block, COLUMNS=32, WIDE=not query.is_cuda,
    )  # fmt: skip
    return out


@attend.register_fake
def _(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    return query.new_empty(*query.shape[:2], query.shape[2] * query.shape[3])


def _rows(count: int) -> int:
    """Rows of a block: the minimum of a tensor-core product, or all rows of a chunk."""
    return 16 if count <= 16 else 64
