#!/usr/bin/env bash
# Submit a grid of runs as a job array, their evaluation after each, and one report at the end.
#
#   slurm/sweep.sh table1 --time=12:00:00 experiment=table1 inhibition=none,l2e seed=1,2,3
#   slurm/sweep.sh --dry-run table1 inhibition=none,l2e seed=1,2,3
#
# NAME is the sweep's folder under runs_dir: members.json, report.md, report.html, which is that of a table if the
# members are its (experiment=table1). What the sweep costs is said before anything is submitted. Options of sbatch may
# follow NAME; they are for training (a partition or account for all jobs: export SBATCH_PARTITION, SBATCH_ACCOUNT). The
# rest are overrides as Hydra's --multirun reads them: a=1,2, choice(...), range(...).
# At once run all, or as many as L2E_AT_ONCE says.
set -euo pipefail
cd "$(dirname "$0")/.."
source slurm/common.sh

usage="usage: slurm/sweep.sh [--dry-run] NAME [sbatch options] overrides..."
dry_run=''
if [[ ${1:-} == --dry-run ]]; then
    dry_run=yes
    shift
fi
name=${1:?$usage}
shift
[[ $name != -* && $name != *=* && $name != */* ]] || fail "'$name' is no name for a sweep; $usage"
options=()
while [[ ${1:-} == -* ]]; do
    [[ $1 == --*=* || $1 == --exclusive ]] || fail "$1: write options of sbatch as --option=value"
    options+=("$1")
    shift
done

set_up
plan=$(python -m l2e.cli.sweep plan ${dry_run:+--dry-run} "$name" "$@")
{ read -r members && read -r count; } <<<"$plan"
folder=$(dirname "$members") # where the logs go, too
array="0-$((count - 1))${L2E_AT_ONCE:+%$L2E_AT_ONCE}"

# submit WHAT OPTION...: the job's number, or on a dry run the command alone.
submit() {
    local what=$1 id=0
    shift
    if [[ -n $dry_run ]]; then
        printf -v id '<%s>' "$what"
        echo "would submit: sbatch$(printf ' %q' "$@")" >&2
    else
        id=$(sbatch --parsable "$@")
        id=${id%%;*}
        say "$what: job $id"
    fi
    echo "$id"
}

training=$(submit training --array="$array" --job-name="$name" --output="$folder/slurm-%A_%a.log" \
    ${options[@]+"${options[@]}"} slurm/pretrain.sbatch "@$members")
# Each evaluation follows its own training; if that fails it is cancelled, and the report says so.
evaluation=$(submit evaluation --array="$array" --job-name="$name-evaluate" --output="$folder/slurm-%A_%a.log" \
    --dependency="aftercorr:$training" --kill-on-invalid-dep=yes slurm/evaluate.sbatch "@$members")
submit report --job-name="$name-report" --output="$folder/slurm-%j.log" \
    --dependency="afterany:$training:$evaluation" slurm/report.sbatch "$members" >/dev/null
say "$count members; the report will be $folder/report.html"
