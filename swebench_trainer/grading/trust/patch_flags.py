"""Signs in a patch that a pass is not genuine."""

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
    r"|noxfile\.py|(site|user)customize\.py|.*\.(pth|egg-link)|entry_points\.txt"
    r"|\.gitattributes"
    r"|package\.json|(jest|vitest|karma|playwright|cypress)\.conf(ig)?\..+|\.mocharc.*"
    r"|Makefile|GNUmakefile|CMakeLists\.txt|Rakefile|\.rspec|phpunit\.xml(\.dist)?"
    r"|pom\.xml|(build|settings)\.gradle(\.kts)?|Cargo\.toml|build\.rs"
)
"""Names of files that change how tests run or are found, in any directory."""

PACKAGE_METADATA = re.compile(r".+\.(dist|egg)-info")
"""Names of folders and files that declare plugins of installed packages."""

TEST_FOLDERS = {
    "test",
    "tests",
    "testing",
    "testdata",
    "test-data",
    "test_data",
    "e2e",
    "spec",
    "specs",
    "__tests__",
    "__mocks__",
    "__snapshots__",
}
TEST_FILE = re.compile(
    r"test_.*\.(py|rb|c|cc|cpp|rs)|.*_test\.(py|go|rb|rs|c|cc|cpp|exs)|tests?\.(py|rs)"
    r"|.*\.(test|spec|cy)\.[cm]?[jt]sx?|.*_spec\.rb|.*\.(snap|t|phpt)"
    r"|(Test[A-Z].*|.*(Test|Tests|TestCase|IT|Spec))\.(java|kt|scala|groovy|php|cs)"
)
"""Names of test files by the conventions of their languages."""

RUNNER_MODULES = {"pytest", "_pytest", "pluggy", "nose", "xdist"}
SHADOWED = (sys.stdlib_module_names | RUNNER_MODULES) - {"test"}
"""Modules that a file in the root of the repository would shadow for tests."""

COMPILED = {".pyc", ".pyo", ".so", ".pyd", ".class", ".jar", ".node", ".wasm"}

LINKS = (stat.S_IFLNK, 0o160000)
"""Modes of files that refer to something elsewhere: symbolic links, submodules."""

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
"""Code that exits the process, inspects the test run, or forges its results."""

_ADDED = re.compile(r"^[ \tX]*[+!](?!\+\+ (?:\"?b/|/dev/null))(.*)$", re.MULTILINE)
_WORD = re.compile(r"[\w./+-]+")


def touches_tests(instance: Instance, patch: str) -> bool:
    """Whether a patch changes tests or test infrastructure.

    These are: files of the test patch, existing tests, `__init__.py` files of tests,
    files that match `RUNNER_FILE`, metadata of packages, files named in the eval script,
    and new modules that shadow Python's own.
    """
    own = set(patched_paths(instance.test_patch)) | _named_in_script(instance)
    paths, existing = set(patched_paths(patch)), existing_paths(patch)
    return (
        not own.isdisjoint(paths)
        or any(map(_is_runner_file, paths))
        or any(map(_is_test, existing))
        or any(
            PurePosixPath(path).name == "__init__.py"
            for path in filter(_is_test, paths)
        )
        or any(map(_shadows, paths - existing))
    )


def adds_discovered_tests(instance: Instance, patch: str) -> bool:
    """Whether the eval script runs test files that a patch adds.

    Such a file is imported with the official tests and can replace them. Scripts that
    name their test files do not run others.
    """
    new = set(patched_paths(patch)) - existing_paths(patch)
    if not (tests := [path for path in new if _is_test_file(path)]):
        return False
    words = _test_command(instance)
    official = set(patched_paths(instance.test_patch))
    if any(_names_folder_of(word, path) for word in words for path in tests):
        return True
    return not any(_names_file(word, path) for word in words for path in official)


def _test_command(instance: Instance) -> list[str]:
    """The words of the commands between the markers of an eval script."""
    from swebench.harness import constants

    _, _, after = instance.eval_script.partition(constants.START_TEST_OUTPUT)
    lines = after.partition(constants.END_TEST_OUTPUT)[0].splitlines()[1:]
    if instance.apply_mode == "pro":  # which runs the tests before the marker
        lines = re.findall(r"^bash /workspace/.*$", instance.eval_script, re.MULTILINE)
    words = " ".join(lines).replace(",", " ").split()
    return [word.strip("'\"").removeprefix("./").rstrip("/") for word in words]


def _names_folder_of(word: str, path: str) -> bool:
    """Whether a word of a test command is a folder or a package with this file in it."""
    module = path.rpartition(".")[0].replace("/", ".")
    in_package = "." in word and f".{word}." in f".{module}."
    return path == word or path.startswith(f"{word}/") or in_package


def _names_file(word: str, path: str) -> bool:
    """Whether a word of a test command names this test file, by path or as a module."""
    name = word.split("::")[0]
    stem = PurePosixPath(path).stem
    is_module = path.endswith(".py") and f".{stem}." in f".{name}."
    return bool(name) and (f"/{path}".endswith(f"/{name}") or is_module)


def has_unsafe_path(patch: str) -> bool:
    """Whether a patch touches something other than plain source files of the repository.

    These are: paths outside the repository or in `.git`, links, submodules, and compiled
    code, which may differ from its source.
    """
    return (
        bool(absolute_names(patch))
        or any(mode & 0o170000 in LINKS for mode in file_modes(patch))
        or any(map(_is_unsafe, patched_paths(patch)))
    )


def has_runner_code(patch: str, gold: str) -> bool:
    """Whether new lines match `RUNNER_CODE` in ways that the gold patch does not.

    This is a lint, not a barrier: code can hide its words. Other flags then detect its
    effects.
    """
    return not set(_runner_words(patch)) <= set(_runner_words(gold))


def _runner_words(patch: str) -> Iterator[str]:
    for line in _ADDED.findall(patch):
        yield from (word[0] for word in RUNNER_CODE.finditer(line))


def _named_in_script(instance: Instance) -> set[str]:
    """Paths named in an eval script outside its test patch."""
    script = instance.eval_script.replace(instance.test_patch, "")
    words = (
        word.removeprefix(f"{instance.workdir}/") for word in _WORD.findall(script)
    )
    return {str(PurePosixPath(word)) for word in words}


def _is_runner_file(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(
        RUNNER_FILE.fullmatch(pure.name)
        or any(map(PACKAGE_METADATA.fullmatch, pure.parts))
    )


def _is_test_file(path: str) -> bool:
    """Whether a file's name is one that test runners look for."""
    pure = PurePosixPath(path)
    return bool(TEST_FILE.fullmatch(pure.name)) or "__tests__" in pure.parts


def _is_test(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(TEST_FOLDERS & set(pure.parts[:-1]) or TEST_FILE.fullmatch(pure.name))


def _shadows(path: str) -> bool:
    """Whether a file is a module in the repository's root that shadows another."""
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
