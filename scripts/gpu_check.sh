#!/usr/bin/env bash
# What can only be seen on a GPU, with torch, triton and transformers alone: does it train as the CPU does, do the
# kernels find what PyTorch finds and how near are they to the memory's bandwidth, and what does each method cost at
# Pythia-70M's micro-batch in bf16. Writes JSON lines into the folder given; a few minutes.
#
#   scripts/gpu_check.sh docs/results
set -euo pipefail
output=${1:?usage: scripts/gpu_check.sh FOLDER}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
mkdir -p "$output"

"$python" -m l2e.benchmarks.device_check >"$output/device-check.json.tmp"
mv "$output/device-check.json.tmp" "$output/device-check.json"

"$python" -m l2e.benchmarks.kernel_check --shrink "${SHRINK:-1}" --rounds "${ROUNDS:-20}" >"$output/kernel-check.json.tmp"
mv "$output/kernel-check.json.tmp" "$output/kernel-check.json"

"$python" -m l2e.benchmarks.overhead model="${MODEL:-pythia-70m}" batch_size="${BATCH:-32}" \
    seq_length="${LENGTH:-2048}" precision=bf16 rounds="${ROUNDS:-10}" >"$output/overhead-gpu.json.tmp"
mv "$output/overhead-gpu.json.tmp" "$output/overhead-gpu.json"
