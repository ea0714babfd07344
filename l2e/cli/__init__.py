"""Command-line entries: Hydra composes, dataclasses check, one function runs."""
