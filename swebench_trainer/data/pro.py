"""The `swebench-pro` source: rows of SWE-bench Pro, made gradable by the harness.

A row of SWE-bench Pro says which tests decide, not how they are run: that is in the
scripts of its evaluation repository. Here both become one self-contained instance, with
an eval script that does what the official one does and writes a log for swebench.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from swebench_trainer.contracts import SourceData
from swebench_trainer.data.checkout import checkout, is_address
from swebench_trainer.data.columns import instance_from_row
from swebench_trainer.data.rows import (
    RowsPath,
    collect,
    read_rows,
    rows_digest,
    rows_name,
)
from swebench_trainer.errors import DataError
from swebench_trainer.recipe.models import (
    VOLATILE,
    DataTable,
    PlacePath,
    from_recipe_folder,
)
from swebench_trainer.store.digest import digest, digest_path
from swebench_trainer.types import Instance, is_unicode

DATASET = "ScaleAI/SWE-bench_Pro"
IMAGES = "jefzda/sweap-images"
WORKDIR = "/app"
TAG_LENGTH = 128
"""Longest tag of an image; longer ones are cut."""

_RUN_SCRIPT, _PARSER = "run_script.sh", "parser.py"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FIX = re.compile(r"-([0-9a-f]{40})(?:-v[0-9a-z]+)?\Z")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DIFF = re.compile(r"^diff --git ", re.MULTILINE)
_NEW_PATH = re.compile(
    r"\Aa/(?P<same>.+) b/(?P=same)$|^\+\+\+ b/(?P<path>.+?)\t?$|^rename to (?P<name>.+)$",
    re.MULTILINE,
)


def _checkout_or_address(scripts: str, info: ValidationInfo) -> str:
    return scripts if is_address(scripts) else str(from_recipe_folder(scripts, info))


class ProTable(DataTable):
    """Keys of `[data] use = "swebench-pro"`."""

    path: RowsPath = DATASET
    """A `.parquet`, `.jsonl`, `.json` or `.csv` file with the dataset's columns, or a Hub dataset id."""
    split: str = "test"
    """Split of a Hub dataset."""
    scripts: Annotated[
        str,
        AfterValidator(_checkout_or_address),
        Field(min_length=1, json_schema_extra={VOLATILE: True}),
    ]
    """The evaluation repository `SWE-bench_Pro-os`, which has `run_scripts/`: a checkout, or a git address with `@` and a tag, branch or full commit id behind it."""
    digests: PlacePath | None = None
    """A JSON file that gives the sha256 digest of each image tag; such images are taken by digest, the others by tag."""


class ProSource:
    """Reads rows of SWE-bench Pro; one that cannot be used is dropped with its reason."""

    def __init__(self, table: ProTable) -> None:
        self._table = table

    def load(self) -> SourceData:
        """Reads every row, with its scripts. See `Source.load`."""
        table = self._table
        folder = _run_scripts(table.scripts)
        digests = _read_digests(table.digests) if table.digests else {}

        def make(row: Mapping[str, Any], *, source: str) -> Instance:
            return pro_instance(row, folder=folder, digests=digests, source=source)

        rows = read_rows(table.path, table.split)
        return collect(rows, source=rows_name(table.path, table.split), make=make)

    def digest(self) -> str:
        """Digest of the rows, of all scripts, and of the file of digests."""
        table = self._table
        folder = _run_scripts(table.scripts)
        scripts = sorted(
            [*folder.glob(f"*/{_RUN_SCRIPT}"), *folder.glob(f"*/{_PARSER}")]
        )
        return digest(
            [
                rows_digest(table.path, table.split),
                [[s.relative_to(folder).as_posix(), digest_path(s)] for s in scripts],
                _read_digests(table.digests) if table.digests else {},
            ]
        )


def pro_instance(
    row: Mapping[str, Any], *, folder: Path, digests: Mapping[str, str], source: str
) -> Instance:
    """Makes an instance of a row.

    Args:
        row: The 16 columns; the names of the tests may be in upper case.
        folder: The directory `run_scripts` of the evaluation repository.
        digests: Image tag → digest, as far as they are known.
        source: Where the row came from.

    Raises:
        ValueError: The row cannot be used; the message says why.
    """
    prose = ("problem_statement", "requirements", "interface")
    columns = {
        **row,
        **{column: _prose(row.get(column)) for column in prose},
        "FAIL_TO_PASS": _tests(row, "fail_to_pass"),
        "PASS_TO_PASS": _tests(row, "pass_to_pass"),
        "version": "pro",
        "log_parser": "swebench_pro",
        "eval_type": "pass_and_fail",
        "language": row.get("repo_language"),
    }
    instance = instance_from_row(columns, source=source)
    if not instance.FAIL_TO_PASS:
        raise ValueError("column 'fail_to_pass' names no test")
    if not _COMMIT.fullmatch(instance.base_commit):
        raise ValueError("column 'base_commit' is no commit id")
    tag = image_tag(instance.instance_id, instance.repo)
    scripts = folder / instance.instance_id
    return dataclasses.replace(
        instance,
        image=f"{IMAGES}@{digests[tag]}" if tag in digests else f"{IMAGES}:{tag}",
        eval_script=eval_script(
            _checkout_tests(row, instance),
            _list(row, "selected_test_files_to_run"),
            _read_script(scripts / _RUN_SCRIPT),
        ),
        parser=_read_script(scripts / _PARSER),
        workdir=WORKDIR,
        apply_mode="pro",
    )


def image_tag(instance_id: str, repo: str) -> str:
    """Tag of an instance's image, by the rule of the official evaluation.

    The rule decides, not the column `dockerhub_tag`: the official evaluation does not
    read that, rows in other forms lack it, and the two are equal where it is there.

    Raises:
        ValueError: `repo` has no owner.
    """
    if not _REPO.fullmatch(repo):
        raise ValueError("column 'repo' is not owner/name")
    owner, name = repo.lower().split("/")
    kept_whole = "element-web-ec0f940ef0e8e3b61078f145f34dc40d1938e6c5-vnan"
    unique = instance_id.replace("instance_", "")
    if not instance_id.endswith(kept_whole):
        unique = unique.removesuffix("-vnan")
        name = "element" if (owner, name) == ("element-hq", "element-web") else name
    return f"{owner}.{name}-{unique}"[:TAG_LENGTH]


# The control character DLE, whose job this is, takes the place of `\` in tests' output:
# escaped are itself, carriage returns, which the harness would take for line ends, and
# what could be taken for a marker. The dot at the end tells whether a last newline is
# there. Alpine's sed would end a line at a NUL, so these go.
_WRITE_LOG = r"""write_log() {
  { cat "$1"; echo .; } | tr -d '\000' |
    LC_ALL=C sed $'s/\020/&&/g;s/>>>>/&\020./g;s/\r/\020r/g;s/^/'"$2/"
} 2> /dev/null"""


def eval_script(checkout_tests: str, files: Sequence[str], run_script: str) -> str:
    """The eval script of an instance; everything that it needs is in it.

    It runs the tests as the official evaluation does, with both streams in files of
    their own, and then writes the files into the log, stdout behind `O:` and stderr
    behind `E:` on each line. What tests print can therefore be no framing. `S:` goes
    before the digest of the run script, which the tests could have overwritten.

    Args:
        checkout_tests: Command that puts the files of the tests in place.
        files: What the run script is to run.
        run_script: The run script.

    Raises:
        ValueError: One of them holds a marker of the harness.
    """
    from swebench.harness.constants import END_TEST_OUTPUT, START_TEST_OUTPUT

    # A line of its own might be one that the harness takes out of eval scripts.
    quoted = "".join(f"|{line}\n" for line in run_script.removesuffix("\n").split("\n"))
    # The list stays unquoted, because it does so officially.
    script = f"""\
#!/bin/bash
set -uxo pipefail
set +u
{_WRITE_LOG}
mkdir -p /workspace
sed 's/^|//' > /workspace/{_RUN_SCRIPT} <<'END_OF_RUN_SCRIPT'
{quoted}END_OF_RUN_SCRIPT
cd {WORKDIR}
{checkout_tests}
bash /workspace/{_RUN_SCRIPT} {",".join(files)} > /workspace/stdout.log 2> /workspace/stderr.log
: '{START_TEST_OUTPUT}'
write_log /workspace/stdout.log O:
write_log /workspace/stderr.log E:
sha256sum < /workspace/{_RUN_SCRIPT} | sed 's/^/S:/'
true
: '{END_TEST_OUTPUT}'
"""
    for marker in (START_TEST_OUTPUT, END_TEST_OUTPUT):
        if script.count(marker) != 1:
            raise ValueError(f"the scripts hold the harness's marker {marker!r}")
    return script


def _run_scripts(scripts: str) -> Path:
    """The directory `run_scripts` of the evaluation repository."""
    root = checkout(scripts) if is_address(scripts) else Path(scripts)
    folder = root / "run_scripts"
    if not folder.is_dir():
        raise DataError(
            f"{scripts} has no directory run_scripts.",
            hint="[data] scripts is the evaluation repository SWE-bench_Pro-os: a "
            "directory, relative to the recipe's own, or a git address such as "
            "https://host/owner/name@revision.",
        )
    return folder


def _read_script(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        where = f"run_scripts/{path.parent.name}/{path.name}"
        raise ValueError(f"the evaluation repository has no {where}") from error


def _read_digests(path: Path) -> dict[str, str]:
    """Image tag → digest."""
    try:
        digests: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.") from error
    sound = isinstance(digests, dict) and all(
        isinstance(value, str) and _DIGEST.fullmatch(value)
        for value in digests.values()
    )
    if not sound:
        raise DataError(
            f'{path} must hold one object, {{"image tag": "sha256:…"}}, with 64 '
            "hexadecimal digits each."
        )
    return digests


def _tests(row: Mapping[str, Any], column: str) -> list[str]:
    """Names of tests; the evaluation's own table has these columns in upper case."""
    return _list(row, column if row.get(column) is not None else column.upper())


def _list(row: Mapping[str, Any], column: str) -> list[str]:
    """Texts, given as a list, as JSON, or as Python writes a list."""
    value = row.get(column)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = _literal(value, column)
    if not isinstance(value, list | tuple):
        raise ValueError(f"column {column!r} is not a list")
    # What is no text in a row cannot be the name of a test, nor be written.
    if not all(isinstance(item, str) and is_unicode(item) for item in value):
        raise ValueError(f"column {column!r} holds something that is not a text")
    return list(value)


def _literal(value: str, column: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes such as "\d"
            return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"column {column!r} is not a list") from error


def _prose(value: Any) -> Any:
    """A text, which some rows hold as JSON."""
    if isinstance(value, str) and value.startswith('"'):
        try:
            text = json.loads(value)
        except ValueError:
            return value
        if isinstance(text, str) and is_unicode(text):
            return text
    return value


def _checkout_tests(row: Mapping[str, Any], instance: Instance) -> str:
    """The command that puts the tests of the fix in place: the last line of a column.

    Raises:
        ValueError: The column is empty, and the rest of the row does not tell.
    """
    command = str(row.get("before_repo_set_cmd") or "").strip().split("\n")[-1]
    if command:
        return command
    fix = _FIX.search(instance.instance_id)
    files = list(_files_after(instance.test_patch))
    if not fix or not files:
        raise ValueError(
            "column 'before_repo_set_cmd' is empty, and cannot be made up for: the id "
            "has no commit, or 'test_patch' no files"
        )
    return shlex.join(["git", "checkout", fix[1], "--", *files])


def _files_after(test_patch: str) -> Iterator[str]:
    """The files that a patch leaves changed or new."""
    for section in _DIFF.split(test_patch)[1:]:
        header = section.partition("\n@@ ")[0]
        if "\ndeleted file mode " in header:
            continue
        found = _NEW_PATH.search(header)
        if not found:
            raise ValueError(
                "'test_patch' has a path that is written in an unusual way"
            )
        yield found["same"] or found["path"] or found["name"]
