"""How a patch gets into the repository: the harness's apply chain as one script.

The harness sends each command by itself; the commands, their order and what
happens between them are the same here, at the cost of one call. After that the
script says which files it has left: patches that leave the same ones share one
run of the tests.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import PurePosixPath

from swebench_trainer.types import Instance

REFUSED = 10
"""Exit code of the script when no command accepted the patch."""

NO_GIT = 11
"""Exit code of the script when the machine has no git."""

APPLY_SECONDS = 300.0
"""Longest time before the tests start; no honest patch comes near it."""

NAMED_PATHS = "/tmp/named_paths"  # noqa: S108 - in a sandbox of its own
"""Where the script finds the paths that the patch names, each ended by a NUL byte."""

# Every file is in the tree but for those that git ignores. When the patch may have
# written or deleted one of these, nothing is said. What it has written counts byte by
# byte, because git may see through line ends. The index counts too: `git apply --3way`
# and `git checkout` of an eval script read it. Objects go elsewhere, so that the
# repository stays as the harness would leave it.
_UNTRACKED = f"""\
untracked=
if [ -e {NAMED_PATHS} ]; then
  untracked=$(xargs -0 git --literal-pathspecs ls-files --others -- < {NAMED_PATHS} 2>&1)
fi
"""
_TREE = f"""\
state=$(mktemp -d)
(
  [ -e {NAMED_PATHS} ] && [ -z "$untracked" ] || exit
  staged=$(git ls-files --stage | git hash-object --stdin) || exit
  cp -p "$(git rev-parse --git-path index)" "$state/index" || exit
  objects=$(cd "$(git rev-parse --git-path objects)" && pwd) || exit
  export GIT_ALTERNATE_OBJECT_DIRECTORIES="$objects"
  export GIT_OBJECT_DIRECTORY="$state/objects" GIT_INDEX_FILE="$state/index"
  mkdir "$state/objects" && git add --all . || exit
  xargs -0 sh -c 'for path do
    if [ -e "$path" ] || [ -L "$path" ]; then
      git --literal-pathspecs ls-files --error-unmatch -- "$path" || exit 255
    fi
    if [ -f "$path" ] && [ ! -L "$path" ]; then
      git hash-object --no-filters -- "$path" >> "$0/raw" || exit 255
    fi
  done' "$state" < {NAMED_PATHS} || exit
  touch "$state/raw" && raw=$(git hash-object --no-filters "$state/raw") || exit
  tree=$(git write-tree) && echo "tree $tree $staged $raw" > "$state/tree"
) > /dev/null 2>&1 && cat "$state/tree"
rm -rf "$state"
"""

_TREE_LINE = re.compile(r"(?:^|\n)tree ([0-9a-f]{40,64}(?: [0-9a-f]{40,64}){2})\n?\Z")


def apply_script(instance: Instance) -> str:
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
            f"{{ echo '{APPLY_PATCH_PASS}: {command}'; left; exit 0; }}\n"
        )

    # A failed attempt leaves half of the patch behind, which makes the next one fail.
    reset = "git checkout -- . ; git clean -fd\n"
    chain = reset.join(attempt(command) for command in GIT_APPLY_CMDS)
    # The chain can apply all of the patch while each command fails.
    chain += attempt("git apply --check --reverse")
    if instance.apply_mode == "pro":
        base = shlex.quote(instance.base_commit)
        chain = f"git reset --hard {base}; git checkout {base}\n"
        chain += attempt("git apply -v")
    return (
        f"trap 'rm -f \"$0\" {NAMED_PATHS}' EXIT\n"
        f"command -v git >/dev/null || exit {NO_GIT}\n"
        f"left() {{\n{_TREE}}}\n{_UNTRACKED}"
        f"{chain}echo '{APPLY_PATCH_FAIL}'\nexit {REFUSED}\n"
    )


def applied_tree(log: str) -> str:
    """What the script says it has left, empty if it does not; its last line counts."""
    found = _TREE_LINE.search(log)
    return found[1] if found else ""


def named_paths(paths: Iterable[str]) -> bytes:
    """The file that `NAMED_PATHS` is to be; `patch` may leave two more beside each."""
    suffixes = ("", ".orig", ".rej")
    all_paths = sorted({f"{path}{suffix}" for path in paths for suffix in suffixes})
    return b"".join(p.encode("utf-8", "surrogateescape") + b"\0" for p in all_paths)


def is_contained(path: str) -> bool:
    """Whether a path of a patch lies in the repository and not in its `.git`."""
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and not {"..", ".git"} & set(parts)


def patch_bytes(patch: str) -> bytes | None:
    """The file that the patch becomes; a missing last newline stays missing.

    Surrogates that stand for undecodable bytes become those bytes, where the
    harness gives up; `None` when the text cannot be any file's.
    """
    try:
        return patch.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
