"""Put finished runs side by side: tables, figures and what can be concluded.

python scripts/report.py runs=[runs/a,runs/b] output=runs/comparison
python scripts/report.py runs=[runs/pythia-70m-*] table=1 output=runs/table1
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("report", "l2e.cli.report:run", "l2e.cli.report_config:ReportConfig")
