"""The metadata that selection and splits depend on.

It is small enough to hold in memory for every row of a data set whose texts do not fit.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from swebench_trainer.patches.lenient_diff import ChangedLines, lines_by_file
from swebench_trainer.store.spool import Spool
from swebench_trainer.types import Instance

_LANGUAGES = {
    "python": "py pyi pyx",
    "javascript": "js jsx mjs cjs vue svelte",
    "typescript": "ts tsx mts cts",
    "java": "java",
    "kotlin": "kt kts",
    "scala": "scala",
    "go": "go",
    "rust": "rs",
    "c": "c h",
    "c++": "cc cpp cxx hh hpp hxx",
    "c#": "cs",
    "php": "php",
    "ruby": "rb",
    "swift": "swift",
    "dart": "dart",
    "lua": "lua",
    "shell": "sh bash",
}
"""File suffixes of the languages in benchmarks."""

_BY_SUFFIX = {
    suffix: language
    for language, suffixes in _LANGUAGES.items()
    for suffix in suffixes.split()
}
_ALIASES = {
    "js": "javascript",
    "ts": "typescript",
    "py": "python",
    "golang": "go",
    "cpp": "c++",
}
# SWE-smith mirrors owner/name at each commit as swesmith/owner__name.<commit>.
_MIRROR = re.compile(r"swesmith/(?P<owner>.+?)__(?P<name>.+)\.(?P<commit>[0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Metadata:
    """An instance without its texts.

    Attributes:
        project: The repository in lower case; the same for all its mirrors.
        commit: The first 8 digits of the base commit.
        language: Programming language in lower case; empty if unknown.
        files: Paths that the gold patch touches.
        lines: Number of lines that the gold patch removes or adds.
        ungradable: See `Instance.ungradable`.
    """

    instance_id: str
    repo: str
    project: str
    commit: str
    created_at: str
    language: str
    difficulty: str
    files: tuple[str, ...]
    lines: int
    ungradable: str
    source: str


def metadata_of(instance: Instance) -> Metadata:
    """The metadata of an instance. Malformed patches do not raise."""
    changed = list(lines_by_file(instance.patch))
    project, commit = instance.repo.lower(), instance.base_commit[:8].lower()
    if mirror := _MIRROR.fullmatch(instance.repo):
        project = f"{mirror['owner']}/{mirror['name']}".lower()
        commit = mirror["commit"]
    language = instance.language.lower()
    return Metadata(
        instance_id=instance.instance_id,
        repo=instance.repo,
        project=project,
        commit=commit,
        created_at=instance.created_at,
        language=_ALIASES.get(language, language) or _language(changed),
        difficulty=instance.difficulty,
        files=tuple(sorted({path for file in changed for path in file.paths})),
        lines=sum(len(file.lines) for file in changed),
        ungradable=instance.ungradable,
        source=instance.source,
    )


def _language(changed: list[ChangedLines]) -> str:
    """The language with the most changed lines; the first by name if tied."""
    lines: Counter[str] = Counter()
    for file in changed:
        for path in file.paths:
            if language := _BY_SUFFIX.get(PurePosixPath(path).suffix[1:].lower()):
                lines[language] += max(1, len(file.lines))
    return min(lines, key=lambda name: (-lines[name], name), default="")


class InstanceSet:
    """Instances, possibly on disk, with their metadata in memory.

    Args:
        instances: The instances, read once here and once per iteration.
        metadata: Their metadata, if already known.
    """

    def __init__(
        self, instances: Sequence[Instance], metadata: Sequence[Metadata] | None = None
    ) -> None:
        self.instances = instances
        known = map(metadata_of, instances) if metadata is None else metadata
        self.metadata = list(known)

    def __len__(self) -> int:
        return len(self.metadata)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    @property
    def names(self) -> list[str]:
        """The instance ids."""
        return [metadata.instance_id for metadata in self.metadata]

    def only(self, wanted: Callable[[str], bool]) -> InstanceSet:
        """The subset with wanted ids, selected without reading the instances."""
        kept = [wanted(name) for name in self.names]
        if isinstance(self.instances, Spool):
            instances: Sequence[Instance] = self.instances.where(kept.__getitem__)
        else:
            instances = list(itertools.compress(self.instances, kept))
        return InstanceSet(instances, list(itertools.compress(self.metadata, kept)))
