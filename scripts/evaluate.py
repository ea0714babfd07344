"""Evaluate an exported model with lm-eval.

python scripts/evaluate.py path=runs/a/hf/step456 output=results evaluation.data_dir=data/eval
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("evaluate", "l2e.cli.evaluate:run", "l2e.cli.evaluate_config:EvaluateConfig")
