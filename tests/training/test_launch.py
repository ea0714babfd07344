"""Ranks from torchrun, the deepspeed launcher, plain variables and srun; and that they train alike."""

import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import free_port, plain_environment, torchrun
from training_runs import command, metrics, pretrain, weights

from l2e.errors import UserError
from l2e.training.launch import FIRST_PORT, PORTS, Launch, device_index, first_host, launched

BATCH_SHELL = {
    "SLURM_JOB_ID": "4211",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NODELIST": "node[1-2]",
}
"""As sbatch --ntasks=4 sets it for the batch script; no step is running yet."""

TASK = {
    **BATCH_SHELL,
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "node[1-2]",
}
"""The last of four tasks of srun on two nodes."""

MEETING = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
ALONE = Launch(0, 1, 0, None)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ALONE),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", **MEETING}, Launch(5, 8, 1, MEETING)),
        ({"RANK": "0", "WORLD_SIZE": "1", **MEETING}, Launch(0, 1, 0, MEETING)),
        ({**TASK, **MEETING}, Launch(3, 4, 1, MEETING)),
        (TASK, Launch(3, 4, 1, {"MASTER_ADDR": "node1", "MASTER_PORT": "19213"})),  # 15000 + 4211 + 2
        ({**TASK, "MASTER_ADDR": "node2"}, Launch(3, 4, 1, {"MASTER_ADDR": "node2", "MASTER_PORT": "19213"})),
        # torchrun within a task of srun: its ranks count.
        ({**TASK, "RANK": "6", "WORLD_SIZE": "8", "LOCAL_RANK": "2", **MEETING}, Launch(6, 8, 2, MEETING)),
        # No step: the batch script, an interactive shell of salloc. Waiting for three others would hang.
        (BATCH_SHELL, ALONE),
        ({**BATCH_SHELL, **MEETING}, ALONE),
        # srun --pty bash: a step of one task.
        ({**TASK, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "1"}, ALONE),
        ({"WORLD_SIZE": "8"}, ALONE),
    ],
)
def test_who_this_process_is(environment: dict[str, str], expected: Launch) -> None:
    found = launched(environment)
    assert found == expected
    if found.meeting:
        assert launched(found.variables()) == found  # what start_processes hands to PyTorch and DeepSpeed
    else:
        assert found.variables() == {"LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "the environment has RANK and not WORLD_SIZE, MASTER_ADDR, MASTER_PORT: start the processes"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "RANK and not MASTER_PORT"),
        ({"RANK": "first", "WORLD_SIZE": "2", **MEETING}, "RANK must be a whole number, not 'first'"),
        ({"RANK": "2", "WORLD_SIZE": "2", **MEETING}, "rank 2 of 2 processes"),
        ({key: value for key, value in TASK.items() if key != "SLURM_LOCALID"}, "SLURM_LOCALID must be a whole"),
    ],
)
def test_half_a_launch_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        launched(environment)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[1-2]", "node1"),
        ("gpu-[003-010,17]", "gpu-003"),
        ("gpu-[7,9-11],login", "gpu-7"),
        ("rack[3-5]node[01-04]", "rack3node01"),
        ("c12n[4]-ib,x", "c12n4-ib"),
    ],
)
def test_first_node_of_a_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_gpu_of_a_process() -> None:
    assert [device_index(rank, 4) for rank in range(4)] == [0, 1, 2, 3]
    # srun --gpus-per-task=1: each process sees its own GPU, as number 0.
    assert [device_index(rank, 1) for rank in range(4)] == [0, 0, 0, 0]
    with pytest.raises(UserError, match=r"process 2 of this node \(from 0\) sees 2 GPUs"):
        device_index(2, 2)


@pytest.mark.parametrize(("visible", "index"), [(1, 0), (2, 1)])
def test_start_takes_that_gpu(monkeypatch: pytest.MonkeyPatch, visible: int, index: int) -> None:
    from l2e.training import engine

    monkeypatch.setattr(engine.os, "environ", dict(TASK))
    taken: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(engine.dist, "is_initialized", lambda: False)
    monkeypatch.setattr(engine.dist, "init_process_group", lambda backend, **_: taken.append(backend))
    monkeypatch.setattr(engine.deepspeed, "init_distributed", lambda **_: None)
    assert engine.start_processes() == torch.device("cuda", index)
    assert taken == [torch.device("cuda", index), "nccl"]
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
    # DeepSpeed takes LOCAL_RANK for the number of the GPU.
    assert [engine.os.environ[name] for name in names] == ["3", "4", str(index), "node1"]


def together(folder: Path, name: str, environments: list[dict[str, str]]) -> None:
    """Start the command once in each environment, as srun would, and wait for all."""
    tasks = [
        subprocess.Popen(
            command(folder, name), env={**plain_environment(), **each}, stderr=subprocess.PIPE, text=True, cwd=folder
        )
        for each in environments
    ]
    printed = [task.communicate(timeout=300)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], printed
    assert printed[1].count("updates of") == 0  # rank 1 says nothing


def a_free_job_number() -> int:
    """One whose port nobody listens at."""
    while True:
        job = random.randrange(PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", FIRST_PORT + job)):
                return job


def task(rank: int, job: int) -> dict[str, str]:
    changes = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": 0, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
    changes |= {"SLURM_STEP_NUM_TASKS": 2, "SLURM_STEP_NUM_NODES": 1}
    return {**TASK, **{key: str(value) for key, value in changes.items()}}


def assert_trained_alike(folder: Path, name: str) -> None:
    expected, found = weights(folder, "torchrun"), weights(folder, name)
    assert expected.keys() == found.keys()
    assert all(torch.equal(weight, found[key]) for key, weight in expected.items())
    assert metrics(folder, name, "loss") == metrics(folder, "torchrun", "loss")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launched")
    pretrain(folder, "torchrun", launcher=torchrun(2))
    return folder


@pytest.mark.slow
def test_two_tasks_of_srun_train_as_torchrun_does(folder: Path) -> None:
    job = a_free_job_number()
    together(folder, "srun", [task(rank, job) for rank in range(2)])
    assert_trained_alike(folder, "srun")


@pytest.mark.slow
def test_plain_variables_train_as_torchrun_does(folder: Path) -> None:
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    together(folder, "plain", [{"RANK": rank, "LOCAL_RANK": rank, **meeting} for rank in "01"])
    assert_trained_alike(folder, "plain")


@pytest.mark.slow
def test_the_deepspeed_launcher_trains_as_torchrun_does(folder: Path) -> None:
    launcher = [str(Path(sys.executable).parent / "deepspeed"), "--num_gpus=2", f"--master_port={free_port()}"]
    pretrain(folder, "deepspeed", launcher=launcher)
    assert_trained_alike(folder, "deepspeed")
