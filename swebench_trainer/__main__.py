"""Entry point of `swebench-train` and of `python -m swebench_trainer`.

Turns errors into messages and exit codes.
"""

from __future__ import annotations

import shlex
import signal
import sys

from swebench_trainer.cli import app
from swebench_trainer.errors import TrainerError

INTERRUPTED = 130
"""Exit code after Ctrl-C and SIGTERM, following the convention of shells."""


def main() -> None:
    """Runs the command line and exits with its code."""
    sys.exit(run_command_line(sys.argv[1:]))


def run_command_line(arguments: list[str]) -> int:
    """Runs a command, and prints an error with its next step instead of a traceback.

    Args:
        arguments: The command line; `RECIPE.toml` is short for `run RECIPE.toml`.

    Returns:
        The exit code: 0 success, 1 failure, 2 wrong usage or recipe, 3 missing
        prerequisite, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments and arguments[0].endswith(".toml"):
        arguments = ["run", *arguments]
    try:
        code = app(arguments, standalone_mode=False) or 0
    except TrainerError as error:
        from swebench_trainer.reporting.console import printable
        from swebench_trainer.secrets import without_secrets

        print(printable(f"error: {without_secrets(str(error))}"), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}.", file=sys.stderr)
        return TrainerError.exit_code
    except Exception as error:  # typer's usage errors are private; others are raised
        return _usage_error(error)
    if code == INTERRUPTED:
        print(f"\nInterrupted. To resume: {resume_command(arguments)}", file=sys.stderr)
    return int(code)


def resume_command(arguments: list[str]) -> str:
    """The same command without `--redo`, which would rerun the stages once more."""
    kept: list[str] = []
    for number, argument in enumerate(arguments):
        is_redo = argument.partition("=")[0] == "--redo"
        follows_redo = number > 0 and arguments[number - 1] == "--redo"
        if not (is_redo or follows_redo):
            kept.append(argument)
    return shlex.join(["swebench-train", *kept])


def _usage_error(error: Exception) -> int:
    """Shows an error of the command line itself; raises any other."""
    show = getattr(error, "show", None)
    if show is None or not hasattr(error, "exit_code"):
        raise error
    show()
    return int(error.exit_code)


if __name__ == "__main__":
    main()
