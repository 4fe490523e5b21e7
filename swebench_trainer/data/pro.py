"""The `swebench-pro` source: rows of SWE-bench Pro, made gradable by the harness.

A row of SWE-bench Pro lists the deciding tests. The scripts that run them are in its
evaluation repository. This module combines both into a self-contained instance, whose
eval script does the same as the official one and writes a log for swebench.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, ValidationInfo

from swebench_trainer.contracts import SourceData
from swebench_trainer.data.columns import instance_from_row, strings_of
from swebench_trainer.data.rows import RowsPath, RowsSource, RowsTable
from swebench_trainer.errors import DataError
from swebench_trainer.git import GitError, git
from swebench_trainer.patches.strict_diff import read_patch
from swebench_trainer.recipe.models import (
    VOLATILE,
    PlacePath,
    from_recipe_folder,
)
from swebench_trainer.store.cache import cached, user_cache
from swebench_trainer.store.digest import digest, digest_path
from swebench_trainer.types import Instance, is_unicode

DATASET = "ScaleAI/SWE-bench_Pro"
IMAGES = "jefzda/sweap-images"
WORKDIR = "/app"
TAG_LENGTH = 128
"""Maximum length of an image tag; longer tags are cut."""

# A revision follows the last @ if no slash follows it: `ssh://git@host/x` has none.
_ADDRESS = re.compile(
    r"(?P<url>(?:https?|git)://\w[^@\s]*?"
    r"|ssh://\w\S*?|file:///\S*?|\w[\w.]*@\w[\w.-]*:\S+?)"
    r"(?:@(?P<revision>\w[\w.+-]*))?"
)
_RUN_SCRIPT, _PARSER = "run_script.sh", "parser.py"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FIX = re.compile(r"-([0-9a-f]{40})(?:-v[0-9a-z]+)?\Z")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def is_address(text: str) -> bool:
    """Whether a text is the address of a repository and not a local path."""
    return _ADDRESS.fullmatch(text) is not None


def _checkout_or_address(scripts: str, info: ValidationInfo) -> str:
    return scripts if is_address(scripts) else str(from_recipe_folder(scripts, info))


class ProTable(RowsTable):
    """Keys of `[data] use = "swebench-pro"`."""

    path: RowsPath = DATASET
    """A `.parquet`, `.jsonl`, `.json` or `.csv` file with the dataset's columns, or a Hub dataset id."""
    scripts: Annotated[
        str,
        AfterValidator(_checkout_or_address),
        Field(min_length=1, json_schema_extra={VOLATILE: True}),
    ]
    """The evaluation repository `SWE-bench_Pro-os`, which has `run_scripts/`: a local checkout, or a git address followed by `@` and a tag, branch or full commit id."""
    digests: PlacePath | None = None
    """JSON file with the sha256 digest of image tags; listed images are pulled by digest, others by tag."""


class ProSource(RowsSource):
    """Rows of SWE-bench Pro, with the scripts of its evaluation repository.

    An unusable row is dropped with the reason.
    """

    def __init__(self, table: ProTable) -> None:
        super().__init__(table)
        self._scripts = table.scripts
        self._digests = table.digests

    def load(self) -> SourceData:
        """Read every row with its scripts. See `Source.load`."""
        folder, digests = _run_scripts(self._scripts), _read_digests(self._digests)
        return self.load_with(partial(pro_instance, folder=folder, digests=digests))

    def digest(self) -> str:
        """Digest of the rows, all scripts, and the image digests."""
        folder = _run_scripts(self._scripts)
        found = (folder.glob(f"*/{name}") for name in (_RUN_SCRIPT, _PARSER))
        scripts = [
            [path.relative_to(folder).as_posix(), digest_path(path)]
            for path in sorted(chain.from_iterable(found))
        ]
        return digest([super().digest(), scripts, _read_digests(self._digests)])


def pro_instance(
    row: Mapping[str, Any], *, folder: Path, digests: Mapping[str, str], source: str
) -> Instance:
    """Convert a row to an instance.

    Args:
        row: The 16 columns; those with tests may have upper-case names.
        folder: The directory `run_scripts` of the evaluation repository.
        digests: Known image digests by tag.
        source: Name of the row's source.

    Raises:
        ValueError: The row is unusable; the message gives the reason.
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
        raise ValueError("column 'fail_to_pass' is empty")
    if not _COMMIT.fullmatch(instance.base_commit):
        raise ValueError("column 'base_commit' is not a commit id")
    tag = image_tag(instance.instance_id, instance.repo)
    scripts = folder / instance.instance_id
    dockerfiles = [
        folder.parent / "dockerfiles" / kind / instance.instance_id / "Dockerfile"
        for kind in ("base_dockerfile", "instance_dockerfile")
    ]
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
        dockerfiles=tuple(str(f.resolve()) for f in dockerfiles if f.is_file()),
    )


def image_tag(instance_id: str, repo: str) -> str:
    """Tag of an instance's image, by the rule of the official evaluation.

    The column `dockerhub_tag` is not used: the official evaluation ignores it, some
    formats of the rows lack it, and it equals the result of the rule otherwise.

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


# Test output is escaped with the control character DLE: the character itself, carriage
# returns, which the harness would read as line ends, and text that resembles a marker.
# The trailing dot records whether the last line ends in a newline. NULs are removed
# because `read` skips them. Only builtins of the running shell are used: the patch could
# have replaced any program by the time the tests have ended.
_WRITE_LOG = r"""write_log() {
  set +x
  local LC_ALL=C IFS= line= ended=0
  while [ $ended = 0 ]; do
    read -r line || ended=1
    line=${line//$'\020'/$'\020\020'}
    line=${line//'>>>>'/$'>>>>\020.'}
    line=${line//$'\r'/$'\020r'}
    [ $ended = 0 ] || line=$line.
    printf '%s%s\n' "$2" "$line"
  done < "$1" || printf '%s.\n' "$2"
  set -x
} 2> /dev/null"""


def eval_script(checkout_tests: str, files: Sequence[str], run_script: str) -> str:
    """The self-contained eval script of an instance.

    It runs the tests like the official evaluation, with stdout and stderr in separate
    files, and then writes both files to the log, each line prefixed with `O:` or `E:`.
    So test output cannot imitate the log's framing. `S:` precedes the digest of the run
    script, which the tests could have overwritten.

    Args:
        checkout_tests: Command that checks out the test files.
        files: Arguments of the run script.
        run_script: Content of the run script.

    Raises:
        ValueError: An argument contains a marker of the harness.
    """
    from swebench.harness.constants import END_TEST_OUTPUT, START_TEST_OUTPUT

    # The harness removes some lines from eval scripts; the prefix protects them.
    quoted = "".join(f"|{line}\n" for line in run_script.removesuffix("\n").split("\n"))
    # The list stays unquoted, as in the official evaluation.
    script = f"""\
#!/bin/bash
set -uxo pipefail
set +u
{_WRITE_LOG}
mkdir -p /workspace
sed 's/^|//' > /workspace/{_RUN_SCRIPT} <<'END_OF_RUN_SCRIPT'
{quoted}END_OF_RUN_SCRIPT
{{ script_text=$(< /workspace/{_RUN_SCRIPT}) script_digest=$(sha256sum < /workspace/{_RUN_SCRIPT}); }} 2> /dev/null
cd {WORKDIR}
{checkout_tests}
bash /workspace/{_RUN_SCRIPT} {",".join(files)} > /workspace/stdout.log 2> /workspace/stderr.log
: '{START_TEST_OUTPUT}'
write_log /workspace/stdout.log O:
write_log /workspace/stderr.log E:
{{ [ "$(< /workspace/{_RUN_SCRIPT})" = "$script_text" ] || script_digest=changed; }} 2> /dev/null
{{ printf 'S:%s\n' "$script_digest"; }} 2> /dev/null
: '{END_TEST_OUTPUT}'
"""
    for marker in (START_TEST_OUTPUT, END_TEST_OUTPUT):
        if script.count(marker) != 1:
            raise ValueError(f"the scripts contain the harness's marker {marker!r}")
    return script


def _run_scripts(scripts: str) -> Path:
    """The directory `run_scripts` of the evaluation repository."""
    root = checkout(scripts) if is_address(scripts) else Path(scripts)
    folder = root / "run_scripts"
    if not folder.is_dir():
        raise DataError(
            f"{scripts} has no run_scripts directory.",
            hint="Set [data] scripts to the evaluation repository SWE-bench_Pro-os: a "
            "directory, relative to the recipe's directory, or a git address such as "
            "https://host/owner/name@revision.",
        )
    return folder


def checkout(address: str) -> Path:
    """A read-only checkout of a repository at a revision.

    Cached checkouts are not fetched again, so an address without a revision stays at the
    commit of its first checkout.

    Args:
        address: `https://host/owner/name`, `ssh://…`, `git@host:owner/name` or
            `file:///path`, optionally followed by `@` and a branch, tag or full commit id.

    Raises:
        DataError: The address is invalid, or the revision cannot be fetched.
        PrerequisiteError: git is not installed.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise DataError(f"{address} is not the address of a git repository.")
    url, revision = found["url"], found["revision"] or "HEAD"
    place = user_cache("checkouts", digest([url, revision]))
    return cached(place, lambda new, lock: _clone(url, revision, new, lock))


def _clone(url: str, revision: str, place: Path, *locks: int) -> None:
    place.mkdir()
    fetch = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules")
    # A symbolic link in the repository could point to any local file.
    safe = ("-c", "core.symlinks=false", "-c", "core.autocrlf=false")
    checkout = ("checkout", "--quiet", "--detach", "FETCH_HEAD")
    try:
        git("-C", str(place), "init", "--quiet", "--template=")
        git("-C", str(place), *fetch, "--", url, revision, online=True, inherit=locks)
        git("-C", str(place), *safe, *checkout, inherit=locks)
    except GitError as error:
        raise DataError(
            f"{error}.",
            hint="Check the address and the network. A revision is a branch, a tag or a "
            "full commit id. Or clone the repository yourself and use its directory.",
        ) from error


def _read_script(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        where = f"run_scripts/{path.parent.name}/{path.name}"
        raise ValueError(f"the evaluation repository has no {where}") from error


_DIGESTS = TypeAdapter(
    dict[str, Annotated[str, Field(pattern=r"\Asha256:[0-9a-f]{64}\z")]]
)
"""Image digests by tag."""


def _read_digests(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        return _DIGESTS.validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    except ValidationError as error:
        raise DataError(
            f"{path} is invalid: {error.errors()[0]['msg']}.",
            hint='It must contain one JSON object {"image tag": "sha256:…"} with 64 '
            "hexadecimal digits per digest.",
        ) from error


def _tests(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """Test names; the evaluation repository's table has upper-case column names."""
    return _list(row, column if row.get(column) is not None else column.upper())


def _list(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """Strings from a list, a JSON list, or a Python list literal."""
    try:
        return strings_of(row, column)
    except ValueError:
        if not isinstance(row[column], str):
            raise
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes such as "\d"
            literal = ast.literal_eval(row[column])
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"column {column!r} is not a list") from error
    return strings_of({column: literal}, column)


def _prose(value: Any) -> Any:
    """A text, decoded if the row has it as a JSON string."""
    if isinstance(value, str) and value.startswith('"'):
        try:
            text = json.loads(value)
        except ValueError:
            return value
        if isinstance(text, str) and is_unicode(text):
            return text
    return value


def _checkout_tests(row: Mapping[str, Any], instance: Instance) -> str:
    """The command that checks out the tests of the fix: the last line of a column.

    Raises:
        ValueError: The column is empty, and the command cannot be derived from the row.
    """
    command = str(row.get("before_repo_set_cmd") or "").strip().split("\n")[-1]
    if command:
        return command
    fix = _FIX.search(instance.instance_id)
    changes = read_patch(instance.test_patch) if instance.test_patch else ()
    files = [change.new for change in changes if change.new]
    if not fix or not files:
        raise ValueError(
            "column 'before_repo_set_cmd' is empty and cannot be derived: the id has no "
            "commit, or 'test_patch' has no files"
        )
    return shlex.join(["git", "checkout", fix[1], "--", *files])
