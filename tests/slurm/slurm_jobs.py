"""Jobs of the repository's scripts on the test cluster, as a user would submit them."""

import hashlib
import sys
from pathlib import Path

from safetensors.numpy import load_file
from slurm_cluster import SlurmCluster

ROOT = Path(__file__).parents[2]
STEPS = 120
NODES = 2

# Long enough to be disturbed in the middle, with a restart point every 20 updates.
SMALL = [
    f"training.steps={STEPS}",
    "training.batch_size=8",
    "training.seq_length=32",
    "training.validation_every=100",
    "training.validation_sequences=10",
    "inhibition.late_start=2",
    "inhibition.warmup=2",
    "inhibition.weight=0.01",
    "data.world.documents=1200",
    "data.world.items=16",
    "data.world.known_items=16",
    "evaluation.limit=8",
    "checkpoint.every=20",
    "logging.every=10",
]
# The headers' production sizes stay where a test does not say otherwise; gpu:2 are stand-ins that SLURM lends out.
TWO_NODES = (f"--nodes={NODES}", "--ntasks-per-node=1", "--gpus-per-node=2")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"}


class Jobs:
    """Submits to `cluster`; logs, caches and run directories lie in `folder`."""

    def __init__(self, cluster: SlurmCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        cluster.environment |= {
            "L2E_DEVICE": "cpu",
            "L2E_VENV": sys.prefix,
            "OMP_NUM_THREADS": "1",
            "L2E_NODE_TIMEOUT": "100",
        }
        for name in ("PYTHONPATH", "RANK", "WORLD_SIZE", "LOCAL_RANK", "L2E_HOME", "L2E_CLUSTER"):
            cluster.environment.pop(name, None)

    def places(self) -> list[str]:
        """Where runs and caches go."""
        return [f"runs_dir={self.folder / 'runs'}", f"cache_dir={self.folder / 'cache'}"]

    def submit(
        self,
        script: str,
        *arguments: str,
        options: tuple[str, ...] = (),
        home: Path = ROOT,
        variables: dict[str, str] | None = None,
    ) -> str:
        """`sbatch` in the root of the repository `home`, with the log where the test finds it; the job's number."""
        log = f"--output={self.folder}/%j.log"
        command = ["sbatch", "--parsable", log, *options, f"slurm/{script}", *arguments]
        return self.cluster.run(*command, cwd=home, variables=variables)

    def pretrain(self, name: str, *overrides: str, options: tuple[str, ...] = TWO_NODES) -> str:
        """A two-node run of its own name."""
        return self.submit("pretrain.sbatch", f"name={name}", *self.places(), *SMALL, *overrides, options=options)

    def urgent(self) -> str:
        """A short job of the partition that goes first, on all nodes."""
        return self.cluster.run(
            "sbatch",
            "--parsable",
            "--partition=high",
            f"--nodes={len(self.cluster.nodes)}",
            "--exclusive",
            "--output=/dev/null",
            "--wrap=sleep 1",
        )

    def state(self, job: str) -> str:
        return self.cluster.job(job)["JobState"]

    def finish(self, job: str, seconds: float = 500) -> str:
        """Wait for the job's end; its last state."""
        try:
            self.cluster.wait_for(lambda: self.state(job) in ENDED, f"end of job {job}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log(job)}") from None
        return self.state(job)

    def completed(self, job: str) -> dict[str, str]:
        """Wait for the job's good end; what SLURM says of it."""
        state = self.finish(job)
        assert state == "COMPLETED", f"job {job} is {state}\n{self.log(job)}"
        return self.cluster.job(job)

    def log(self, job: str) -> str:
        """All that the job printed, over its restarts."""
        file = self.folder / f"{job}.log"
        return file.read_text() if file.exists() else ""

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def wait_for_step(self, job: str, name: str, step: int) -> None:
        """Until a restart point of `step` updates is there."""
        checkpoint = self.run(name) / "checkpoints" / f"step{step}"

        def there() -> bool:
            assert self.state(job) not in ENDED, self.log(job)
            return checkpoint.exists()

        self.cluster.wait_for(there, f"{checkpoint} of job {job}", 300)

    def weights(self, name: str) -> dict[str, str]:
        """Every tensor of the last export, as type, shape and sha256."""
        tensors = load_file(self.run(name) / "hf" / f"step{STEPS}" / "model.safetensors")
        return {
            key: f"{tensor.dtype}{tensor.shape}{hashlib.sha256(tensor.tobytes()).hexdigest()}"
            for key, tensor in tensors.items()
        }
