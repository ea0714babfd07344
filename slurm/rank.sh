#!/usr/bin/env bash
# One process of the training step: SLURM's names for its place in the job, in PyTorch's words.
set -euo pipefail

trap '' USR1 # Python takes seconds to get to its own handler, and USR1 would kill it until then; it is sent again
trap : TERM  # goes to Python as well, which this shell must outlive

export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" WORLD_SIZE="$SLURM_NTASKS"
code=0
python "$@" || code=$?

# STOPPED and BAD_INPUT come with the job's environment, from common.sh.
# A stop is no failure of a rank: with another code than 0 srun would kill the ranks that are still ending.
if ((code == STOPPED)); then
    touch "$L2E_STOPPED"
    exit 0
fi
# srun ends the other ranks for it and tells the highest code, which would be theirs.
if ((code == BAD_INPUT)); then
    touch "$L2E_REFUSED"
fi
exit "$code"
