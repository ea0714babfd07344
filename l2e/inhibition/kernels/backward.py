"""Triton kernels of the backward pass: one read of each gradient and output, one write."""

import triton
import triton.language as tl

from l2e.inhibition.kernels.forward import nearest, wide


@triton.jit(do_not_specialize=["seed"])
def join_kernel(
    other,
    values,
    mean,
    inverse_spread,
    limit,
    scale,
    weight,
    result,
    totals,
    rows,
    size,
    rows_of_part,
    rows_of_limit,
    programs,
    seed,
    ROUND_AT_RANDOM: tl.constexpr,
    LIMIT_STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """result = other + weight x unit, where unit = 2 scale / (value - mean) on the selected and 0 elsewhere.

    Shapes as in `look_kernel`; the mask is that of the forward pass, because it is found from the same numbers in the
    same way. totals [4, programs] fp32: sums of unit^2 and other^2, how many have a gradient, and how many of
    those are unchanged in the result. No deviation of a selected output is 0: its score is above a limit that is not
    negative.
    """
    block = tl.program_id(0)
    part = tl.program_id(1)
    columns = block * BLOCK + tl.arange(0, BLOCK)
    inside = columns < size
    start = part * rows_of_part
    cells = part.to(tl.int64) * rows_of_part * size + columns
    center = tl.load(mean + columns, mask=inside, other=0.0)
    spread = tl.load(inverse_spread + columns, mask=inside, other=0.0)
    bound = tl.load(limit)
    factor = 2 * tl.load(scale)
    share = tl.load(weight)
    unit_squares = tl.zeros([BLOCK], tl.float32)
    other_squares = tl.zeros([BLOCK], tl.float32)
    tally = tl.zeros([BLOCK], tl.int32)
    for row in tl.range(start, tl.minimum(start + rows_of_part, rows), num_stages=3):
        upstream = tl.load(other + cells, mask=inside, other=0.0)
        deviation = wide(tl.load(values + cells, mask=inside, other=0.0)) - center
        if LIMIT_STRIDE != 0:
            bound = tl.load(limit + row // rows_of_limit * LIMIT_STRIDE)
        used = deviation * deviation * spread > bound
        unit = factor / tl.where(used, deviation, float("inf"))
        before = wide(upstream)
        total = before + share * unit
        if ROUND_AT_RANDOM:
            rounded = at_random(total, draws(seed, row, columns), upstream.dtype)
        else:
            rounded = nearest(total, upstream.dtype)
        tl.store(result + cells, rounded, mask=inside)
        unit_squares += unit * unit
        other_squares += before * before
        # Below: how many; above: how many of them unchanged. Two numbers took 4 of 36 instructions per output more.
        tally += tl.where(used, tl.where(wide(rounded) == before, 65537, 1), 0)
        cells += size
    place = totals + part * tl.num_programs(0) + block
    tl.store(place, tl.sum(unit_squares, 0))
    tl.store(place + programs, tl.sum(other_squares, 0))
    tl.store(place + 2 * programs, tl.sum(tally & 65535, 0).to(tl.float32))
    tl.store(place + 3 * programs, tl.sum(tally >> 16, 0).to(tl.float32))


@triton.jit
def at_random(values, draw, dtype: tl.constexpr):
    """`strength.round_at_random` with the draws given."""
    rounded = nearest(values, dtype)
    exact = wide(rounded)
    error = values - exact
    pattern = rounded.to(tl.int16, bitcast=True)
    outwards = tl.where((error > 0) == (exact > 0), 1, -1).to(tl.int16)
    first = tl.where(error > 0, 1, -32767).to(tl.int16)  # the smallest number on the error's side of zero
    pattern = tl.where(exact == 0, first, pattern + outwards)
    neighbour = pattern.to(dtype, bitcast=True)
    gap = tl.abs(wide(neighbour) - exact)
    return tl.where((error != 0) & (draw * gap < tl.abs(error)), neighbour, rounded)


@triton.jit
def draws(seed, row, columns):
    """A number in [0, 1) for each of these neurons in this row; one call of Philox makes those of four neurons."""
    zeros = columns * 0
    a, b, c, d = tl.philox(seed, columns >> 2, zeros + row, zeros, zeros)
    lane = columns & 3
    drawn = tl.where(lane < 2, tl.where(lane == 0, a, b), tl.where(lane == 2, c, d))
    return tl.uint_to_uniform_float(drawn)


@triton.jit
def scale_kernel(gradient, mask, result, factor, total, BLOCK: tl.constexpr):
    """result = gradient x factor where the int8 mask is set, gradient elsewhere; all [total]."""
    cells = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = cells < total
    upstream = tl.load(gradient + cells, mask=inside, other=0.0)
    chosen = tl.load(mask + cells, mask=inside, other=0) != 0
    scaled = nearest(wide(upstream) * factor, upstream.dtype)
    tl.store(result + cells, tl.where(chosen, scaled, upstream), mask=inside)
