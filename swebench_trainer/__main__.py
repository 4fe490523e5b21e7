"""Entry point of `swebench-train` and of `python -m swebench_trainer`."""

from __future__ import annotations

import sys

from swebench_trainer.cli import run_command_line


def main() -> None:
    """Runs the command line and exits with its code."""
    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
