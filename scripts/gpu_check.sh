#!/usr/bin/env bash
# What can only be seen on a GPU, with torch and transformers alone: does it train as the CPU does, and what does
# each method cost at Pythia-70M's micro-batch in bf16. Writes JSON lines into the folder given; a few minutes.
#
#   scripts/gpu_check.sh docs/results
set -euo pipefail
output=${1:?usage: scripts/gpu_check.sh FOLDER}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
mkdir -p "$output"

"$python" -m l2e.benchmarks.device_check >"$output/device-check.json.tmp"
mv "$output/device-check.json.tmp" "$output/device-check.json"

"$python" -m l2e.benchmarks.overhead model="${MODEL:-pythia-70m}" batch_size="${BATCH:-32}" \
    seq_length="${LENGTH:-2048}" precision=bf16 rounds="${ROUNDS:-10}" >"$output/overhead-gpu.json.tmp"
mv "$output/overhead-gpu.json.tmp" "$output/overhead-gpu.json"
