"""Script that applies a patch with the harness's chain of commands.

The harness sends each command separately. Here the same commands run in the same order
in one script. It then prints the id of the resulting tree, because patches that produce
the same files share one run of the tests.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import PurePosixPath

from swebench_trainer.patches.hostile_diff import patched_paths
from swebench_trainer.types import Instance

REFUSED = 10
"""Exit code of the script if no command accepts the patch."""

NO_GIT = 11
"""Exit code of the script if the sandbox has no git."""

APPLY_SECONDS = 300.0
"""Time limit of the script; no honest patch comes near it."""

NAMED_PATHS = "/tmp/named_paths"  # noqa: S108 - in a sandbox of its own
"""Input of the script: the paths in the patch, each terminated by a NUL byte."""

# The tree contains every file except those that git ignores. If the patch may have
# written or deleted an ignored file, no tree is printed. Written files also count byte
# by byte, because git may normalize line endings. The index counts too: `git apply
# --3way` and `git checkout` in an eval script read it. New objects are stored elsewhere,
# so that the repository ends in the same state as with the harness.
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
    """The script, to run in the repository with the patch at the harness's path.

    It exits with 0, `REFUSED` or `NO_GIT`, and prints which command succeeded.
    """
    from swebench.harness import constants
    from swebench.harness.run_evaluation import GIT_APPLY_CMDS

    def attempt(command: str) -> str:
        return (
            f"{command} {constants.CONTAINER_PATCH_FILE} && "
            f"{{ echo '{constants.APPLY_PATCH_PASS}: {command}'; left; exit 0; }}\n"
        )

    # A failed attempt may leave a part of the patch, which makes the next one fail.
    reset = "git checkout -- . ; git clean -fd\n"
    chain = reset.join(attempt(command) for command in GIT_APPLY_CMDS)
    # The chain may have applied the whole patch although each command failed.
    chain += attempt("git apply --check --reverse")
    if instance.apply_mode == "pro":
        base = shlex.quote(instance.base_commit)
        chain = f"git reset --hard {base}; git checkout {base}\n"
        chain += attempt("git apply -v")
    return (
        f"trap 'rm -f \"$0\" {NAMED_PATHS}' EXIT\n"
        f"command -v git >/dev/null || exit {NO_GIT}\n"
        f"left() {{\n{_TREE}}}\n{_UNTRACKED}"
        f"{chain}echo '{constants.APPLY_PATCH_FAIL}'\nexit {REFUSED}\n"
    )


def apply_files(instance: Instance, patch: str, *, with_tree: bool) -> dict[str, bytes]:
    """The files that a sandbox needs to apply a patch; none if it cannot be encoded.

    Args:
        instance: The instance.
        patch: The patch.
        with_tree: Whether the script should print the tree that it produces.
    """
    content = patch_bytes(patch)
    if content is None:
        return {}
    files = {"tmp/patch.diff": content, "tmp/apply.sh": apply_script(instance).encode()}
    paths = set(patched_paths(patch))
    # Without this file, the script does not print the tree.
    if with_tree and all(map(is_contained, paths)):
        files[NAMED_PATHS.removeprefix("/")] = named_paths(paths)
    return files


def applied_tree(log: str) -> str:
    """The tree id in the last line of the log; empty if it has none."""
    found = _TREE_LINE.search(log)
    return found[1] if found else ""


def named_paths(paths: Iterable[str]) -> bytes:
    """Content of `NAMED_PATHS`, including the files that `patch` may leave for each path."""
    suffixes = ("", ".orig", ".rej")
    all_paths = sorted({f"{path}{suffix}" for path in paths for suffix in suffixes})
    return b"".join(p.encode("utf-8", "surrogateescape") + b"\0" for p in all_paths)


def is_contained(path: str) -> bool:
    """Whether a path in a patch is inside the repository but not in its `.git`."""
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and not {"..", ".git"} & set(parts)


def patch_bytes(patch: str) -> bytes | None:
    """The patch as the content of a file; a missing final newline stays missing.

    Surrogate escapes become the original bytes, where the harness fails. `None` if the
    text cannot be encoded.
    """
    try:
        return patch.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
