"""Load lm-eval's tasks by name, so that their datasets lie in the Hugging Face cache: python -m ... TASK ..."""

import sys


def main(tasks: list[str]) -> None:
    """Load them; the exit code says whether that went well, the last line of stderr why not."""
    from lm_eval.tasks import TaskManager

    try:
        TaskManager().load(tasks)
    except Exception as error:  # whatever a task's own code raises
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
