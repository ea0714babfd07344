"""Analyse checkpoints: figures, their numbers and a page that collects them.

python scripts/analyze.py analysis=statistics features=builtin output=results
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("analyze", "l2e.cli.analyze:run", "l2e.cli.analyze_config:AnalyzeConfig")
