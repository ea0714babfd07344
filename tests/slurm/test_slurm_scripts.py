"""slurm/pretrain.sbatch on a real SLURM, with a stand-in for the trainer: what it passes on, when it comes back."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from slurm_jobs import Jobs
from stand_in_home import SLEEP, make_home

FOUR_RANKS = ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2")


class StandIn:
    """Jobs of a stand-in repository."""

    def __init__(self, jobs: Jobs, folder: Path) -> None:
        self.jobs = jobs
        self.cluster = jobs.cluster
        self.home = make_home(folder / "home")
        self.run = folder / "runs" / "a"

    def submit(
        self, plan: str, *arguments: str, options: tuple[str, ...] = FOUR_RANKS, home: Path | None = None, **more: str
    ) -> str:
        """sbatch slurm/pretrain.sbatch with FAKE_PLAN=plan; `more` is of sbatch's environment."""
        variables = {"FAKE_RUN": str(self.run), "FAKE_PLAN": plan, **more}
        return self.jobs.submit(
            "pretrain.sbatch", *arguments, options=options, home=home or self.home, variables=variables
        )

    def told(self, restart: int = 0) -> dict[int, dict[str, Any]]:
        """What each rank saw, by rank."""
        files = self.run.glob(f"restart{restart}-rank*.json")
        return {int(file.stem.rpartition("rank")[2]): json.loads(file.read_text()) for file in files}

    def wait_for_ranks(self, job: str, file: str = "restart0-rank{}.json", ranks: int = 4) -> None:
        """Until every rank has written its `file`."""

        def there() -> bool:
            assert self.jobs.state(job) in {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING"}, self.jobs.log(job)
            return all((self.run / file.format(rank)).exists() for rank in range(ranks))

        self.cluster.wait_for(there, f"{file} of {ranks} ranks", 120)

    def failed(self, job: str, code: int, *messages: str) -> None:
        """The job failed with `code`, was not requeued, and its log says all of `messages`."""
        assert self.jobs.finish(job) == "FAILED", self.jobs.log(job)
        said = self.cluster.job(job)
        assert (said["ExitCode"], said["Restarts"]) == (f"{code}:0", "0"), self.jobs.log(job)
        for message in messages:
            assert message in self.jobs.log(job)

    def came_back(self, job: str) -> None:
        """The job was requeued once, under its number, and then completed; its log has both runs."""
        assert self.jobs.completed(job)["Restarts"] == "1", self.jobs.log(job)
        assert len(re.findall(r"restart \d, in ", self.jobs.log(job))) == 2, self.jobs.log(job)
        assert len(self.told(1)) == 4


@pytest.fixture
def stand_in(jobs: Jobs, tmp_path: Path) -> StandIn:
    return StandIn(jobs, tmp_path)


def test_arguments_arrive_byte_by_byte_and_ranks_know_their_place(stand_in: StandIn) -> None:
    odd = [
        "a=b",
        "",
        "two  words",
        "'single' \"double\"",
        "${oc.env:HOME}",
        "*",
        "[1,2]",
        "{a: 1}",
        "back\\slash",
        "a\nb",
    ]
    job = stand_in.submit("0", *odd)
    nodes = stand_in.cluster.run("scontrol", "show", "hostnames", stand_in.jobs.completed(job)["NodeList"]).split()
    told = stand_in.told()
    assert sorted(told) == [0, 1, 2, 3]
    for rank, each in told.items():
        assert each["arguments"] == odd
        environment = each["environment"]
        assert environment["SLURMD_NODENAME"] == nodes[rank // 2]
        assert (environment["RANK"], environment["LOCAL_RANK"]) == (str(rank), str(rank % 2))
        assert environment["WORLD_SIZE"] == "4"
        assert environment["MASTER_ADDR"] == nodes[0]
        assert 1024 < int(environment["MASTER_PORT"]) < 32768  # not among those that Linux hands out
        assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"
        assert environment["PYTHONPATH"].split(":")[0] == str(stand_in.home)


def test_after_exit_code_85_the_job_comes_back(stand_in: StandIn) -> None:
    stand_in.came_back(stand_in.submit("85 0"))


@pytest.mark.slow
def test_the_warning_before_the_time_limit_reaches_the_ranks(stand_in: StandIn) -> None:
    job = stand_in.submit("wait 0")
    stand_in.wait_for_ranks(job, "ready0-rank{}")
    stand_in.cluster.run("scancel", "--signal=USR1", "--batch", job)  # as --signal=B:USR1@300 does
    stand_in.came_back(job)
    assert (stand_in.run / "checkpoints" / "step1").is_dir()


@pytest.mark.slow
def test_a_warning_while_ranks_still_start_is_not_lost(stand_in: StandIn) -> None:
    job = stand_in.submit("deaf 0")
    stand_in.wait_for_ranks(job)
    stand_in.cluster.run("scancel", "--signal=USR1", "--batch", job)
    stand_in.came_back(job)
    assert (stand_in.run / "checkpoints" / "step1").is_dir()


def test_preemption_saves_and_comes_back(stand_in: StandIn) -> None:
    job = stand_in.submit("wait 0")
    stand_in.wait_for_ranks(job, "ready0-rank{}")
    urgent = stand_in.jobs.urgent()
    stand_in.came_back(job)
    assert (stand_in.run / "checkpoints" / "step1").is_dir()
    assert stand_in.jobs.state(urgent) == "COMPLETED"


@pytest.mark.slow
def test_a_sick_node_is_no_failure_of_the_run(stand_in: StandIn) -> None:
    """As a dead one, in a tenth of the time: it fails the check once, after the ranks have failed."""
    check = stand_in.home / "slurm" / "check_node.sh"
    sick = stand_in.run / "checkpoints" / "step1"
    check.write_text(f"[[ -e {sick} ]] && rm -r {sick} && exit 1\n" + check.read_text())
    stand_in.came_back(stand_in.submit("1 0"))


@pytest.mark.slow
def test_a_dead_node_is_no_failure_of_the_run(stand_in: StandIn) -> None:
    job = stand_in.submit("lost 0", L2E_NODE_TIMEOUT="12")
    stand_in.wait_for_ranks(job)
    second = stand_in.cluster.run("scontrol", "show", "hostnames", stand_in.cluster.job(job)["NodeList"]).split()[1]
    stand_in.cluster.kill_node(second)
    try:
        (stand_in.run / "lost").touch()
        stand_in.came_back(job)  # on the third node
        assert second not in {each["environment"]["SLURMD_NODENAME"] for each in stand_in.told(1).values()}
    finally:
        stand_in.cluster.start_node(second)
        stand_in.cluster.wait_for(stand_in.cluster.all_idle, "the node is back")


def test_a_crash_on_good_nodes_ends_the_job_at_once(stand_in: StandIn) -> None:
    """The other ranks, which would sleep for minutes, go with it."""
    began = time.monotonic()
    stand_in.failed(stand_in.submit("crash"), 1, "asking every node")
    assert time.monotonic() - began < SLEEP


def test_bad_settings_end_the_job_before_a_rank_starts(stand_in: StandIn) -> None:
    job = stand_in.submit("0", "bad=setting")
    stand_in.failed(job, 2, "bad: unknown setting", "nothing was started")
    assert not stand_in.told()


@pytest.mark.parametrize("plan", ["idle:2", "refuse"])
def test_bad_input_that_only_the_ranks_find_is_not_tried_again(stand_in: StandIn, plan: str) -> None:
    """Of all ranks, or of one: then srun ends the others, and tells their code."""
    stand_in.failed(stand_in.submit(plan), 2)


def test_a_cancelled_job_stays_cancelled(stand_in: StandIn) -> None:
    job = stand_in.submit("wait 0")
    stand_in.wait_for_ranks(job, "ready0-rank{}")
    stand_in.cluster.run("scancel", job)
    stand_in.cluster.wait_for(lambda: "SLURM is ending this job" in stand_in.jobs.log(job), "the end of the script", 60)
    assert stand_in.jobs.finish(job) == "CANCELLED"
    assert stand_in.cluster.job(job)["Restarts"] == "0"


@pytest.mark.slow
def test_restarts_without_progress_come_to_an_end(stand_in: StandIn) -> None:
    job = stand_in.submit("idle:85", L2E_IDLE_RESTARTS="0")
    assert stand_in.jobs.finish(job) == "FAILED"
    assert stand_in.cluster.job(job)["Restarts"] == "1"
    assert "restarted 1 times without progress (checkpoint none" in stand_in.jobs.log(job)
    assert not stand_in.told(1)


@pytest.mark.slow
def test_a_run_directory_has_one_job(stand_in: StandIn) -> None:
    first = stand_in.submit("wait", options=("--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1"))
    stand_in.wait_for_ranks(first, ranks=1)
    second = stand_in.submit("0")
    stand_in.failed(second, 2, f"job {first} is running in {stand_in.run}")
    stand_in.cluster.run("scancel", first)
    stand_in.jobs.finish(first)
    assert stand_in.jobs.finish(stand_in.submit("0")) == "COMPLETED"


@pytest.mark.slow
def test_the_last_task_of_an_array_requeues_itself_alone(stand_in: StandIn) -> None:
    plain = ("--ntasks-per-node=1", "--gpus-per-node=1", "--array=0-1")
    (stand_in.home / "slurm" / "cluster.sh").write_text(
        f'PATH="{Path(stand_in.cluster.environment["L2E_VENV"]) / "bin"}:$PATH"\n'
        'export FAKE_RUN="$FAKE_RUN$SLURM_ARRAY_TASK_ID"\n'
        '[[ $SLURM_ARRAY_TASK_ID == 1 ]] || export FAKE_PLAN="wait"\n'
    )
    job = stand_in.submit("85 0", options=plain)
    last, first = f"{job}_1", f"{job}_0"
    stand_in.cluster.wait_for(lambda: stand_in.cluster.job(last)["JobState"] == "COMPLETED", "task 1", 120)
    assert stand_in.cluster.job(last)["JobId"] == job  # the array's own number: what makes it a trap
    assert stand_in.cluster.job(last)["Restarts"] == "1"
    assert stand_in.cluster.job(first)["JobState"] == "RUNNING"
    assert stand_in.cluster.job(first)["Restarts"] == "0"
    stand_in.cluster.run("scancel", job)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus-per-node=0", "--ntasks-per-node=1"), "the job was given no GPU"),
        (("--gpus-per-node=2", "--ntasks-per-node=1"), "2 GPUs but 1 tasks per node"),
        (("--gpus-per-node=2", "--ntasks-per-node=2"), "SLURM lent 2 GPUs, PyTorch sees 0"),  # the stand-ins are none
    ],
)
def test_missing_gpus_are_told(stand_in: StandIn, options: tuple[str, ...], message: str) -> None:
    (stand_in.home / "torch.py").write_text("class cuda:\n    device_count = staticmethod(lambda: 0)\n")
    stand_in.failed(stand_in.submit("0", options=options, L2E_DEVICE="cuda"), 2, message)
    assert not stand_in.told()


def test_as_many_gpus_as_were_lent_are_enough(stand_in: StandIn) -> None:
    (stand_in.home / "torch.py").write_text("class cuda:\n    device_count = staticmethod(lambda: 2)\n")
    assert stand_in.jobs.finish(stand_in.submit("0", L2E_DEVICE="cuda")) == "COMPLETED"


MODULES = """
module() {{ [[ $2 != broken ]] || return 1; [[ $2 != silent ]] && LOADEDMODULES="$LOADEDMODULES:$2/12.4"; return 0; }}
PATH="{bin}:$PATH"
load_modules {names}
"""


@pytest.mark.parametrize(
    ("cluster_file", "message"),
    [
        ("load_modules cuda", "there is no 'module' command on this node"),
        (MODULES.replace("{names}", "gcc broken"), "module load broken failed"),
        (MODULES.replace("{names}", "gcc silent"), "module silent was not loaded"),
        ("activate_venv /nowhere", "no virtual environment in /nowhere"),
        ("PATH=/usr/sbin", "python cannot import l2e"),
    ],
)
def test_a_missing_environment_is_told(stand_in: StandIn, cluster_file: str, message: str) -> None:
    bin_folder = Path(stand_in.cluster.environment["L2E_VENV"]) / "bin"
    text = cluster_file.replace("{bin}", str(bin_folder)).replace("{{", "{").replace("}}", "}")
    (stand_in.home / "mine.sh").write_text(text)
    stand_in.failed(stand_in.submit("0", L2E_CLUSTER="mine.sh"), 2, message)


@pytest.mark.slow
def test_modules_that_are_there_are_enough(stand_in: StandIn) -> None:
    bin_folder = Path(stand_in.cluster.environment["L2E_VENV"]) / "bin"
    (stand_in.home / "mine.sh").write_text(MODULES.format(bin=bin_folder, names="gcc cuda"))
    assert stand_in.jobs.finish(stand_in.submit("0", L2E_CLUSTER="mine.sh")) == "COMPLETED"


def test_submitted_from_elsewhere(stand_in: StandIn, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "slurm").mkdir()
    script = elsewhere / "slurm" / "pretrain.sbatch"
    script.write_text((stand_in.home / "slurm" / "pretrain.sbatch").read_text())
    stand_in.failed(stand_in.submit("0", home=elsewhere), 2, f"{elsewhere} is not the l2e repository")
    again = stand_in.submit("0", home=elsewhere, L2E_HOME=str(stand_in.home))
    assert stand_in.jobs.finish(again) == "COMPLETED"
