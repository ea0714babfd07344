"""Two-node jobs on a real SLURM: disturbed in every way, they end with the weights of an undisturbed run."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_jobs import NODES, STEPS, TWO_NODES, Jobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def undisturbed(jobs: Jobs) -> str:
    """A run that nothing happened to."""
    job = jobs.pretrain("undisturbed")
    said = jobs.completed(job)
    assert said["Restarts"] == "0"
    assert sorted(int(each.name[4:]) for each in jobs.run("undisturbed").glob("hf/step*")) == [0, STEPS]
    return job


def hosts(jobs: Jobs, job: str) -> list[str]:
    return jobs.cluster.run("scontrol", "show", "hostnames", jobs.cluster.job(job)["NodeList"]).split()


def test_two_nodes_train_and_evaluate(jobs: Jobs, undisturbed: str) -> None:
    run = jobs.run("undisturbed")
    environment = json.loads((run / "environment.json").read_text())
    assert environment["ranks"] == NODES
    first, second = hosts(jobs, undisturbed)
    assert first != second
    assert f"2 nodes x 1, rendezvous at {first}:" in jobs.log(undisturbed)
    summary = json.loads((run / "eval" / f"step{STEPS}" / "summary.json").read_text())
    assert [entry["n"] for entry in summary] == [8, 8, 8]
    assert (run / "report.html").exists()


def disturb(
    jobs: Jobs,
    name: str,
    disturbance: Callable[[str], None],
    *,
    saved: bool,
    options: tuple[str, ...] = TWO_NODES,
) -> str:
    """A run that is disturbed after its first restart point; checks that it came back as if nothing had happened.

    Args:
        saved: whether the run had time to save; else it goes on from its last regular restart point.
    """
    job = jobs.pretrain(name, "evaluation.enabled=false", options=options)
    jobs.wait_for_step(job, name, 20)
    # Held where it is: on a quiet machine the rest is a matter of a second.
    jobs.cluster.run("scancel", "--signal=STOP", job)
    seen = newest(jobs.run(name))
    disturbance(job)
    jobs.cluster.run("scancel", "--signal=CONT", job, check=False)
    assert int(jobs.completed(job)["Restarts"]) >= 1
    log = jobs.log(job)
    starts = [int(step) for step in re.findall(r"resumed after (\d+) updates", log)]
    assert len(starts) == 1, log
    assert starts[0] >= seen if saved else starts[0] % 20 == 0, log
    assert ("stopped as asked" in log) == saved, log
    assert jobs.weights(name) == jobs.weights("undisturbed")
    steps = [json.loads(line)["step"] for line in (jobs.run(name) / "metrics.jsonl").read_text().splitlines()]
    assert [step for step in sorted(set(steps)) if step] == list(range(1, STEPS + 1))
    return job


def newest(run: Path) -> int:
    return max(int(each.name[4:]) for each in (run / "checkpoints").glob("step*"))


def test_the_warning_before_the_time_limit(jobs: Jobs, undisturbed: str) -> None:
    """At once what --signal=B:USR1@300 does five minutes before the end."""

    def warn(job: str) -> None:
        jobs.cluster.run("scancel", "--signal=USR1", "--batch", job)

    disturb(jobs, "warned", warn, saved=True)


def test_preemption_by_a_job_that_goes_first(jobs: Jobs, undisturbed: str) -> None:
    urgent = []

    def preempt(job: str) -> None:
        urgent.append(jobs.urgent())
        jobs.cluster.wait_for(lambda: jobs.state(job) != "RUNNING", f"preemption of job {job}", 60)

    disturb(jobs, "preempted", preempt, saved=True)
    assert jobs.state(urgent[0]) == "COMPLETED"


@pytest.mark.parametrize("place", [0, 1])
def test_a_node_that_dies(jobs: Jobs, undisturbed: str, place: int) -> None:
    """The one with the batch script, which SLURM must find out, or another, which the ranks find out first."""
    cluster = jobs.cluster
    dead = []

    def kill(job: str) -> None:
        dead.append(hosts(jobs, job)[place])
        cluster.kill_node(dead[0])

    try:
        job = disturb(jobs, f"bereft{place}", kill, saved=False)
        assert dead[0] not in hosts(jobs, job)  # it went on elsewhere
    finally:
        cluster.start_node(dead[0])
        cluster.wait_for(cluster.all_idle, "the node is back")


def test_a_time_limit(jobs: Jobs, undisturbed: str) -> None:
    """SLURM itself warns; on a slow machine it may have done so before, while the run was starting."""

    def wait(job: str) -> None:
        before = jobs.log(job).count("SLURM warns")
        jobs.cluster.wait_for(lambda: jobs.log(job).count("SLURM warns") > before, f"the limit of job {job}", 240)

    disturb(jobs, "limited", wait, saved=True, options=(*TWO_NODES, "--time=3", "--signal=B:USR1@60"))


def test_bad_settings_fail_in_the_first_seconds(jobs: Jobs) -> None:
    job = jobs.pretrain("bad", "training.stepz=3")
    assert jobs.finish(job) == "FAILED"
    assert jobs.cluster.job(job)["ExitCode"] == "2:0"
    assert jobs.cluster.job(job)["Restarts"] == "0"
    assert "training.stepz: unknown setting (did you mean steps?)" in jobs.log(job)
    assert not jobs.run("bad").exists()


def test_ranks_count_when_settings_are_checked(jobs: Jobs) -> None:
    job = jobs.pretrain("odd", "training.batch_size=3")
    assert jobs.finish(job) == "FAILED"
    assert "training.batch_size: 3 sequences do not divide over 2 ranks" in jobs.log(job)
    assert "ranks: 2 nodes" not in jobs.log(job)
