# shellcheck shell=bash
# What the batch scripts share; sourced in the repository's root. For your cluster edit cluster.sh, not this.

export BAD_INPUT=2 # as in l2e/cli/entry.py: wrong settings or a wrong machine, running it again would not help
export STOPPED=85  # stopped by a signal after a checkpoint: run me again

say() { printf '%s %s: %s\n' "$(date '+%F %T')" "${SLURMD_NODENAME:-$HOSTNAME}" "$*" >&2; }

fail() {
    say "error: $*"
    exit "$BAD_INPUT"
}

# load_modules NAME...: for cluster.sh. Older `module` commands return 0 when a module is missing.
load_modules() {
    local name
    [[ $(type -t module) ]] || fail "cluster.sh loads modules, but there is no 'module' command on this node"
    for name in "$@"; do
        module load "$name" || fail "module load $name failed; 'module avail' lists what there is, slurm/cluster.sh what is loaded"
        [[ :${LOADEDMODULES:-}: == *":$name"[:/]* ]] ||
            fail "module $name was not loaded; 'module avail' lists what there is, slurm/cluster.sh what is loaded"
    done
}

# activate_venv FOLDER: for cluster.sh.
activate_venv() {
    [[ -f $1/bin/activate ]] || fail "no virtual environment in $(realpath -m "$1"): run 'make setup', or edit slurm/cluster.sh"
    # shellcheck source=/dev/null
    source "$1/bin/activate"
}

# The environment of cluster.sh, and this checkout's code whatever the virtual environment holds.
set_up() {
    local cluster=${L2E_CLUSTER:-slurm/cluster.sh}
    [[ -f $cluster ]] || fail "$cluster does not exist (L2E_CLUSTER)"
    set +u # activate and module scripts read unset variables
    # shellcheck source=slurm/cluster.sh
    source "$cluster"
    set -u
    export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
    export PYTHONUNBUFFERED=1
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
    python -c 'import l2e' || fail "python cannot import l2e: $(command -v python || echo 'no python'); edit slurm/cluster.sh"
}

# Processes per node: one for each GPU, or what --ntasks-per-node says where L2E_DEVICE=cpu asks for none.
count_tasks() {
    tasks=${SLURM_NTASKS_PER_NODE:-1}
    gpus=${SLURM_GPUS_ON_NODE:-0}
    [[ ${L2E_DEVICE:-cuda} == cpu ]] && return
    [[ ${L2E_DEVICE:-cuda} == cuda ]] || fail "L2E_DEVICE is '$L2E_DEVICE', it must be cuda or cpu"
    ((gpus > 0)) || fail "the job was given no GPU: submit with --gpus-per-node=N (or L2E_DEVICE=cpu for processes without one)"
    ((gpus == tasks)) ||
        fail "$gpus GPUs but $tasks tasks per node: submit with --gpus-per-node=N --ntasks-per-node=N, both the same"
}

# Whether every node of the job answers and has what it was lent. --overlap: a step that died may still hold the nodes.
nodes_are_well() {
    timeout --kill-after=10 "${L2E_NODE_TIMEOUT:-180}" srun --overlap --export=ALL --input=none \
        --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        --cpus-per-task=1 --kill-on-bad-exit=1 bash slurm/check_node.sh "$gpus"
}

# Where the ranks meet: the first node of the allocation, and a port that neighbours of this job do not use.
set_rendezvous() {
    local hosts
    mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    export MASTER_ADDR="${hosts[0]}"
    export MASTER_PORT="${L2E_PORT:-$((12000 + SLURM_JOB_ID % 18000))}"
}

# This job's id for scontrol. The last task of an array has the array's own id, which would mean all of them.
job_id() {
    if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
        echo "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    else
        echo "$SLURM_JOB_ID"
    fi
}

# member_arguments STAGE FILE: the overrides of this array task, into `arguments`.
member_arguments() {
    [[ -n ${SLURM_ARRAY_TASK_ID:-} ]] || fail "$2 describes a sweep: start it with slurm/sweep.sh"
    mapfile -d '' arguments < <(python -m l2e.cli.sweep "$1" "$2" "$SLURM_ARRAY_TASK_ID")
    ((${#arguments[@]})) || fail "$2 has no member $SLURM_ARRAY_TASK_ID"
}
