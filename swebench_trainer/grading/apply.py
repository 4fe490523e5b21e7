"""The harness's apply chain as one script, so that it costs one exec.

The harness sends each command by itself; the commands, their order and what
happens between them are the same here.
"""

from __future__ import annotations

REFUSED = 10
"""Exit code of the script when no command accepted the patch."""

NO_GIT = 11
"""Exit code of the script when the machine has no git."""

APPLY_SECONDS = 300.0
"""Longest time before the tests start; no honest patch comes near it."""


def apply_script() -> str:
    """The script; it is run in the repository, with the patch in the harness's place.

    It exits with 0, `REFUSED` or `NO_GIT`, and its output says which command it was.
    """
    from swebench.harness.constants import (
        APPLY_PATCH_FAIL,
        APPLY_PATCH_PASS,
        CONTAINER_PATCH_FILE,
    )
    from swebench.harness.run_evaluation import GIT_APPLY_CMDS

    def attempt(command: str) -> str:
        return (
            f"{command} {CONTAINER_PATCH_FILE} && "
            f"{{ echo '{APPLY_PATCH_PASS}: {command}'; exit 0; }}\n"
        )

    # A failed attempt leaves half of the patch behind, which makes the next one fail.
    reset = "git checkout -- . ; git clean -fd\n"
    return (
        f"command -v git >/dev/null || exit {NO_GIT}\n"
        + reset.join(attempt(command) for command in GIT_APPLY_CMDS)
        # The chain can apply all of the patch while each command fails.
        + attempt("git apply --check --reverse")
        + f"echo '{APPLY_PATCH_FAIL}'\nexit {REFUSED}\n"
    )


def patch_bytes(patch: str) -> bytes | None:
    """The file that the patch becomes; a missing last newline stays missing.

    Surrogates that stand for undecodable bytes become those bytes, where the
    harness gives up; `None` when the text cannot be any file's.
    """
    try:
        return patch.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
