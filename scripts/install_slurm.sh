#!/usr/bin/env bash
# Install the distribution's SLURM and munge for tests/slurm, which start daemons of their own: none runs after this.
# Debian and Ubuntu, as root; does nothing where they are there already. Exits with 1 and a reason where it cannot.
set -euo pipefail

programs=(munged slurmctld slurmd sbatch scontrol squeue sinfo srun scancel)
missing() {
    local program
    for program in "${programs[@]}"; do command -v "$program" >/dev/null || echo "$program"; done
}

export PATH="$PATH:/usr/sbin:/sbin"
[[ -n $(missing) ]] || exit 0
if ((EUID != 0)); then
    echo "install_slurm.sh: not root, cannot install $(missing | xargs)" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "install_slurm.sh: no apt-get here; install munge, slurmctld, slurmd and SLURM's client another way" >&2
    exit 1
fi

# The packages' own services must not start: in a container there is no init to start them, elsewhere nobody asked.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
if [[ -n $(missing) ]]; then
    echo "install_slurm.sh: still missing after the installation: $(missing | xargs)" >&2
    exit 1
fi
