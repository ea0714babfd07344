"""Look at the rows of an update, or fetch a run's rows ahead of it.

python scripts/prepare.py show=rows step=1000
python scripts/prepare.py fetch=rows steps=14300 cache_dir=/scratch/cache
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("prepare", "l2e.cli.prepare:run")
