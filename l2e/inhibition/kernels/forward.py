"""Triton kernel of the forward pass: one read of the outputs finds everything that an update gathers."""

import triton
import triton.language as tl

from l2e.inhibition.kernels import interpreted

INTERPRETED = tl.constexpr(interpreted())
LOG_OF_2 = tl.constexpr(0.6931471805599453)


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
    SCORES: count the selected into selected [programs]; LOGS: and sum log deviation^2 into logs [programs].
    EDITS: write mask [rows, size] int8, and to edited the values with the selected at their mean.

    Every number is summed by one program in the order of the rows, so a run repeats to the bit. Logarithms are taken
    once at the end: exponents are added and mantissas, which lie in [1, 2), multiplied, for 127 rows at most. A
    logarithm in the loop was 24 of its 41 instructions per output (`l2e.benchmarks.kernel_code`).
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
        exponents = tl.zeros([BLOCK], tl.int32)
        mantissas = tl.full([BLOCK], 1.0, tl.float32)
    end = tl.minimum(start + rows_of_part, rows)
    # Two rows are loaded at a time. Stores between them would forbid it, so then they are loaded ahead.
    for row in tl.range(start, end, loop_unroll_factor=1 if EDITS else 2, num_stages=3 if EDITS else 1):
        raw = tl.load(values + cells, mask=inside, other=0.0)
        deviation = wide(raw) - center
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
                pattern = tl.where(chosen, square, 1.0).to(tl.int32, bitcast=True)
                exponents += pattern >> 23
                mantissas *= ((pattern & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
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
            ones = 127 * (end - start)  # 127 is the exponent that stands for 2^0
            tl.store(logs + program, tl.sum(tl.log(mantissas) + LOG_OF_2 * (exponents - ones).to(tl.float32), 0))


@triton.jit
def nearest(values, dtype: tl.constexpr):
    """Round fp32 to `dtype`, ties to even; bf16 by hand in the interpreter, which does not."""
    if INTERPRETED and dtype == tl.bfloat16:
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
