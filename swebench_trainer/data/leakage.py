"""Leakage between training and evaluation.

Training and evaluation may share no instance, no commit of a repository together with a
file that both gold patches touch, and no gold patch. Instead of comparing pairs, the
held-out instances are indexed and each training instance is looked up, so time and
memory are linear in the number of rows.

This module also recognizes rows of public test splits. SWE-bench's are recognized by
repository: its train split comes from 37 other repositories and its dev split from 6
more (Jimenez et al., 2024). SWE-bench Pro's public instances are recognized by the
prefix of their ids, the others by the name of their data set.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from swebench_trainer.data.metadata import InstanceSet, Metadata
from swebench_trainer.patches.lenient_diff import lines_by_file
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Instance, LeakageKind

NGRAM = 5
"""Tokens of an n-gram of added code."""
ENOUGH = 12
"""Shorter patches, by number of n-grams, are compared exactly and with their file names."""
SAMPLE = 32
"""Number of indexed n-grams of a held-out patch: those with the smallest checksums."""
OVERLAP = 0.8
"""Share of the indexed n-grams from which two gold patches count as nearly the same."""
NAMED = 20
"""Number of training instances that a finding names; the rest are counted."""

_CROWD = 64
"""Maximum number of held-out instances indexed for an n-gram, because of license headers."""
_TOKEN = re.compile(r"\w+|[^\w\s]")
_PRO_ID = re.compile(r"instance_(.+?)(?:-v[0-9a-z]+)?")
_LONG = 100
"""Characters. Equal issue texts of this length match across repositories too."""


@dataclass
class Finding:
    """Something that a held-out instance shares with training instances.

    Attributes:
        heldout: Id of the held-out instance.
        reason: Kind of overlap.
        what: The shared commit and file, else empty.
        train: Ids of the first training instances that share it.
        count: Number of training instances that share it.
    """

    heldout: str
    reason: LeakageKind
    what: str
    train: list[str] = field(default_factory=list)
    count: int = 0

    def row(self) -> dict[str, object]:
        """The finding as a row of `leakage.jsonl`."""
        return {**vars(self)}

    def __str__(self) -> str:
        """The finding as one line."""
        others = f" and {self.count - 1} more" if self.count > 1 else ""
        what = f" ({self.what})" if self.what else ""
        return f"{self.heldout} and {self.train[0]}{others}: {self.reason}{what}"


@dataclass
class Leakage:
    """Everything that training and evaluation share.

    Attributes:
        findings: The findings, in the order of the held-out instances.
        train: Ids of all leaking training instances.
    """

    findings: list[Finding]
    train: set[str]

    def examples(self, count: int = 5) -> list[str]:
        """The first findings, one line each."""
        lines = [str(finding) for finding in self.findings[:count]]
        return [*lines, "…"] if len(self.findings) > count else lines


_Key = tuple[LeakageKind, str]
"""The kind and the identity of a shared thing."""


@dataclass
class _Overlap:
    """The held-out and the training instances that share one thing."""

    heldout: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, name: str) -> None:
        """Add a training instance."""
        self.count += 1
        if len(self.train) < NAMED:
            self.train.append(name)


def find_leakage(heldout: InstanceSet, train: InstanceSet) -> Leakage:
    """Find everything that the two sides share. Each side is read once."""
    groups: dict[_Key, _Overlap] = {}
    patches = _Patches()
    order = {name: number for number, name in enumerate(heldout.names)}
    for instance, metadata in zip(heldout, heldout.metadata, strict=True):
        for key in _keys(instance, metadata):
            groups.setdefault(key, _Overlap()).heldout.append(metadata.instance_id)
        patches.add(instance, metadata)
    leaking: set[str] = set()
    for instance, metadata in zip(train, train.metadata, strict=True):
        shared = [groups[key] for key in _keys(instance, metadata) if key in groups]
        for group in shared:
            group.add(metadata.instance_id)
        if patches.look_up(instance, metadata) or shared:
            leaking.add(metadata.instance_id)
    findings = [
        Finding(
            heldout=name,
            reason=kind,
            what=identity if kind is LeakageKind.FILE else "",
            train=group.train,
            count=group.count,
        )
        for (kind, identity), group in groups.items()
        if group.count
        for name in group.heldout
    ]
    findings += patches.findings()
    findings.sort(key=lambda found: (order[found.heldout], found.reason, found.what))
    return Leakage(findings, leaking)


def _keys(instance: Instance, metadata: Metadata) -> set[_Key]:
    """Keys that are equal for instances that share something other than a gold patch."""
    name = instance.instance_id
    if pro := _PRO_ID.fullmatch(name):
        name = pro[1]
    issue = " ".join(instance.problem_statement.lower().split())
    where = "" if len(issue) >= _LONG else metadata.project
    commit = f"{metadata.project}@{metadata.commit}"
    files = {(LeakageKind.FILE, f"{commit} {file}") for file in metadata.files}
    return {
        (LeakageKind.INSTANCE, name.lower()),
        (LeakageKind.ISSUE, digest([where, issue])),
        *files,
    }


class _Patches:
    """An index of the gold patches of held-out instances."""

    def __init__(self) -> None:
        self._whole: dict[str, _Overlap] = {}
        self._names: list[str] = []
        self._enough: list[float] = []
        self._holders: dict[int, list[int]] = defaultdict(list)
        self._near: dict[int, _Overlap] = {}

    def add(self, instance: Instance, metadata: Metadata) -> None:
        """Index the patch of a held-out instance."""
        whole, grams = _fingerprint(instance.patch, metadata.project)
        self._whole.setdefault(whole, _Overlap()).heldout.append(instance.instance_id)
        if len(grams) < ENOUGH:
            return
        number, sampled = len(self._names), 0
        for gram in sorted(grams):
            if len(self._holders[gram]) < _CROWD:
                self._holders[gram].append(number)
                sampled += 1
            if sampled == SAMPLE:
                break
        self._names.append(instance.instance_id)
        # The rest of a patch that is mostly boilerplate is not evidence.
        self._enough.append(OVERLAP * sampled if sampled >= ENOUGH else math.inf)

    def look_up(self, instance: Instance, metadata: Metadata) -> bool:
        """Record the matches of a training patch; whether it has any."""
        whole, grams = _fingerprint(instance.patch, metadata.project)
        if same := self._whole.get(whole):
            same.add(instance.instance_id)
        found: Counter[int] = Counter()
        for gram in grams & self._holders.keys():
            found.update(self._holders[gram])
        near = [n for n, hits in found.items() if hits >= self._enough[n]]
        for number in near:
            if same is None or self._names[number] not in same.heldout:
                group = self._near.setdefault(number, _Overlap([self._names[number]]))
                group.add(instance.instance_id)
        return bool(same or near)

    def findings(self) -> Iterator[Finding]:
        """A finding for each held-out patch that also appears in training."""
        for reason, groups in (
            (LeakageKind.PATCH, self._whole.values()),
            (LeakageKind.SIMILAR_PATCH, self._near.values()),
        ):
            for group in groups:
                for name in group.heldout if group.count else ():
                    yield Finding(name, reason, "", group.train, group.count)


def _fingerprint(patch: str, project: str) -> tuple[str, set[int]]:
    """A digest of the changed lines, and checksums of the n-grams of added code.

    Whitespace and the order of files are ignored. A patch that adds nothing is compared
    by its removed lines. A short patch is compared with its file names and the name of
    its repository (of any owner), since short changes such as a default are common.
    """
    files: set[str] = set()
    lines: list[str] = []
    for file in lines_by_file(patch):
        files |= {path.rpartition("/")[2] for path in file.paths}
        lines += [line[0] + line[1:].strip() for line in file.lines]
    lines = [line for line in lines if len(line) > 1]
    added = [line[1:] for line in lines if line[0] == "+"] or lines
    tokens = _TOKEN.findall(" ".join(added))
    grams = {
        zlib.crc32(" ".join(tokens[n : n + NGRAM]).encode("utf-8", "replace"))
        for n in range(len(tokens) - NGRAM + 1)
    }
    where = [project.rpartition("/")[2], *sorted(files)] if len(grams) < ENOUGH else []
    # A text without changed lines only equals itself.
    return digest([*where, *sorted(lines)] if lines else [patch]), grams


_TEST_REPOSITORIES = frozenset(
    [
        "astropy/astropy",
        "django/django",
        "matplotlib/matplotlib",
        "mwaskom/seaborn",
        "pallets/flask",
        "psf/requests",
        "pydata/xarray",
        "pylint-dev/pylint",
        "pytest-dev/pytest",
        "scikit-learn/scikit-learn",
        "sphinx-doc/sphinx",
        "sympy/sympy",
    ]
)
_CLASSIC_ID = re.compile(r".+__.+-\d+")
_BY_NAME = re.compile(
    r"SWE-bench_(Multilingual|Multimodal|Pro)(?![a-z])(?!.*[:_-](?:dev|train))",
    re.IGNORECASE,
)


def public_tests(rows: Iterable[Metadata]) -> Counter[str]:
    """Number of instances in the public test split of each benchmark."""
    return Counter(name for name in map(public_test, rows) if name)


def public_test(metadata: Metadata) -> str:
    """The benchmark whose public test split has the instance; empty if none."""
    if metadata.instance_id.startswith("instance_"):
        return "SWE-bench Pro"
    if named := _BY_NAME.search(metadata.source):
        return f"SWE-bench {named[1].title()}"
    if metadata.project in _TEST_REPOSITORIES and _CLASSIC_ID.fullmatch(
        metadata.instance_id
    ):
        return "SWE-bench"
    return ""
