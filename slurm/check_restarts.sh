#!/usr/bin/env bash
# check_restarts.sh RUN JOB: write down that JOB starts in the run directory RUN, and refuse
#  - a run directory that another running job uses,
#  - a job that was restarted L2E_IDLE_RESTARTS times (3) in a row without a new checkpoint, export or evaluation.
set -euo pipefail
source slurm/common.sh
run=$1 job=$2
allowed=${L2E_IDLE_RESTARTS:-3}

newest() {
    local found=("$run/$1"/step*)
    if [[ -e ${found[0]} ]]; then printf '%s\n' "${found[@]##*/}" | sort -V | tail -n 1; else echo none; fi
}

# Beside the run directory: rank 0 makes that itself, and refuses one that holds something else.
record="$(dirname "$run")/.slurm/$(basename "$run").starts"
mkdir -p "$(dirname "$record")"
touch "$record"
last=$(tail -n 1 "$record" | cut -f 2)
if [[ -n $last && $last != "$job" && $(squeue --noheader --jobs="$last" --format=%T 2>/dev/null) == RUNNING ]]; then
    fail "job $last is running in $run; cancel it (scancel $last), or give this one another name=..."
fi

reached="checkpoint $(newest checkpoints), export $(newest hf), evaluation $(newest eval)"
printf '%s\t%s\t%s\t%s\n' "$(date '+%F %T')" "$job" "${SLURM_RESTART_COUNT:-0}" "$reached" >>"$record"
idle=$(awk -F '\t' -v job="$job" -v reached="$reached" \
    '$2 == job && $4 == reached { idle++; next } { idle = 0 } END { print idle - 1 }' "$record")
if ((idle > allowed)); then
    fail "restarted $idle times without progress ($reached): not again. Look for the reason above; if the time between \
two interruptions is shorter than between two checkpoints, lower checkpoint.every or checkpoint.every_minutes"
fi
say "job $job, restart ${SLURM_RESTART_COUNT:-0}, in $run: $reached"
