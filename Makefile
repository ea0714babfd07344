# Every target does its own set-up. `make help` lists them.
.DEFAULT_GOAL := help
VENV := .venv
COMMA := ,
PYTHON := $(VENV)/bin/python
SETUP := $(VENV)/.ready

.PHONY: help setup demo seeds strength decrease-ratio toy readme-figures test test-all checks format clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(SETUP)  ## Make .venv and install the tested versions (about 2 minutes the first time)

$(SETUP): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(SETUP)  ## Train a baseline and L2E on the built-in world, evaluate both, put them side by side
	$(PYTHON) scripts/pretrain.py name=tiny-builtin-baseline-seed1 inhibition.weight=0  # bitwise inhibition=none, but observed
	$(PYTHON) scripts/pretrain.py inhibition=l2e
	$(PYTHON) scripts/report.py runs=[runs/tiny-builtin-baseline-seed1,runs/tiny-builtin-l2e-seed1] output=runs/demo

SEEDS := 1 2 3
seeds: $(SETUP)  ## The demo with three seeds, a report for each pair (docs/results/demo-seeds.md)
	$(PYTHON) scripts/pretrain.py -m seed=$(subst $() ,$(COMMA),$(SEEDS)) inhibition.weight=0,1e-4 \
	    'name=demo-weight$${inhibition.weight}-seed$${seed}'
	for seed in $(SEEDS); do $(PYTHON) scripts/report.py output=runs/demo-seed$$seed \
	    runs=[runs/demo-weight0-seed$$seed,runs/demo-weight0.0001-seed$$seed] || exit; done

STRENGTHS := 0 0.003 0.01 0.03 0.1 0.3 1
strength: $(SETUP)  ## The demo with the strength held at seven values, three seeds each: the figures of docs/strength.md
	$(PYTHON) scripts/pretrain.py runs_dir=runs/strength evaluation.enabled=false \
	    'name=strength$${inhibition.strength}-seed$${seed}' \
	    inhibition.strength=$(subst $() ,$(COMMA),$(STRENGTHS)) seed=$(subst $() ,$(COMMA),$(SEEDS)) -m
	$(PYTHON) scripts/studies/strength.py --runs runs/strength --output docs/figures \
	    --page docs/results/strength.md

decrease-ratio: $(SETUP)  ## MEmeL's Table 4 on a small network, ten seeds (docs/results/decrease-ratio.md)
	$(PYTHON) scripts/studies/decrease_ratio.py --seeds 10 --output docs/results/decrease-ratio.md

toy: $(SETUP)  ## Toy models: all experiments and figures of docs/toy-models.md (about 20 minutes on 2 cores)
	$(PYTHON) scripts/studies/toy.py --figures docs/figures --page docs/results/toy-models.md

readme-figures: demo  ## Draw the README's figure anew
	cp runs/demo/figures/threshold.png docs/figures/demo-threshold.png

test: $(SETUP)  ## Run the default tests (under 10 minutes on 2 cores)
	$(PYTHON) -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(SETUP)  ## Run all tests, the long ones too
	$(PYTHON) -m pytest -n 2 --dist loadfile

checks: $(SETUP)  ## Lint, formatting, types, layering, shell scripts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/shellcheck -x .ci/run scripts/*.sh slurm/*.sh slurm/*.sbatch

format: $(SETUP)  ## Put imports and layout right
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## Remove runs, caches and the virtual environment
	rm -rf runs cache $(VENV)
