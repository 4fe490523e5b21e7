"""Files at base commits: what opening them costs, and what a checkout each would cost.

    python benchmarks/contents.py ROWS.parquet... --mirrors /MIRRORS/{repo}
        [--sample 20] [--ways django/django]

prints Markdown tables. `{repo}` leads to repositories of this machine, which are read in
place and, as `file://`, cloned into a cache that is thrown away.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from swebench_trainer.contents.repositories import Repositories, repository_path
from swebench_trainer.patches.strict_diff import read_patch

Row = dict[str, str]
COLUMNS = ["repo", "base_commit", "patch"]


def gold_files(row: Row) -> list[str]:
    """The files that the gold patch changes or removes."""
    return [change.old for change in read_patch(row["patch"]) if change.old]


def peak_memory(process: int) -> float:
    """Most MB that a living process has had; files that it maps count."""
    # Not getrusage: that counts what the process that started it had, too.
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def clone_of(location: str, row: Row) -> Path:
    """Where the clone of a row's repository lies, if there is one."""
    return repository_path(location.replace("{repo}", row["repo"]))


def megabytes(folder: Path) -> float:
    """Disk that a directory takes."""
    paths = (p for p in folder.rglob("*") if not p.is_symlink())
    return sum(path.stat().st_blocks * 512 for path in paths) / 1e6


def open_all(rows: list[Row], location: str) -> dict[str, Any]:
    """Opens every tree, lists its files and reads those of the gold patch."""
    seconds = dict.fromkeys(("open", "list", "read"), 0.0)
    listed = read = 0
    missing = []

    def timed(what: str, do: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = do()
        seconds[what] += time.perf_counter() - begin
        return result

    with closing(Repositories(location)) as repositories:
        for row in rows:
            try:
                tree = timed(
                    "open", lambda r=row: repositories.tree(r["repo"], r["base_commit"])
                )
            except ValueError as error:
                missing.append(str(error))
                continue
            listed += len(timed("list", tree.paths))
            for path in gold_files(row):
                read += timed("read", lambda p=path, t=tree: t.read(p)) is not None
        running = [o._process for o in repositories._open.values() if o._process]
        git_memory = sum(peak_memory(process.pid) for process in running)
    folder = repository_path().parent
    return seconds | {
        "listed": listed,
        "gold": read,
        "missing": len(missing),
        "clones": len([p for p in folder.glob("*/")]),
        "cache": megabytes(folder),
        "memory": peak_memory(os.getpid()),
        "git": git_memory,
    }


def check_out(rows: list[Row], location: str) -> dict[str, Any]:
    """Checks the trees out of clones that are there; compares what both ways give."""
    seconds = disk = 0.0
    files = differing = 0
    with closing(Repositories(location)) as repositories, scratch() as folder:
        for number, row in enumerate(rows):
            tree = repositories.tree(row["repo"], row["base_commit"])
            clone = clone_of(location, row)
            place = folder / str(number)
            begin = time.perf_counter()
            git(
                clone,
                "worktree",
                "add",
                "-q",
                "--detach",
                str(place),
                row["base_commit"],
            )
            for path in gold_files(row):
                (place / path).read_bytes()
            seconds += time.perf_counter() - begin
            disk += megabytes(place)
            for path in tree.paths():
                files += 1
                differing += tree.read(path) != (place / path).read_bytes()
            git(clone, "worktree", "remove", "--force", str(place))
    return {"seconds": seconds, "disk": disk, "files": files, "differing": differing}


def ways(rows: list[Row], mirror: str) -> Iterator[tuple[str, float, float]]:
    """Ways to have the gold files of some commits of one repository from afar."""
    origin = f"file://{mirror}"
    serve = ("--upload-pack", "git -c uploadpack.allowFilter=true upload-pack")
    commits = [row["base_commit"] for row in rows]

    def full(place: Path) -> None:
        git(place.parent, "clone", "-q", "--bare", origin, str(place))
        read_gold(place, rows)

    def one_by_one(place: Path) -> None:
        git(place.parent, "init", "-q", "--bare", str(place))
        for commit in commits:
            git(place, "fetch", "-q", "--depth=1", "--no-tags", origin, commit)
        read_gold(place, rows)

    def blobless(place: Path) -> None:
        part = ("--filter=blob:none", *serve)
        git(place.parent, "clone", "-q", "--bare", *part, origin, str(place))
        git(place, "config", "remote.origin.uploadpack", serve[1])
        read_gold(place, rows)

    for name, way in (
        ("the whole history", full),
        ("`--depth=1`, commit by commit", one_by_one),
        ("`--filter=blob:none`, blobs as they are read", blobless),
    ):
        with scratch() as folder:
            begin = time.perf_counter()
            way(folder / "clone")
            yield name, time.perf_counter() - begin, megabytes(folder)


def read_gold(place: Path, rows: Iterable[Row]) -> None:
    """Reads the gold files of commits that are there."""
    for row in rows:
        for path in gold_files(row):
            git(place, "cat-file", "blob", f"{row['base_commit']}:{path}")


def git(place: Path, *arguments: str) -> None:
    """Runs git, which must succeed."""
    subprocess.run(["git", "-C", place, *arguments], check=True, capture_output=True)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is thrown away."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process of its own, so that its memory can be told."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    """Measures and prints."""
    import pyarrow.parquet as pq  # not in the processes whose memory is told

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=Path)
    parser.add_argument("--mirrors", required=True)
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--ways", help="a repository to compare ways of cloning on")
    options = parser.parse_args()
    sets = {p.stem: pq.read_table(p, columns=COLUMNS).to_pylist() for p in options.rows}
    print(
        f"{platform.system()} {platform.release()}, Python {platform.python_version()},"
    )
    print(subprocess.check_output(["git", "--version"], text=True))
    print(
        "| rows | trees | clones | opened | listed | gold read | ours | git | cache |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in sets.items():
        with scratch() as folder:
            os.environ["XDG_CACHE_HOME"] = str(folder)
            for way, location in (
                ("in place", options.mirrors),
                ("cloned", f"file://{options.mirrors}"),
                ("again", f"file://{options.mirrors}"),
            ):
                _print_opened(f"{name}, {way}", rows, apart(open_all, rows, location))
            near = [r for r in rows if clone_of(location, r).is_dir()]
            sample = near[:: max(1, len(near) // options.sample)][: options.sample]
            found = apart(check_out, sample, location)
        size = len(sample)
        print(
            f"| {name}, {size} of them checked out | {size} | | "
            f"{found['seconds']:.1f} s | | | | | {found['disk']:.0f} MB |"
        )
        print(f"<!-- {found['files']} files compared, {found['differing']} differ -->")
    if options.ways:
        rows = [r for rows in sets.values() for r in rows if r["repo"] == options.ways]
        mirror = options.mirrors.replace("{repo}", options.ways)
        print(f"\n| {options.ways}, 10 of {len(rows)} commits | time | disk |")
        print("| --- | --- | --- |")
        for name, seconds, disk in ways(rows[:: len(rows) // 10][:10], mirror):
            print(f"| {name} | {seconds:.1f} s | {disk:.0f} MB |")


def _print_opened(name: str, rows: list[Row], found: dict[str, Any]) -> None:
    print(
        f"| {name} | {len(rows) - found['missing']} of {len(rows)} | {found['clones']} "
        f"| {found['open']:.1f} s | {found['list']:.1f} s, {found['listed']} files "
        f"| {found['read']:.1f} s, {found['gold']} files | {found['memory']:.0f} MB "
        f"| {found['git']:.0f} MB | {found['cache']:.0f} MB |",
        flush=True,
    )


if __name__ == "__main__":
    main()
