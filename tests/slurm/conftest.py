"""One real SLURM for all tests of this folder."""

import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from slurm_cluster import PATH, PROGRAMS, SlurmCluster
from slurm_jobs import Jobs


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Three nodes, each with four stand-in GPUs."""
    missing = [program for program in PROGRAMS if not shutil.which(program, path=PATH)]
    why = f"no {', '.join(missing)}: run scripts/install_slurm.sh" if missing else ""
    why = why or ("a SLURM of its own needs root" if os.geteuid() else "")
    if why and os.environ.get("L2E_REQUIRE_SLURM"):
        pytest.fail(f"L2E_REQUIRE_SLURM is set, but {why}")
    if why:
        pytest.skip(why)
    # A time limit around pytest ends it by SIGTERM: as Ctrl-C, so that no daemon and no job is left.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = SlurmCluster(tmp_path_factory.mktemp("slurm") / "lab", nodes=3)
    yield started
    started.stop()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def jobs(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """Where jobs are submitted."""
    return Jobs(cluster, tmp_path_factory.mktemp("jobs"))
