"""Plan a run before it is started: parameters, memory by part, time, disk, differences from the published one.

python scripts/plan.py model=pythia-410m training=pythia training.lr=3e-4 data=pile_deduped gpus=16 gpu=H100
python scripts/plan.py ... output=plans/410m       also writes plan.json and plan.md
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("plan", "l2e.cli.plan:run", "l2e.cli.plan_config:PlanConfig")
