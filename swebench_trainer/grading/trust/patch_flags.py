"""What a patch says that makes a pass hard to believe, before anything is run."""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from swebench_trainer.patches.hostile_diff import (
    absolute_names,
    existing_paths,
    file_modes,
    patched_paths,
)
from swebench_trainer.types import Instance

RUNNER_FILE = re.compile(
    r"conftest\.py|\.?pytest\.(ini|toml)|pyproject\.toml|tox\.ini|setup\.(cfg|py)"
    r"|noxfile\.py|(site|user)customize\.py|.*\.pth"
    r"|package\.json|(jest|vitest|karma|playwright|cypress)\.conf(ig)?\..+|\.mocharc.*"
    r"|Makefile|GNUmakefile|CMakeLists\.txt|Rakefile|\.rspec|phpunit\.xml(\.dist)?"
    r"|pom\.xml|(build|settings)\.gradle(\.kts)?|Cargo\.toml|build\.rs"
)
"""Names of files that change how tests run or are found, wherever they lie."""

TEST_FOLDERS = {
    *("test", "tests", "testing", "testdata", "test-data", "test_data", "e2e"),
    *("spec", "specs", "__tests__", "__mocks__", "__snapshots__"),
}
TEST_FILE = re.compile(
    r"test_.*\.(py|rb|c|cc|cpp|rs)|.*_test\.(py|go|rb|rs|c|cc|cpp|exs)|tests?\.(py|rs)"
    r"|.*\.(test|spec|cy)\.[cm]?[jt]sx?|.*_spec\.rb|.*\.(snap|t|phpt)"
    r"|(Test[A-Z].*|.*(Test|Tests|TestCase|IT|Spec))\.(java|kt|scala|groovy|php|cs)"
)
"""Names that tests have by the conventions of their languages."""

RUNNER_MODULES = {"pytest", "_pytest", "pluggy", "nose", "xdist"}
SHADOWED = (sys.stdlib_module_names | RUNNER_MODULES) - {"test"}
"""Modules that tests import, and would find in the root of the repository first."""

COMPILED = {".pyc", ".pyo", ".so", ".pyd", ".class", ".jar", ".node", ".wasm"}

LINKS = (stat.S_IFLNK, 0o160000)
"""Types of files that stand for something elsewhere: symbolic links, submodules."""

RUNNER_CODE = re.compile(
    r">>>>>|\bPASSED\b|SWEBENCH|/eval\.sh|/proc/|PYTEST_CURRENT_TEST"
    r"|\b_?pytest\b|\bunittest\b(?!\.mock)|\bTestCase\b|\batexit\b|\bSystemExit\b"
    r"|\bfrom os import\b.*\b(_exit|abort|kill|killpg|fork)\b|\b(quit|exit)\("
    r"|\b(os\._exit|os\.abort|os\.kill|os\.killpg|os\.getppid|os\.fork|sys\.exit)\b"
    r"|\bsys\.(settrace|setprofile|meta_path|path_hooks)\b|\bsys\.modules\["
    r"|\bgc\.get_(objects|referrers)\b|\binspect\.stack\b|\bsys\._getframe\b"
    r"|\b(process\.exit|os\.Exit|System\.exit|Runtime\.getRuntime|at_exit"
    r"|register_shutdown_function|process::exit|_exit)\b"
)
"""Words with which code ends the process, finds its tests, or writes their results."""

_ADDED = re.compile(r"^[ \tX]*[+!](?!\+\+ (?:\"?b/|/dev/null))(.*)$", re.MULTILINE)
_WORD = re.compile(r"[\w./+-]+")


def touches_tests(instance: Instance, patch: str) -> bool:
    """Whether a patch changes the tests or what runs them.

    These do: files of the test patch, existing tests, packages of tests, the files of
    `RUNNER_FILE`, files that the eval script names, and new modules that shadow
    Python's own.
    """
    own = set(patched_paths(instance.test_patch)) | _named_in_script(instance)
    paths, existing = set(patched_paths(patch)), existing_paths(patch)
    return (
        not own.isdisjoint(paths)
        or any(RUNNER_FILE.fullmatch(PurePosixPath(path).name) for path in paths)
        or any(map(_is_test, existing))
        or any(
            PurePosixPath(path).name == "__init__.py"
            for path in filter(_is_test, paths)
        )
        or any(map(_shadows, paths - existing))
    )


def has_unsafe_path(patch: str) -> bool:
    """Whether a patch names what is not plain source in the repository.

    That is what lies outside or in `.git`, links, submodules, and compiled code,
    which may be another program than the source beside it.
    """
    return (
        bool(absolute_names(patch))
        or any(mode & 0o170000 in LINKS for mode in file_modes(patch))
        or any(map(_is_unsafe, patched_paths(patch)))
    )


def has_runner_code(patch: str, gold: str) -> bool:
    """Whether new lines speak of the test run with words that gold does not need.

    It is a lint, not a wall: code that wants to hide what it says can. What it does
    then is for the other flags to see.
    """
    return not set(_runner_words(patch)) <= set(_runner_words(gold))


def _runner_words(patch: str) -> Iterator[str]:
    for line in _ADDED.findall(patch):
        yield from (word[0] for word in RUNNER_CODE.finditer(line))


def _named_in_script(instance: Instance) -> set[str]:
    """The paths that an eval script may name, beside those in its test patch."""
    script = instance.eval_script.replace(instance.test_patch, "")
    words = (
        word.removeprefix(f"{instance.workdir}/") for word in _WORD.findall(script)
    )
    return {str(PurePosixPath(word)) for word in words}


def _is_test(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(TEST_FOLDERS & set(pure.parts[:-1]) or TEST_FILE.fullmatch(pure.name))


def _shadows(path: str) -> bool:
    """Whether a file is a module in the repository's root that hides another one."""
    module = path.removesuffix(".py").removesuffix("/__init__")
    return path.endswith(".py") and module in SHADOWED


def _is_unsafe(path: str) -> bool:
    pure = PurePosixPath(path)
    parts = {part.casefold() for part in pure.parts}
    return (
        pure.is_absolute()
        or not parts.isdisjoint({"..", ".git", ".gitmodules", "__pycache__"})
        or pure.suffix in COMPILED
    )
