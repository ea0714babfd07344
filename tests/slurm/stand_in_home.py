"""A repository with the real slurm folder and a trainer that does in a second what a job's ranks may do.

SLURM, the batch scripts and the signals are real; only Python's part is played. FAKE_PLAN says what the ranks do in the
first run, after the first restart, and so on (the last word holds from then on):

    N         write a restart point and exit with code N
    idle:N    exit with code N without one
    crash     rank 1 exits with 1, the others stay
    refuse    rank 1 exits with 2, the others stay
    wait      wait for USR1 or TERM, write a restart point, exit with 85
    deaf      as wait, but with no handler in the first seconds
    lost      rank 0 waits for the file `lost`, then exits with 1 as a rank does that has lost its peers; others stay
"""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
SLEEP = 300  # seconds that a rank stays which nobody stops

ENTRY = """
import os, sys
def main(config_name, target):
    assert (config_name, target) == ("pretrain", "l2e.cli.preflight:run")
    if "bad=setting" in sys.argv:
        print("error: bad: unknown setting", file=sys.stderr)
        sys.exit(2)
    print("noise of a library")
    print(os.environ["FAKE_RUN"])
"""

TRAINER = """
import json, os, signal, sys, time
from pathlib import Path

run, rank = Path(os.environ["FAKE_RUN"]), int(os.environ["RANK"])
restart = int(os.environ.get("SLURM_RESTART_COUNT", 0))
plan = os.environ["FAKE_PLAN"].split()
word = plan[min(restart, len(plan) - 1)]
run.mkdir(parents=True, exist_ok=True)
told = {"arguments": sys.argv[1:], "environment": dict(os.environ)}
(run / f".{rank}.tmp").write_text(json.dumps(told))
(run / f".{rank}.tmp").rename(run / f"restart{restart}-rank{rank}.json")

def leave(code):
    if rank == 0:
        (run / "checkpoints" / f"step{restart + 1}").mkdir(parents=True, exist_ok=True)
    sys.exit(code)

if word == "deaf":
    time.sleep(4)
if word in ("wait", "deaf"):
    for each in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(each, lambda *_: leave(85))
    (run / f"ready{restart}-rank{rank}").touch()
if word in ("crash", "refuse") and rank == 1:
    sys.exit(1 if word == "crash" else 2)
if word == "lost" and rank == 0:
    while not (run / "lost").exists():
        time.sleep(0.1)
    sys.exit(1)
if word in ("wait", "deaf", "crash", "refuse", "lost"):
    time.sleep(%SLEEP%)
if word.startswith("idle:"):
    sys.exit(int(word.removeprefix("idle:")))
leave(int(word))
"""


def make_home(folder: Path) -> Path:
    """Write it, and return its root."""
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    (folder / "l2e" / "cli").mkdir(parents=True)
    for package in ("l2e", "l2e/cli"):
        (folder / package / "__init__.py").touch()
    (folder / "l2e" / "cli" / "entry.py").write_text(ENTRY)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "pretrain.py").write_text(TRAINER.replace("%SLEEP%", str(SLEEP)))
    return folder
