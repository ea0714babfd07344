"""Pretrain a Pythia, with or without inhibition, evaluate it and write a report.

python scripts/pretrain.py                                  the embedded default, about two minutes
python scripts/pretrain.py inhibition=none training.steps=200
python scripts/pretrain.py --help                           groups, options and the resolved settings
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("pretrain", "l2e.cli.pretrain:run", "l2e.cli.pretrain_config:PretrainConfig")
