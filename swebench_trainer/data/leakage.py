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

import itertools
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
    groups: dict[_Key, _Overlap] = defaultdict(_Overlap)
    grams_index = _GramIndex()
    for instance, metadata in zip(heldout, heldout.metadata, strict=True):
        whole, grams = _fingerprint(instance.patch, metadata.project)
        for key in (whole, *_keys(instance, metadata)):
            groups[key].heldout.append(metadata.instance_id)
        grams_index.add(metadata.instance_id, grams)
    leaking: set[str] = set()
    for instance, metadata in zip(train, train.metadata, strict=True):
        whole, grams = _fingerprint(instance.patch, metadata.project)
        keys = {key for key in (whole, *_keys(instance, metadata)) if key in groups}
        equal = groups[whole].heldout if whole in keys else ()
        for name in set(grams_index.similar(grams)).difference(equal):
            keys.add(near := (LeakageKind.SIMILAR_PATCH, name))
            groups[near].heldout = [name]
        for key in keys:
            groups[key].add(metadata.instance_id)
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
    order = {name: number for number, name in enumerate(heldout.names)}
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


class _GramIndex:
    """An index of the n-grams of held-out patches."""

    def __init__(self) -> None:
        self._enough: dict[str, float] = {}
        self._holders: dict[int, list[str]] = defaultdict(list)

    def add(self, name: str, grams: set[int]) -> None:
        """Index a patch. The rest of one that is mostly boilerplate is not evidence."""
        if len(grams) < ENOUGH:
            return
        rare = (gram for gram in sorted(grams) if len(self._holders[gram]) < _CROWD)
        sampled = list(itertools.islice(rare, SAMPLE))
        if len(sampled) >= ENOUGH:
            self._enough[name] = OVERLAP * len(sampled)
        for gram in sampled:
            self._holders[gram].append(name)

    def similar(self, grams: set[int]) -> Iterator[str]:
        """Names of the indexed patches that share enough n-grams."""
        found: Counter[str] = Counter()
        for gram in grams & self._holders.keys():
            found.update(self._holders[gram])
        return (n for n, hits in found.items() if hits >= self._enough.get(n, math.inf))


def _fingerprint(patch: str, project: str) -> tuple[_Key, set[int]]:
    """A key of the changed lines, and checksums of the n-grams of added code.

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
    whole = digest([*where, *sorted(lines)] if lines else [patch])
    return (LeakageKind.PATCH, whole), grams


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
    classic = _CLASSIC_ID.fullmatch(metadata.instance_id)
    return "SWE-bench" if classic and metadata.project in _TEST_REPOSITORIES else ""
