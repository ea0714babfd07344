"""slurm/sweep.sh on a real SLURM: an array of runs, each with its evaluation, and one report."""

import json
import re

import pytest
from slurm_jobs import ENDED, ROOT, SMALL, Jobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SHORT = ["training.steps=10", *(setting for setting in SMALL if not setting.startswith("training.steps="))]
ALONE = ("--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1")


def sweep(jobs: Jobs, name: str, *overrides: str) -> list[str]:
    """Submit, wait for the report's job, return the numbers of training, evaluation and report."""
    said = jobs.cluster.run(
        "bash",
        "-c",
        'exec "$@" 2>&1',
        "_",
        str(ROOT / "slurm" / "sweep.sh"),
        name,
        *ALONE,
        *jobs.places(),
        *SHORT,
        *overrides,
        cwd=jobs.folder,
    )
    numbers = re.findall(r"(?:training|evaluation|report): job (\d+)", said)
    assert len(numbers) == 3, said
    jobs.cluster.wait_for(lambda: jobs.state(numbers[2]) in ENDED, f"report of {name}", 900)
    assert jobs.state(numbers[2]) == "COMPLETED", said
    return numbers


def test_two_methods_and_two_seeds_end_in_one_report(jobs: Jobs) -> None:
    training, evaluation, _ = sweep(jobs, "grid", "inhibition=none,l2e", "seed=1,2")
    names = [f"tiny-builtin-{method}-seed{seed}" for method in ("none", "l2e") for seed in (1, 2)]
    for place, name in enumerate(names):
        assert jobs.cluster.job(f"{training}_{place}")["JobState"] == "COMPLETED"
        said = jobs.cluster.job(f"{evaluation}_{place}")
        assert said["JobState"] == "COMPLETED"
        # Evaluated by its own job, after its own training.
        assert said["StartTime"] >= jobs.cluster.job(f"{training}_{place}")["EndTime"]
        assert [path.name for path in sorted(jobs.run(name).glob("eval/*"))] == ["step0", "step10"]
    report = (jobs.folder / "runs" / "grid" / "report.md").read_text()
    for name in names:
        accuracy = json.loads((jobs.run(name) / "eval" / "step10" / "summary.json").read_text())[0]["acc"]
        assert f"{accuracy:.3f}" in report
        assert name in report
    assert "not evaluated" not in report


def test_a_table_s_sweep_ends_in_that_table(jobs: Jobs) -> None:
    """Its baseline is a run of the same settings that was there before."""
    settings = ["experiment=table8", "model=tiny", "data=builtin", "training=demo", "evaluation=builtin"]
    settings += ["training.micro_batch_size=8", "evaluation.initial=false", "evaluation.num_fewshot=0"]
    settings += ["evaluation.tasks=[world_arc,world_piqa,world_sciq]"]
    sweep(jobs, "first", *settings, "inhibition=none", "seed=1")
    sweep(jobs, "table", *settings, "inhibition=l2e", "seed=1")
    report = (jobs.folder / "runs" / "table" / "report.md").read_text()
    assert report.startswith("# Table 8: ")
    for setting in ("Pythia", "L2E"):
        assert re.search(rf"\| tiny \| {setting} \| here, 1 seed \|", report), report
    assert (jobs.folder / "runs" / "table" / "table8.tex").exists()


def test_a_member_that_fails_is_in_the_report(jobs: Jobs) -> None:
    # What no composition can know: the folder of the second member is taken by something else.
    (jobs.run("half-2")).mkdir(parents=True)
    (jobs.run("half-2") / "notes.txt").write_text("mine")
    training, evaluation, _ = sweep(jobs, "half", "inhibition=none", "seed=1,2", "name='half-${seed}'")
    assert [jobs.cluster.job(f"{training}_{place}")["JobState"] for place in (0, 1)] == ["COMPLETED", "FAILED"]
    assert [jobs.cluster.job(f"{evaluation}_{place}")["JobState"] for place in (0, 1)] == ["COMPLETED", "CANCELLED"]
    report = (jobs.folder / "runs" / "half" / "report.md").read_text()
    assert "half-2: failed before training began" in report
    assert "half-1" in report


def test_a_single_evaluation(jobs: Jobs) -> None:
    run = jobs.run("tiny-builtin-none-seed1")
    assert run.exists(), "the sweep before has failed"
    said = [f"path={run}/hf/step10", f"output={jobs.folder}/alone", "evaluation=builtin", "evaluation.limit=4"]
    items = next((jobs.folder / "cache" / "worlds").glob("*/*/world_arc")).parent
    job = jobs.submit("evaluate.sbatch", *said, f"evaluation.data_dir={items}", options=ALONE[:1])
    jobs.completed(job)
    summary = json.loads((jobs.folder / "alone" / "summary.json").read_text())
    assert [each["n"] for each in summary] == [4, 4, 4]
