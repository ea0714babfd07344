"""What a device can do at most, for the MFU."""

import re

_PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    (r"NVIDIA H100 80GB HBM3", {"bf16": 989.4, "fp16": 989.4}),
    (r"NVIDIA H100 PCIe", {"bf16": 756.0, "fp16": 756.0}),
    (r"NVIDIA H200", {"bf16": 989.4, "fp16": 989.4}),
    (r"NVIDIA A100[- ].*", {"bf16": 312.0, "fp16": 312.0}),
    (r"Tesla V100-SXM2-.*", {"fp16": 125.0}),
    (r"Tesla V100-PCIE-.*", {"fp16": 112.0}),
    (r"NVIDIA A40", {"bf16": 149.7, "fp16": 149.7}),
    (r"NVIDIA L40S", {"bf16": 362.05, "fp16": 362.05}),
    (r"NVIDIA GeForce RTX 4090", {"bf16": 165.2, "fp16": 165.2}),
)


def peak_tflops(name: str, precision: str) -> float | None:
    """Dense matrix products of one device, in 10^12 FLOP/s, accumulated in fp32; None where it is not known.

    A name must match a product's whole name, for its variants differ (an H100 on a PCIe card reaches 756, as
    a module 989). fp32 is in no row: what it reaches depends on whether TF32 is allowed.

    Args:
        name: as `torch.cuda.get_device_name` gives it.
        precision: "fp32", "bf16" or "fp16".

    Source: NVIDIA's data sheets of the H100 (halved: they count 2:4 sparsity), H200 (halved), A100, V100, A40 and
    L40S Tensor Core GPUs; appendix A of the Ada GPU architecture paper for the RTX 4090.
    """
    return next((peaks.get(precision) for pattern, peaks in _PEAKS if re.fullmatch(pattern, name)), None)
