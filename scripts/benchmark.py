"""Run a benchmark; its last line is one JSON object.

python scripts/benchmark.py benchmark=overhead benchmark.model=pythia-70m
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("benchmark", "l2e.cli.benchmark:run", "l2e.cli.benchmark_config:BenchmarkConfig")
