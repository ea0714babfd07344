#!/usr/bin/env bash
# All that can only be seen on a GPU, with torch, triton and transformers alone, in under 9 minutes:
# does it train as the CPU does, do the kernels find what PyTorch finds and how near are they to the memory's
# bandwidth, what is left of a penalty in half precision, what does the fused loss save, and Table 2.
# Each part has its own time, after which it is stopped; what it wrote until then stays, and the next part runs.
#
#   scripts/gpu_check.sh docs/results
#
# Writes device-check.json, kernel-check.json, half-precision.json, loss-heads.json, table2-<device>.json and
# gpu-check.json (the state of each part and its seconds) into the folder. Ends with 1 if a part failed or ran out of its time.
set -uo pipefail
output=${1:?usage: scripts/gpu_check.sh FOLDER}
mkdir -p "$output"
output=$(cd "$output" && pwd)
python=${PYTHON:-python3}
cd "$(dirname "$0")/.." || exit
read -ra kernels <<<"${KERNELS:-}"
read -ra half <<<"${HALF:-}"
read -ra loss <<<"${LOSS:-}"
read -ra table2 <<<"${TABLE2:-}"
failed=0
told=""

# part NAME SECONDS FILE MODULE ARGUMENTS...: FILE gets what the module prints; "" where it writes files itself.
part() {
    local name=$1 limit=$2 file=$3 module=$4 began=$SECONDS status="done"
    shift 4
    local printed="$output/.$name.tmp"
    timeout --kill-after=10 "$limit" "$python" -m "l2e.benchmarks.$module" "$@" >"$printed" || {
        status="failed with exit code $?"
        failed=1
    }
    if [ -n "$file" ] && tail -n 1 "$printed" | "$python" -m json.tool --indent 1 >"$printed.json" 2>/dev/null; then
        mv "$printed.json" "$output/$file"
    fi
    rm -f "$printed" "$printed.json"
    told="$told${told:+, }\"$name\": {\"status\": \"$status\", \"seconds\": $((SECONDS - began)), \"limit\": $limit}"
    echo "{\"parts\": {$told}}" >"$output/gpu-check.json"
    echo "$name: $status after $((SECONDS - began)) s" >&2
}

part correctness "${CORRECTNESS_SECONDS:-100}" device-check.json device_check
part kernels "${KERNELS_SECONDS:-45}" kernel-check.json kernel_check "${kernels[@]}"
part half-precision "${HALF_SECONDS:-40}" half-precision.json half_precision "${half[@]}"
part loss "${LOSS_SECONDS:-40}" loss-heads.json loss_heads "${loss[@]}"
part table2 "${TABLE2_SECONDS:-305}" "" table2 minutes="${TABLE2_MINUTES:-4}" rounds="${ROUNDS:-8}" output="$output" "${table2[@]}"
exit $failed
