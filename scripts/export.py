"""Export a restart point as a folder that AutoModelForCausalLM loads.

python scripts/export.py run=runs/a                            the newest, to runs/a/hf/step<N>
python scripts/export.py run=runs/a step=8000 output=elsewhere
"""

from l2e.cli.entry import main

if __name__ == "__main__":
    main("export", "l2e.cli.export:run", "l2e.cli.export_config:ExportConfig")
