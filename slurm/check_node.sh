#!/usr/bin/env bash
# Run once on every node before the ranks start: sees the repository, has the Python, and the GPUs that SLURM lent it.
set -euo pipefail
expected=$1

if [[ ! -f slurm/common.sh ]]; then
    echo "error: ${SLURMD_NODENAME:-$HOSTNAME} does not see the repository ($PWD): it must lie on a shared file system" >&2
    exit 2
fi
source slurm/common.sh
set_up
[[ ${L2E_DEVICE:-cuda} == cpu ]] && exit 0
seen=$(python -c 'import torch; print(torch.cuda.device_count())') || fail "PyTorch does not start on this node"
((seen == expected)) || fail "SLURM lent $expected GPUs, PyTorch sees $seen: is the driver up (nvidia-smi), is this \
PyTorch built for CUDA (python -c 'import torch; print(torch.version.cuda)')?"
