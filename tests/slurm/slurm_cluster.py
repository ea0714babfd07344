"""A real SLURM on one machine: munge, one controller, several virtual nodes with stand-in GPUs.

Everything lies in one folder; the daemons are children in the foreground, on free ports, and nothing of them is left
after `stop`. Needs root (node names go to /etc/hosts, stand-in GPUs are device files) and scripts/install_slurm.sh.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun", "scancel")
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"  # where the daemons are, and an ordinary user's PATH is not
GPUS = 4
PATIENCE = 240.0  # seconds; a busy machine needs many times what a quiet one does

# Production headers are accepted unedited: config_overrides lets a node claim more than the machine has. The time-outs
# are short: cred_expire is how long a requeued job must wait, SlurmdTimeout how long a dead node goes unnoticed.
CONFIG = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/spool/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
FirstJobId={first_job}
ReturnToService=2
SlurmdTimeout=15
KillWait=30
MinJobAge=3600
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,requeue_delay=1
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
{nodes}
PartitionName=batch Nodes=ALL Default=YES DefaultTime=30 PriorityTier=10 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL DefaultTime=30 PriorityTier=100 PreemptMode=OFF
"""


class SlurmCluster:
    """`nodes` virtual nodes, running as soon as the constructor returns."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder = folder
        ports = _free_ports(nodes + 1)
        # Names of their own for each cluster, so that two on one machine do not meet in /etc/hosts.
        self.nodes = [f"l2e{ports[0]}n{number + 1}" for number in range(nodes)]
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        for name in ("munge", "state", "spool", "dev", "log"):
            (folder / name).mkdir(parents=True)
        (folder / "munge").chmod(0o755)
        self._write_config(ports)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        try:
            _edit_hosts(add=self.nodes)
            self._start_munge()
            self._start("slurmctld", "slurmctld", "-D", "-i")
            for node in self.nodes:
                self.start_node(node)
            self.wait_for(self.all_idle, "all nodes idle")
        except BaseException:
            self.stop()
            raise

    def run(
        self, *command: str, check: bool = True, cwd: Path | None = None, variables: dict[str, str] | None = None
    ) -> str:
        """What a SLURM command prints; `variables` are added to its environment."""
        environment = self.environment | (variables or {})
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=cwd or self.folder,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """`scontrol show job` as a dict."""
        words = self.run("scontrol", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def start_node(self, node: str) -> None:
        """Start a node, or start it again."""
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """As if the power went: slurmd, its step daemons and everything that runs there die at once."""
        self._daemons.pop(node).kill()
        tasks = [pid for pid, environ in self._processes() if f"SLURMD_NODENAME={node}".encode() in environ]
        # The step daemons first: one that outlives its task tells the controller that the job has failed.
        for pid in [*(parent for parent in map(_parent, tasks) if _is_step_daemon(parent)), *tasks]:
            _kill(pid)

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Poll until `condition` holds; an assertion with the controller's log when it never does."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what}: not within {seconds} s\n{self._tail()}"
            time.sleep(0.2)

    def stop(self) -> None:
        """End every daemon and every process of every job, and leave /etc/hosts as it was."""
        for daemon in self._daemons.values():
            daemon.kill()
        for daemon in self._daemons.values():
            daemon.wait()
        for pid, _ in self._processes():
            _kill(pid)
        _edit_hosts(remove=self.nodes)

    def all_idle(self) -> bool:
        """Whether every node waits for work."""
        states = self.run("sinfo", "-h", "-N", "-o", "%T", check=False).split()
        return bool(states) and set(states) == {"idle"}

    def _write_config(self, ports: list[int]) -> None:
        host = socket.gethostname().split(".")[0]
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=64 RealMemory=512000 "
            f"Gres=gpu:{GPUS} State=UNKNOWN"
            for node, port in zip(self.nodes, ports[1:], strict=True)
        ]
        # Ranks meet at a port that follows from the job's number: two clusters on this machine must not share numbers.
        first_job = 1 + ports[0] * 97 % 17000
        text = CONFIG.format(host=host, port=ports[0], folder=self.folder, nodes="\n".join(lines), first_job=first_job)
        (self.folder / "slurm.conf").write_text(text)
        for number in range(GPUS):
            os.mknod(self.folder / "dev" / f"gpu{number}", 0o20666, os.makedev(1, 3))  # /dev/null under another name
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/dev/gpu[0-{GPUS - 1}]\n")

    def _start_munge(self) -> None:
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        files = {name: f"--{name}={self.folder}/munge/{name.split('-')[0]}" for name in ("pid-file", "log-file")}
        self._start(
            "munged",
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={self.folder}/munge/socket",
            f"--seed-file={self.folder}/munge/seed",
            *files.values(),
        )
        self.wait_for((self.folder / "munge" / "socket").exists, "munge's socket", 30)

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / "log" / name).open("ab") as log:
            # A session of its own, so that Ctrl-C does not take the daemons before `stop` does; but if pytest is
            # killed, they go too.
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def _processes(self) -> Iterator[tuple[int, bytes]]:
        """Processes that were started under this cluster's configuration, with their environment."""
        mine = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    environ = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if mine in environ.split(b"\0"):
                    yield int(entry.name), environ

    def _tail(self) -> str:
        files = sorted((self.folder / "log").iterdir())
        queue = self.run("squeue", "-t", "all", "-o", "%i %j %T %r %N", check=False)
        return "\n".join([queue, *(f"== {file.name}\n{file.read_text()[-1500:]}" for file in files)])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_step_daemon(pid: int) -> bool:
    try:
        return b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _edit_hosts(add: list[str] | None = None, remove: list[str] | None = None) -> None:
    """Nodes are found by name. In place: a container may hold the file by its inode."""
    with Path("/etc/hosts").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = [line for line in file.read().splitlines() if line.split()[1:] not in [[name] for name in remove or []]]
        lines += [f"127.0.0.1 {name}" for name in add or []]
        file.seek(0)
        file.write("\n".join(lines) + "\n")
        file.truncate()
