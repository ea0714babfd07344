"""What GPUs can do and hold.

Peaks are the vendors' for dense matrix products without sparsity (NVIDIA's data sheets of the SXM versions where there
are several); memory is what PyTorch reports as a device's total, which is below the number in its name.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One device: peaks in TFLOP/s of bf16 or fp16 with fp32 sums and of plain fp32; memory in GiB."""

    half_tflops: float
    fp32_tflops: float
    memory_gib: float
    bf16: bool = True


GPUS = {
    "H200": Gpu(989.4, 66.9, 139.8),
    "H100": Gpu(989.4, 66.9, 79.1),
    "A100-80": Gpu(312.0, 19.5, 79.1),
    "A100-40": Gpu(312.0, 19.5, 39.4),
    "L40S": Gpu(362.1, 91.6, 44.4),
    "V100-32": Gpu(125.0, 15.7, 31.7, bf16=False),
}
"""Name to facts; others are planned with memory_gib and peak_tflops."""
