"""The few facts of an instance that decide whether and where it takes part.

They are small, so that they can be held for every row of a data set whose texts
do not fit into memory.
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
"""Languages by the suffixes of their files, as far as benchmarks have them."""

_BY_SUFFIX = {
    suffix: language for language, some in _LANGUAGES.items() for suffix in some.split()
}
_SAME = {
    "js": "javascript",
    "ts": "typescript",
    "py": "python",
    "golang": "go",
    "cpp": "c++",
}
# SWE-smith keeps a copy of owner/name at each commit as swesmith/owner__name.<commit>.
_MIRROR = re.compile(r"swesmith/(?P<owner>.+?)__(?P<name>.+)\.(?P<commit>[0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an instance without its texts.

    Attributes:
        project: The repository in lower case; all mirrors of one are one project.
        commit: The first 8 digits of the commit that the project was at.
        language: In lower case; empty when not known.
        files: Paths that the gold patch touches.
        lines: Lines that the gold patch removes or adds.
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


def facts_of(instance: Instance) -> Facts:
    """Reads the facts of an instance; what its patch is never makes it raise."""
    changed = list(lines_by_file(instance.patch))
    project, commit = instance.repo.lower(), instance.base_commit[:8].lower()
    if mirror := _MIRROR.fullmatch(instance.repo):
        project = f"{mirror['owner']}/{mirror['name']}".lower()
        commit = mirror["commit"]
    language = instance.language.lower()
    return Facts(
        instance_id=instance.instance_id,
        repo=instance.repo,
        project=project,
        commit=commit,
        created_at=instance.created_at,
        language=_SAME.get(language, language) or _language(changed),
        difficulty=instance.difficulty,
        files=tuple(sorted({path for file in changed for path in file.paths})),
        lines=sum(len(file.lines) for file in changed),
        ungradable=instance.ungradable,
        source=instance.source,
    )


def _language(changed: list[ChangedLines]) -> str:
    """The language of most of the changed lines; of equals the first by name."""
    lines: Counter[str] = Counter()
    for file in changed:
        for path in file.paths:
            language = _BY_SUFFIX.get(PurePosixPath(path).suffix[1:].lower())
            if language:
                lines[language] += max(1, len(file.lines))
    return min(lines, key=lambda name: (-lines[name], name), default="")


class Rows:
    """Instances, which may lie on disk, beside their facts, which are at hand.

    Args:
        instances: Read once here, and once for each time that the rows are iterated.
        facts: Their facts, where they are known.
    """

    def __init__(
        self, instances: Sequence[Instance], facts: Sequence[Facts] | None = None
    ) -> None:
        self.instances = instances
        self.facts = list(map(facts_of, instances) if facts is None else facts)

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    @property
    def names(self) -> list[str]:
        """The ids."""
        return [facts.instance_id for facts in self.facts]

    def only(self, wanted: Callable[[str], bool]) -> Rows:
        """Those whose ids are wanted; nothing is read for it."""
        kept = [wanted(name) for name in self.names]
        if isinstance(self.instances, Spool):
            instances: Sequence[Instance] = self.instances.where(kept.__getitem__)
        else:
            instances = list(itertools.compress(self.instances, kept))
        return Rows(instances, list(itertools.compress(self.facts, kept)))
