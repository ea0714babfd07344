"""Grids of runs: their members, what they cost, running them here, and the report about them."""
