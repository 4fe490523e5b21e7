"""Builds a swebench 5 task repo, and its images, out of bug-fix releases on PyPI.

See README.md beside this file for what it makes and what it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

import docker
from swebench.harness.grading import get_logs_eval, test_passed
from swebench.harness.utils import make_test_spec
from swebench.task.checks import check_task_repo, expected_image
from swebench.task.repo import dump_tests, dump_yaml, load_task_repo

from swebench_trainer.grading.docker import builds
from swebench_trainer.grading.docker.builds import (
    ImageBuild,
    build_image,
    build_label,
)

MANIFEST = Path(__file__).with_name("manifest.toml")
DATASET = "swebench-trainer/realtasks"
SPLIT = "test"

# The digest of the recipe that made a task. It is part of the image's build context, so
# an image with the digest of its context comes from the same recipe.
RECIPE_FILE = "recipe.sha256"

TEST_TIMEOUT_S = 300

# Metadata and caches that some sdists ship: they differ between releases but fix nothing.
NOISE = shutil.ignore_patterns("PKG-INFO", "*.egg-info", "__pycache__", "*.pyc")

# Who commits and when is fixed, so the same tree gives the same commit id on every machine.
COMMIT_BASE = " \\\n    && ".join(
    (
        "git -c init.defaultBranch=main init -q .",
        "git -c core.autocrlf=false add -A -f",
        "GIT_AUTHOR_NAME=swebench-trainer GIT_AUTHOR_EMAIL=swebench-trainer@localhost"
        " GIT_AUTHOR_DATE='2000-01-01T00:00:00+0000'"
        " GIT_COMMITTER_NAME=swebench-trainer GIT_COMMITTER_EMAIL=swebench-trainer@localhost"
        " GIT_COMMITTER_DATE='2000-01-01T00:00:00+0000'"
        " git -c commit.gpgsign=false -c core.hooksPath=/dev/null commit -q -m base",
    )
)

# PYTHONPATH finds the package of a src layout; a flat one is found in the working directory.
# The harness waits fifteen seconds for a container that ignores the signal to stop, as `tail`
# does in its containers; SIGKILL cannot be ignored.
# The last check makes a tree that changed on its way into the image fail the build.
DOCKERFILE = """\
FROM {base_image}
ENV PYTHONPATH=/testbed/src
STOPSIGNAL SIGKILL
WORKDIR /testbed
COPY repo /testbed
RUN {commit_base} \\
    && test "$(git rev-parse HEAD)" = {base_commit}
"""

# Markers are no-op commands: under `set -x` an echoed marker would appear twice in the log.
EVAL_SCRIPT = """\
#!/bin/bash
set -uxo pipefail
cd /testbed
git config --global --add safe.directory /testbed
{reset}
{remove}git apply -v - <<'EOF_114329324912'
{test_patch}
EOF_114329324912
: '>>>>> Start Test Output'
{command}
: '>>>>> End Test Output'
{reset}
"""

log = logging.getLogger(__name__)


class BuildError(Exception):
    """A task cannot be made from its manifest entry."""


@dataclass(frozen=True)
class Release:
    """One source distribution."""

    package: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The release as a pip requirement that accepts this very file only."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n"


@dataclass(frozen=True)
class Base:
    """The image that all the tasks are built on."""

    image: str
    suite: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One task of the manifest; manifest.toml explains the fields."""

    instance_id: str
    repo: str
    old: Release
    new: Release
    sources: tuple[str, ...]
    tests: tuple[str, ...]
    command: str
    log_parser: str
    issue: str

    @property
    def image(self) -> str:
        """The image name that the harness expects."""
        return str(expected_image(self.instance_id))

    @functools.cached_property
    def recipe(self) -> str:
        """Digest of everything that decides what the task becomes."""
        recipe = json.dumps(asdict(self), sort_keys=True) + Path(__file__).read_text()
        return hashlib.sha256(recipe.encode()).hexdigest()


@dataclass(frozen=True)
class Changes:
    """The difference between two releases, split into its gold and its test part."""

    base_commit: str
    gold_patch: str
    test_patch: str
    changed_tests: tuple[str, ...]
    added_tests: tuple[str, ...]


def read_manifest(path: Path = MANIFEST) -> tuple[Base, list[Entry]]:
    """Reads the base image and the entries of a manifest.

    Args:
        path: The manifest file.

    Returns:
        The base image and the entries, in the order of the file.
    """
    manifest = tomllib.loads(path.read_text())
    base = manifest["base"]
    return Base(base["image"], base["suite"], tuple(base["packages"])), [
        _entry(task) for task in manifest["task"]
    ]


def _entry(task: dict[str, Any]) -> Entry:
    package = task.pop("package")
    return Entry(
        old=Release(package, **task.pop("old")),
        new=Release(package, **task.pop("new")),
        sources=tuple(task.pop("sources")),
        tests=tuple(task.pop("tests")),
        issue=task.pop("issue").lstrip(),
        **task,
    )


def build(out: Path, only: Iterable[str] = (), manifest: Path = MANIFEST) -> list[str]:
    """Builds the tasks that are not complete yet, then writes the dataset.

    Args:
        out: The task repo's folder; made when absent.
        only: Instance ids to build; all of the manifest when empty.
        manifest: The file that names the tasks.

    Returns:
        The ids of the tasks that had to be built.

    Raises:
        BuildError: If an id is unknown or an entry makes no valid task.
    """
    base, entries = read_manifest(manifest)
    known = {entry.instance_id for entry in entries}
    wanted = set(only) or known
    if unknown := wanted - known:
        raise BuildError(f"not in {manifest.name}: {' '.join(sorted(unknown))}")
    (out / "tasks").mkdir(parents=True, exist_ok=True)
    chosen = [entry for entry in entries if entry.instance_id in wanted]
    with contextlib.closing(docker.from_env()) as client:
        pending = [entry for entry in chosen if not is_complete(client, out, entry)]
        if pending:
            build_tasks(client, out, base, pending)
    write_dataset(out)
    return [entry.instance_id for entry in pending]


def is_complete(client: docker.DockerClient, out: Path, entry: Entry) -> bool:
    """Tells whether a task directory and its image come from this very recipe.

    Args:
        client: The Docker engine that holds the images.
        out: The task repo's folder.
        entry: The task in question.
    """
    marker = out / "tasks" / entry.instance_id / RECIPE_FILE
    if not marker.is_file() or marker.read_text() != entry.recipe:
        return False
    try:
        image = client.images.get(entry.image)
    except docker.errors.ImageNotFound:
        return False
    return build_label(image.attrs) == image_build(marker.parent, entry).digest


def image_build(task: Path, entry: Entry) -> ImageBuild:
    """How a task's image is built."""
    return ImageBuild(entry.instance_id, entry.image, task / "Dockerfile")


def build_tasks(
    client: docker.DockerClient, out: Path, base: Base, entries: list[Entry]
) -> None:
    """Builds tasks side by side, after what they share: the base image and the sdists.

    Args:
        client: The Docker engine to build on.
        out: The task repo's folder.
        base: The base image.
        entries: The tasks to build.
    """
    sdists = out / ".sdists"
    releases = {release for entry in entries for release in (entry.old, entry.new)}
    with ThreadPoolExecutor() as pool:
        base_ready = pool.submit(ensure_base_image, client, base)
        # A list is what makes the pool raise an exception of its workers here.
        list(pool.map(functools.partial(fetch_sdist, sdists), releases))
        base_ready.result()
        list(pool.map(functools.partial(build_task, client, out, base), entries))


# --- Base image ---------------------------------------------------------------------


def ensure_base_image(client: docker.DockerClient, base: Base) -> None:
    """Imports a minimal Debian as the base image, unless there is one of that name.

    Args:
        client: The Docker engine to import into.
        base: What the image is called and holds.
    """
    with contextlib.suppress(docker.errors.ImageNotFound):
        client.images.get(base.image)
        return
    log.info("%s: debootstrap", base.image)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        options = ("--variant=minbase", f"--include={','.join(base.packages)}")
        mirror = _configured_mirror(base.suite)
        _run("debootstrap", *options, base.suite, str(root), *mirror)
        for download in (root / "var/cache/apt/archives").glob("*.deb"):
            download.unlink()
        archive = shutil.make_archive(str(root), "tar", root)
        repository, tag = base.image.rsplit(":", 1)
        client.api.import_image_from_file(archive, repository=repository, tag=tag)


def _configured_mirror(suite: str) -> list[str]:
    """The mirror that apt has for a suite; none if it has not, which means the default."""
    fields = ("Created-By: Packages", "Component: main", f"Release: {suite}")
    mirrors = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", *fields)
    return mirrors.split()[:1]


# --- Releases -----------------------------------------------------------------------


def fetch_sdist(sdists: Path, release: Release) -> Path:
    """Downloads a release's source distribution, unless it is there already.

    Args:
        sdists: The folder that keeps downloads.
        release: What to download.

    Returns:
        The archive, which has the digest that the release names.

    Raises:
        BuildError: If pip has no such archive.
    """
    folder = sdists / f"{release.package}-{release.version}"
    folder.mkdir(parents=True, exist_ok=True)
    if archive := _archive_of(folder, release):
        return archive
    log.info("%s %s: download", release.package, release.version)
    requirements = folder / "requirements.txt"
    requirements.write_text(release.requirement)
    pip_download = (sys.executable, "-m", "pip", "download", "--no-deps")
    exact = ("--require-hashes", f"--requirement={requirements}")
    # Not `:all:`, by which pip would also compile the build backends, and what builds those.
    source = f"--no-binary={release.package}"
    _run(*pip_download, *exact, source, f"--dest={folder}")
    if archive := _archive_of(folder, release):
        return archive
    raise BuildError(f"{release.package} {release.version} is no .tar.gz archive")


def _archive_of(folder: Path, release: Release) -> Path | None:
    for archive in folder.glob("*.tar.gz"):
        if hashlib.sha256(archive.read_bytes()).hexdigest() == release.sha256:
            return archive
    return None


def unpack(archive: Path, tree: Path) -> None:
    """Unpacks a source distribution without its top folder and without noise.

    Args:
        archive: The source distribution.
        tree: The folder to make.
    """
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        (top,) = Path(scratch).iterdir()
        shutil.copytree(top, tree, symlinks=True, ignore=NOISE)


def compare(old: Path, new: Path, entry: Entry) -> Changes:
    """Commits the old tree and splits its difference from the new tree.

    Args:
        old: The old release's tree; left as it is.
        new: The new release's tree; consumed, because it becomes the git work tree.
        entry: Says which paths are sources and which are tests.

    Returns:
        The base commit and the two patches.

    Raises:
        BuildError: If no source file or no existing test file differs.
    """
    with tempfile.TemporaryDirectory(dir=new.parent) as scratch:
        work = Path(scratch, "work")
        shutil.copytree(old, work, symlinks=True)
        _run("bash", "-c", COMMIT_BASE, cwd=work)
        (work / ".git").rename(new / ".git")
    _git(new, "add", "-A", "-f")
    changes = Changes(
        base_commit=_git(new, "rev-parse", "HEAD").strip(),
        gold_patch=_diff(new, *entry.sources),
        test_patch=_diff(new, *entry.tests),
        changed_tests=_files(new, "--diff-filter=a", *entry.tests),
        added_tests=_files(new, "--diff-filter=A", *entry.tests),
    )
    # Without a changed test file, the eval script would check out the whole base commit.
    if not (changes.gold_patch and changes.changed_tests):
        raise BuildError(f"{entry.instance_id}: no change in its sources or its tests")
    return changes


def _diff(work: Path, *paths: str) -> str:
    return _git(work, "diff", "--cached", "--no-renames", "HEAD", "--", *paths)


def _files(work: Path, kind: str, *paths: str) -> tuple[str, ...]:
    names = ("--no-renames", "--name-only", "-z", kind)
    listing = _git(work, "diff", "--cached", *names, "HEAD", "--", *paths)
    return tuple(filter(None, listing.split("\0")))


def _git(work: Path, *arguments: str) -> str:
    return _run("git", *arguments, cwd=work)


# --- Tasks --------------------------------------------------------------------------


def build_task(
    client: docker.DockerClient, out: Path, base: Base, entry: Entry
) -> None:
    """Builds one task: its files, its image and the tests that grade it.

    The directory is moved into place at the end, so a task is complete or absent.

    Args:
        client: The Docker engine to build on.
        out: The task repo's folder.
        base: The base image.
        entry: The task to build.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix=".build-") as scratch:
        task, new = Path(scratch, "task"), Path(scratch, "new")
        task.mkdir()
        unpack(fetch_sdist(out / ".sdists", entry.old), task / "repo")
        unpack(fetch_sdist(out / ".sdists", entry.new), new)
        changes = compare(task / "repo", new, entry)
        for name, content in task_files(base, entry, changes).items():
            (task / name).write_bytes(content.encode())
        (task / RECIPE_FILE).write_text(entry.recipe)
        log.info("%s: image", entry.instance_id)
        build_image(client.api, image_build(task, entry), Path(scratch), Event())
        tests = observe(client, Path(scratch), entry, changes)
        (task / "tests.json").write_text(dump_tests(tests))
        place = out / "tasks" / entry.instance_id
        shutil.rmtree(place, ignore_errors=True)
        task.rename(place)
    log.info("%s: done (%s)", entry.instance_id, _counts(tests))


def _counts(tests: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{len(names)} {kind}" for kind, names in tests.items())


def task_files(base: Base, entry: Entry, changes: Changes) -> dict[str, str]:
    """The text files of a task directory, apart from the observed tests.

    Args:
        base: The base image.
        entry: The task.
        changes: What the new release changed.

    Returns:
        Contents by file name.
    """
    return {
        "task.yaml": dump_yaml(task_metadata(entry, changes)),
        "problem_statement.md": entry.issue,
        "gold.patch": changes.gold_patch,
        "test.patch": changes.test_patch,
        "eval.sh": eval_script(entry, changes),
        "Dockerfile": DOCKERFILE.format(
            base_image=base.image,
            commit_base=COMMIT_BASE,
            base_commit=changes.base_commit,
        ),
    }


def task_metadata(entry: Entry, changes: Changes) -> dict[str, Any]:
    """The columns of a task that live in its task.yaml.

    Args:
        entry: The task.
        changes: What the new release changed.
    """
    return {
        "instance_id": entry.instance_id,
        "repo": entry.repo,
        "version": entry.old.version,
        "base_commit": changes.base_commit,
        "split": SPLIT,
        "datasets": [DATASET],
        "image": entry.image,
        "log_parser": entry.log_parser,
        "eval_type": "pass_and_fail",
    }


def eval_script(entry: Entry, changes: Changes) -> str:
    """The script that applies the test patch and runs the tests.

    A file that the test patch adds is not in the base commit: it is removed before the
    patch is applied, in case the graded patch made one of the same name.

    Args:
        entry: The task.
        changes: What the new release changed.
    """
    added = shlex.join(changes.added_tests)
    return EVAL_SCRIPT.format(
        reset=f"git checkout {changes.base_commit} {shlex.join(changes.changed_tests)}",
        remove=f"rm -f {added}\n" if added else "",
        test_patch=changes.test_patch.removesuffix("\n"),
        command=entry.command,
    )


def write_dataset(out: Path) -> None:
    """Writes sweb.yaml and dataset.jsonl for the tasks that a task repo holds.

    Args:
        out: The task repo's folder.

    Raises:
        BuildError: If swebench finds fault with the task repo.
    """
    config = {"datasets": [DATASET], "splits": [SPLIT]}
    (out / "sweb.yaml").write_text(dump_yaml(config))
    if problems := check_task_repo(out):
        raise BuildError("\n".join(map(str, problems)))
    rows = [json.dumps(row) + "\n" for row in load_task_repo(out)]
    (out / "dataset.jsonl").write_text("".join(rows))


# --- Observed tests -----------------------------------------------------------------


def observe(
    client: docker.DockerClient, scratch: Path, entry: Entry, changes: Changes
) -> dict[str, list[str]]:
    """Runs the tests without and with the gold patch and sorts them by what happened.

    The run with the gold patch is made twice, and a test has to pass both times.

    Args:
        client: The Docker engine that has the task's image.
        scratch: A folder for the logs.
        entry: The task.
        changes: What the new release changed.

    Returns:
        The value of tests.json.

    Raises:
        BuildError: If a run cannot be graded or the gold patch makes no test pass.
    """
    grade = functools.partial(run_tests, client, scratch, entry, changes)
    before, after, again = map(grade, ("", changes.gold_patch, changes.gold_patch))
    passing = sorted(_passed(after) & _passed(again))
    tests = {
        "FAIL_TO_PASS": [name for name in passing if not test_passed(name, before)],
        "PASS_TO_PASS": [name for name in passing if name in _passed(before)],
    }
    if not tests["FAIL_TO_PASS"]:
        raise BuildError(f"{entry.instance_id}: the gold patch makes no test pass")
    return tests


def _passed(statuses: Mapping[str, str]) -> set[str]:
    return {name for name, status in statuses.items() if status == "PASSED"}


def run_tests(
    client: docker.DockerClient,
    scratch: Path,
    entry: Entry,
    changes: Changes,
    patch: str,
) -> dict[str, str]:
    """Runs a task's eval script in a fresh container and reads its log as the harness does.

    Args:
        client: The Docker engine that has the task's image.
        scratch: A folder for the log.
        entry: The task.
        changes: What the new release changed.
        patch: The patch to apply first; none when empty.

    Returns:
        Test statuses by test name.

    Raises:
        BuildError: If swebench cannot grade the log.
    """
    spec = make_test_spec(
        task_metadata(entry, changes)
        | {
            "eval_script": eval_script(entry, changes),
            "FAIL_TO_PASS": [],
            "PASS_TO_PASS": [],
        }
    )
    files = {"eval.sh": spec.eval_script, "model.patch": patch}
    apply_patch = "git apply /model.patch && " if patch else ""
    with _container(
        client, entry.image, f"{apply_patch}bash /eval.sh 2>&1"
    ) as container:
        container.put_archive("/", _archive(files))
        container.start()
        container.wait(timeout=TEST_TIMEOUT_S)
        output = container.logs()
    test_log = scratch / "test_output.txt"
    test_log.write_bytes(output)
    statuses, gradeable = get_logs_eval(spec, str(test_log))
    if not gradeable:
        raise BuildError(
            f"{entry.instance_id}: the log cannot be graded:\n{output.decode()}"
        )
    return dict(statuses)


@contextlib.contextmanager
def _container(client: docker.DockerClient, image: str, script: str) -> Iterator[Any]:
    container = client.containers.create(
        image, ["bash", "-c", script], network_mode="none"
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def _archive(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


# --- Commands -----------------------------------------------------------------------


def _run(*command: str, cwd: Path | None = None) -> str:
    # The user's git settings could change what a diff or a commit looks like.
    neutral = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | neutral, capture_output=True
    )
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace")
        raise BuildError(f"failed: {shlex.join(command)}\n{output}")
    # Decoded by hand: text mode would drop the carriage returns that a diff may hold.
    return done.stdout.decode()


def main() -> None:
    """Builds the task repo that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the task repo's folder")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ID", help="build these tasks"
    )
    parser.add_argument(
        "--manifest", type=Path, default=MANIFEST, help="another file of tasks"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        built = build(arguments.out.resolve(), arguments.only, arguments.manifest)
    except (BuildError, builds.BuildError) as error:
        sys.exit(str(error))
    log.info("%d tasks built", len(built))


if __name__ == "__main__":
    main()
