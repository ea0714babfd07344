"""Benchmarks: each measures one promise of the package and ends with one line of JSON.

They need no Hydra, pydantic or DeepSpeed unless they measure them, so that a bare machine can run them:
`python -m l2e.benchmarks.overhead`.
"""
