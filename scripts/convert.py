"""Convert a restart point for another number of ranks or another ZeRO stage; the old one stays.

python scripts/convert.py run=runs/a             the newest
python scripts/convert.py run=runs/a step=8000
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("convert", "l2e.cli.convert:run", "l2e.cli.convert_config:ConvertConfig")
