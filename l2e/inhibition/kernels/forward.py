"""Triton kernel of the forward pass: one read of the outputs finds everything that an update gathers."""

import triton
import triton.language as tl


@triton.jit
def look_kernel(
    values,
    mean,
    inverse_spread,
    limit,
    first,
    second,
    selected,
    logs,
    mask,
    edited,
    rows,
    size,
    rows_of_part,
    rows_of_limit,
    SUMS: tl.constexpr,
    SCORES: tl.constexpr,
    LOGS: tl.constexpr,
    EDITS: tl.constexpr,
    LIMIT_STRIDE: tl.constexpr,
    PARTIAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: `rows_of_part` rows of BLOCK neurons of `values` [rows, size].

    mean, inverse_spread: [size] fp32. limit: of row r at [r // rows_of_limit x LIMIT_STRIDE].
    SUMS: add the deviations and their squares to first, second [size]; PARTIAL: store them at [part, size] instead.
    SCORES: count the selected into selected [programs]; LOGS: and sum log |deviation| into logs [programs].
    EDITS: write mask [rows, size] int8, and to edited the values with the selected at their mean.

    Every number is summed by one program in the order of the rows, so a run repeats to the bit.
    """
    block = tl.program_id(0)
    part = tl.program_id(1)
    columns = block * BLOCK + tl.arange(0, BLOCK)
    inside = columns < size
    start = part * rows_of_part
    cells = part.to(tl.int64) * rows_of_part * size + columns
    center = tl.load(mean + columns, mask=inside, other=0.0)
    deviations = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    if SCORES:
        scale = tl.load(inverse_spread + columns, mask=inside, other=0.0)
        bound = tl.load(limit)
        count = tl.zeros([BLOCK], tl.int32)
        log_sum = tl.zeros([BLOCK], tl.float32)
    for row in range(start, tl.minimum(start + rows_of_part, rows)):
        raw = tl.load(values + cells, mask=inside, other=0.0)
        deviation = tl.where(inside, wide(raw) - center, 0.0)
        square = deviation * deviation
        if SUMS:
            deviations += deviation
            squares += square
        if SCORES:
            if LIMIT_STRIDE != 0:
                bound = tl.load(limit + row // rows_of_limit * LIMIT_STRIDE)
            chosen = square * scale > bound
            count += chosen.to(tl.int32)
            if LOGS:
                used = chosen & (deviation != 0)
                log_sum += tl.log(tl.where(used, tl.abs(deviation), 1.0))
            if EDITS:
                tl.store(mask + cells, chosen.to(tl.int8), mask=inside)
                tl.store(edited + cells, tl.where(chosen, nearest(center, raw.dtype), raw), mask=inside)
        cells += size
    if SUMS:
        place = columns
        if PARTIAL:
            place = part.to(tl.int64) * size + columns
        else:
            deviations += tl.load(first + place, mask=inside, other=0.0)
            squares += tl.load(second + place, mask=inside, other=0.0)
        tl.store(first + place, deviations, mask=inside)
        tl.store(second + place, squares, mask=inside)
    if SCORES:
        program = part * tl.num_programs(0) + block
        tl.store(selected + program, tl.sum(count, 0))
        if LOGS:
            tl.store(logs + program, tl.sum(log_sum, 0))


@triton.jit
def nearest(values, dtype: tl.constexpr):
    """Round fp32 to `dtype`, ties to even; by hand for bf16, so that the interpreter and every GPU agree."""
    if dtype == tl.bfloat16:
        pattern = values.to(tl.int32, bitcast=True)
        upper = (pattern + 0x7FFF + ((pattern >> 16) & 1)) >> 16
        result = tl.where(values != values, 0x7FC0, upper).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        result = values.to(dtype)
    return result


@triton.jit
def wide(values):
    """fp32 of any type; by hand from bf16, where the interpreter loses the numbers below the smallest normal one."""
    if values.dtype == tl.bfloat16:
        result = (values.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        result = values.to(tl.float32)
    return result
