"""Look at the rows of an update, or fetch all that a run needs ahead of it.

python scripts/prepare.py show=rows step=1000
python scripts/prepare.py fetch=all folder=prepared steps=14300 plan=true
python scripts/prepare.py fetch=all folder=prepared steps=14300
python scripts/prepare.py verify=true folder=prepared
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("prepare", "l2e.cli.prepare:run", "l2e.cli.preparation.config:PrepareConfig")
