"""Does training see what evaluation asks for?

Training and evaluation may share no instance, no commit of a repository together with a
file that both gold patches touch, and no gold patch. Nothing is compared pair by pair:
what the held-out instances have is put into an index, and each training instance looks
itself up, so time and memory grow with the number of rows.

Also here: which rows belong to the public test split of a benchmark. SWE-bench's are
known by their repositories: its train split comes from 37 others and its dev split from
6 more (Jimenez et al., 2024). SWE-bench Pro's public instances are known by how their
ids begin, the others by the name of their data set.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from swebench_trainer.data.facts import Facts, Rows
from swebench_trainer.patches.lenient_diff import lines_by_file
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Instance

NGRAM = 5
"""Tokens of an n-gram of added code."""
ENOUGH = 12
"""Patches with fewer n-grams than this are compared as a whole and with their files."""
SAMPLE = 32
"""N-grams of a held-out patch that are looked for: those with the smallest checksums."""
OVERLAP = 0.8
"""Share of the sample that makes two gold patches the same."""
NAMED = 20
"""Training instances that one finding names; the others are counted."""

_CROWD = 64
"""Held-out instances that one n-gram is looked for: licence headers are everywhere."""
_TOKEN = re.compile(r"\w+|[^\w\s]")
_PRO_ID = re.compile(r"instance_(.+?)(?:-v[0-9a-z]+)?")
_LONG = 100
"""Characters from which equal issue texts are no accident, whatever the repository."""


@dataclass
class Finding:
    """Something that a held-out instance shares with training instances.

    Attributes:
        heldout: Id of the held-out instance.
        reason: What kind of thing is shared.
        what: Which one.
        train: Ids of the first training instances that share it.
        count: How many share it.
    """

    heldout: str
    reason: str
    what: str
    train: list[str] = field(default_factory=list)
    count: int = 0

    def row(self) -> dict[str, object]:
        """The finding as a row of `leakage.jsonl`."""
        return {**vars(self)}

    def __str__(self) -> str:
        """The finding in a line."""
        others = f" and {self.count - 1} more" if self.count > 1 else ""
        what = f" ({self.what})" if self.what else ""
        return f"{self.heldout} and {self.train[0]}{others}: {self.reason}{what}"


@dataclass
class Leakage:
    """What training and evaluation share.

    Attributes:
        findings: In the order of the held-out instances.
        train: Ids of all training instances that share something.
    """

    findings: list[Finding]
    train: set[str]

    def examples(self, count: int = 5) -> list[str]:
        """The first findings, a line each."""
        lines = [str(finding) for finding in self.findings[:count]]
        return [*lines, "…"] if len(self.findings) > count else lines


_TREE = "the same commit and file"
_Key = tuple[str, str]
"""What kind of thing is shared, in words, and which one."""


@dataclass
class _Group:
    """The held-out instances that have one thing, and the training instances that do."""

    heldout: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, name: str) -> None:
        """Counts a training instance."""
        self.count += 1
        if len(self.train) < NAMED:
            self.train.append(name)


def find_leakage(heldout: Rows, train: Rows) -> Leakage:
    """Finds what the two sides share; each is read once."""
    groups: dict[_Key, _Group] = {}
    patches = _Patches()
    order = {name: number for number, name in enumerate(heldout.names)}
    for instance, facts in zip(heldout, heldout.facts, strict=True):
        for key in _things(instance, facts):
            groups.setdefault(key, _Group()).heldout.append(facts.instance_id)
        patches.add(instance, facts)
    leaking: set[str] = set()
    for instance, facts in zip(train, train.facts, strict=True):
        shared = [groups[key] for key in _things(instance, facts) if key in groups]
        for group in shared:
            group.add(facts.instance_id)
        if patches.look_up(instance, facts) or shared:
            leaking.add(facts.instance_id)
    findings = [
        Finding(
            name, reason, which if reason == _TREE else "", group.train, group.count
        )
        for (reason, which), group in groups.items()
        if group.count
        for name in group.heldout
    ]
    findings += patches.findings()
    findings.sort(key=lambda found: (order[found.heldout], found.reason, found.what))
    return Leakage(findings, leaking)


def _things(instance: Instance, facts: Facts) -> set[_Key]:
    """What an instance may share, beside its gold patch, as equal keys."""
    name = instance.instance_id
    if pro := _PRO_ID.fullmatch(name):
        name = pro[1]
    issue = " ".join(instance.problem_statement.lower().split())
    where = "" if len(issue) >= _LONG else facts.project
    files = {(_TREE, f"{facts.project}@{facts.commit} {file}") for file in facts.files}
    return {
        ("the same instance", name.lower()),
        ("the same issue text", digest([where, issue])),
        *files,
    }


class _Patches:
    """An index of the gold patches of held-out instances."""

    def __init__(self) -> None:
        self._whole: dict[str, _Group] = {}
        self._names: list[str] = []
        self._enough: list[float] = []
        self._holders: dict[int, list[int]] = defaultdict(list)
        self._near: dict[int, _Group] = {}

    def add(self, instance: Instance, facts: Facts) -> None:
        """Remembers the patch of a held-out instance."""
        whole, grams = _fingerprint(instance.patch, facts.project)
        self._whole.setdefault(whole, _Group()).heldout.append(instance.instance_id)
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
        # What is left of a patch that is nearly all boilerplate says nothing.
        self._enough.append(OVERLAP * sampled if sampled >= ENOUGH else math.inf)

    def look_up(self, instance: Instance, facts: Facts) -> bool:
        """Counts what the patch of a training instance is the same as."""
        whole, grams = _fingerprint(instance.patch, facts.project)
        if same := self._whole.get(whole):
            same.add(instance.instance_id)
        found: Counter[int] = Counter()
        for gram in grams & self._holders.keys():
            found.update(self._holders[gram])
        near = [n for n, hits in found.items() if hits >= self._enough[n]]
        for number in near:
            if same is None or self._names[number] not in same.heldout:
                group = self._near.setdefault(number, _Group([self._names[number]]))
                group.add(instance.instance_id)
        return bool(same or near)

    def findings(self) -> Iterator[Finding]:
        """A finding for each held-out patch that training has too."""
        for reason, groups in (
            ("the same gold patch", self._whole.values()),
            ("nearly the same gold patch", self._near.values()),
        ):
            for group in groups:
                for name in group.heldout if group.count else ():
                    yield Finding(name, reason, "", group.train, group.count)


def _fingerprint(patch: str, project: str) -> tuple[str, set[int]]:
    """A digest of the changed lines, and checksums of the n-grams of what they add.

    Neither spaces count nor the order of files. A patch that adds nothing is known by
    what it removes, a short one by the names of its files too: a changed default is no
    secret, unless in such a file of a repository of that name, whoever's copy it is.
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
    # What is no diff changes nothing that could be compared, so it is itself.
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


def public_tests(rows: Iterable[Facts]) -> Counter[str]:
    """How many of the instances belong to the public test split of each benchmark."""
    return Counter(name for name in map(public_test, rows) if name)


def public_test(facts: Facts) -> str:
    """The benchmark whose public test split an instance belongs to; empty if none."""
    if facts.instance_id.startswith("instance_"):
        return "SWE-bench Pro"
    if named := _BY_NAME.search(facts.source):
        return f"SWE-bench {named[1].title()}"
    if facts.project in _TEST_REPOSITORIES and _CLASSIC_ID.fullmatch(facts.instance_id):
        return "SWE-bench"
    return ""
