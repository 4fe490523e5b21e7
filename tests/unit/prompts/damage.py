"""Patches with the damage that models and transports do, on synthetic trees.

A tree has the old lines of the patch's hunks at their line numbers, other lines
that occur nowhere else between them, and decoys: files of the same name elsewhere,
with all but one of the lines. `variants` is seeded: the same rows give the same
answers.
"""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swebench_trainer.patches.files import File, Text
from swebench_trainer.patches.strict_diff import make_patch, read_patch

Files = dict[str, bytes]
HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)


class Memory:
    """A tree in memory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def read(self, path: str) -> bytes | None:
        return self._files.get(path)

    def mode(self, path: str) -> str:
        if path in self._files:
            return "100644"
        inside = any(name.startswith(f"{path}/") for name in self._files)
        return "040000" if inside else ""

    def paths(self) -> Sequence[str]:
        return sorted(self._files)


@dataclass(frozen=True)
class Case:
    """An answer and its expected result.

    Attributes:
        expected: The tree that it describes; `None` if it is ambiguous.
        finish: See `Sample.finish`.
    """

    kind: str
    base: Files
    answer: str
    expected: Files | None
    finish: str = "stop"


@dataclass(frozen=True)
class Gold:
    """A patch, the tree before it and the tree after it."""

    patch: str
    base: Files
    after: Files


def synthesized(patch: str) -> Files:
    """A synthetic tree to which `patch` applies.

    Raises:
        ValueError: The patch changes more than text.
    """
    files: Files = {}
    for change in read_patch(patch):
        if change.special:
            raise ValueError(change.special)
        if change.old is None:
            continue
        lines: list[str] = []

        def filled(upto: int, lines: list[str] = lines, path: str = change.old) -> None:
            lines += [f"# {path}, line {n}" for n in range(len(lines), upto)]

        newline = True
        ends_here = change.new is None
        for hunk in change.hunks:
            filled(hunk.start)
            lines += hunk.old.lines
            newline = hunk.old.newline
            # git writes three lines of context unless the file ends before.
            ends_here |= hunk.old.lines[-3:] != hunk.new.lines[-3:]
        if newline and not ends_here:
            filled(len(lines) + 9)
        content = str(Text(tuple(lines), newline))
        files[change.old] = content.encode("utf-8", "surrogateescape")
    for path in list(files):
        name = path.rpartition("/")[2]
        lines_of = files[path].splitlines(keepends=True)
        gone = len(lines_of) // 2
        hunk = next(c for c in read_patch(patch) if c.old == path).hunks
        if hunk:
            gone = hunk[0].start + len(hunk[0].old.lines) // 2
        files[f"decoys/{name}"] = b"".join(lines_of[:gone] + lines_of[gone + 1 :])
        files[f"decoys/more/{name}"] = b"# nothing of it\n"
    return files


def applied(base: Mapping[str, bytes], patch: str) -> Files | None:
    """The tree after a strict `git apply`; `None` if git refuses."""
    with tempfile.TemporaryDirectory() as folder:
        for path, content in base.items():
            place = Path(folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        done = subprocess.run(
            ["git", f"--git-dir={folder}/.git", "apply", "-"],
            cwd=folder,
            input=patch.encode("utf-8", "surrogateescape"),
            capture_output=True,
        )
        if done.returncode:
            return None
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def gold_of(patch: str) -> Gold | None:
    """The patch on its tree; `None` if it changes more than text."""
    try:
        base = synthesized(patch)
    except ValueError:
        return None
    after = applied(base, patch)
    return Gold(patch, base, after) if after else None


def between(base: Files, after: Files) -> Gold:
    def files(tree: Files) -> dict[str, File]:
        changed = {p: c for p, c in tree.items() if base.get(p) != after.get(p)}
        return {
            path: File(Text.of(content.decode("utf-8", "surrogateescape")))
            for path, content in changed.items()
        }

    return Gold(make_patch(files(base), files(after)), base, after)


# --- Parts of a patch ---


def sections(patch: str) -> list[str]:
    return [s for s in re.split(r"^(?=diff --git )", patch, flags=re.MULTILINE) if s]


def parts(section: str) -> list[str]:
    """The header, then each hunk."""
    return re.split(r"^(?=@@ -)", section, flags=re.MULTILINE)


def headers(patch: str, write: Callable[..., str]) -> str:
    """The patch with each hunk header rewritten from its four numbers."""

    def rewritten(found: re.Match[str]) -> str:
        old, olds, new, news = (int(n or 1) for n in found.groups())
        return write(old, olds, new, news)

    return HUNK.sub(rewritten, patch)


# --- Kinds of damage: each returns a case, or None if it does not fit the patch ---

Damage = Callable[[random.Random, Gold], "Case | None"]
DAMAGES: dict[str, Damage] = {}
AMBIGUOUS = (
    "cut",
    "cut, finish unknown",
    "two places",
    "two files",
    "tabs in a new file",
    "a list after the last hunk",
    "dots for a hunk's header",
    "a move without its lines",
)
"""Damage that makes a patch ambiguous: every result would be a guess."""


def damage(kind: str) -> Callable[[Damage], Damage]:
    def register(function: Damage) -> Damage:
        DAMAGES[kind] = function
        return function

    return register


def case(gold: Gold, answer: str, **fields: object) -> Case:
    return Case("", gold.base, answer, gold.after, **fields)  # type: ignore[arg-type]  # of any type


@damage("nothing")
def _(rng: random.Random, gold: Gold) -> Case | None:
    return case(gold, gold.patch)


@damage("fences and prose")
def _(rng: random.Random, gold: Gold) -> Case | None:
    fence = rng.choice(["```diff", "```", "```patch", "~~~", "````"])
    before = rng.choice(
        ["Here is the fix:\n\n", "", "- It was wrong.\n- Now it is not.\n"]
    )
    after = rng.choice(["\nThis fixes it.\n", "", "\n- tests pass\n+ more to come\n"])
    return case(
        gold, f"{before}{fence}\n{gold.patch}{fence.rstrip('adfhitpc')}\n{after}"
    )


@damage("only prose")
def _(rng: random.Random, gold: Gold) -> Case | None:
    return case(gold, f"The bug is in one place.\n\n{gold.patch}\nThat is all.\n")


@damage("tags")
def _(rng: random.Random, gold: Gold) -> Case | None:
    tag = rng.choice(["patch", "diff", "answer", "solution"])
    inner = rng.choice(["{}", "```diff\n{}```\n", "<patch>\n{}</patch>\n"])
    if tag == "patch" and "patch" in inner:
        inner = "{}"
    return case(gold, f"Sure.\n<{tag}>\n{inner.format(gold.patch)}</{tag}>\nDone.\n")


@damage("a draft in thoughts")
def _(rng: random.Random, gold: Gold) -> Case | None:
    draft = re.sub(r"^\+(?!\+\+ ).*$", "+draft", gold.patch, flags=re.MULTILINE)
    begin = rng.choice(["<think>\n", ""])
    return case(gold, f"{begin}Perhaps\n```\n{draft}```\nNo.\n</think>\n\n{gold.patch}")


@damage("a patch per file")
def _(rng: random.Random, gold: Gold) -> Case | None:
    found = sections(gold.patch)
    if len(found) < 2:
        return None
    return case(gold, "".join(f"Then:\n```diff\n{s}```\n" for s in found))


@damage("a patch per hunk")
def _(rng: random.Random, gold: Gold) -> Case | None:
    texts = []
    for section in sections(gold.patch):
        header, *hunks = parts(section)
        texts += [header + hunk for hunk in hunks]
    if len(texts) == len(sections(gold.patch)):
        return None
    return case(gold, "".join(f"Then:\n```diff\n{text}```\n" for text in texts))


@damage("the patch twice")
def _(rng: random.Random, gold: Gold) -> Case | None:
    return case(gold, f"Draft:\n\n{gold.patch}\nFinal:\n```\n{gold.patch}```\n")


@damage("cut")
def _(rng: random.Random, gold: Gold) -> Case | None:
    hunk = rng.choice(list(HUNK.finditer(gold.patch)))
    body = gold.patch.find("\n", hunk.end()) + 1
    next_one = re.compile(r"^(?:@@ -|diff --git )", re.MULTILINE)
    following = next_one.search(gold.patch, body)
    end = following.start() if following else len(gold.patch)
    # Not after the last line: nothing shows that a complete hunk is not the last one.
    answer = gold.patch[: rng.randrange(body, end - 1)]
    return Case("", gold.base, answer, None, "length")


@damage("cut, finish unknown")
def _(rng: random.Random, gold: Gold) -> Case | None:
    found = DAMAGES["cut"](rng, gold)
    assert found
    # If a line is cut, the counts may still be right, which hides the cut.
    lines = found.answer.rpartition("\n")[0]
    return replace(found, answer=lines, finish="")


@damage("counts")
def _(rng: random.Random, gold: Gold) -> Case | None:
    def wrong(old: int, olds: int, new: int, news: int) -> str:
        return (
            f"@@ -{old},{max(1, olds + rng.randint(-4, 4)) if olds else 0}"
            f" +{new},{max(1, news + rng.randint(-4, 4)) if news else 0} @@"
        )

    return case(gold, headers(gold.patch, wrong))


@damage("counts that end at an empty line")
def _(rng: random.Random, gold: Gold) -> Case | None:
    """Empty context lines lost their space, and the counts of a hunk end at one of them."""

    def cut_short(hunk: str) -> str:
        header, *lines = hunk.rstrip("\n").split("\n")
        lines = [line if line != " " else "" for line in lines]
        changed = [n for n, line in enumerate(lines) if line[:1] in ("+", "-")]
        ends = [
            n
            for n, line in enumerate(lines)
            if not line and changed[0] < n < changed[-1]
        ]
        if not ends:
            return hunk
        kept = lines[: rng.choice(ends)]
        old = sum(line[:1] in ("", " ", "-") for line in kept)
        new = sum(line[:1] in ("", " ", "+") for line in kept)
        found = HUNK.match(header)
        assert found
        header = f"@@ -{found[1]},{old} +{found[3]},{new} @@"
        return "\n".join([header, *lines, ""])

    texts = []
    for section in sections(gold.patch):
        header, *hunks = parts(section)
        texts += [header, *map(cut_short, hunks)]
    return case(gold, "".join(texts)) if "".join(texts) != gold.patch else None


@damage("a list after the last hunk")
def _(rng: random.Random, gold: Gold) -> Case | None:
    """The counts do not show where the hunk ends."""
    text = headers(
        gold.patch,
        lambda old, olds, new, news: f"@@ -{old},{olds + 2} +{new},{news + 3} @@",
    )
    behind = rng.choice(["", "\n"])
    answer = f"{text}{behind}+ It checks the value.\n+ It says why.\n"
    return Case("", gold.base, answer, None)


@damage("dots for a hunk's header")
def _(rng: random.Random, gold: Gold) -> Case | None:
    found = [parts(section) for section in sections(gold.patch)]
    long = [section for section in found if len(section) > 2]
    if not long:
        return None
    section = rng.choice(long)
    number = rng.randrange(2, len(section))
    section[number] = "...\n" + section[number].partition("\n")[2]
    return Case("", gold.base, "".join(map("".join, found)), None)


@damage("a move without its lines")
def _(rng: random.Random, gold: Gold) -> Case | None:
    section = sections(gold.patch)[0]
    change = read_patch(section)[0]
    if not change.old or change.old != change.new or not change.hunks:
        return None
    folder, _, name = change.old.rpartition("/")
    moved = rng.choice([f"{folder}/new_{name}".lstrip("/"), f"new/{name}"])
    text = re.sub(r"^\+\+\+ .*$", f"+++ b/{moved}", section, flags=re.MULTILINE)
    if rng.random() < 0.5:
        text = re.sub(r"^(diff --git|index) .*\n", "", text, flags=re.MULTILINE)
    return Case("", gold.base, text, None)


@damage("line numbers")
def _(rng: random.Random, gold: Gold) -> Case | None:
    def moved(old: int, olds: int, new: int, news: int) -> str:
        by = rng.randint(-min(30, max(0, min(old, new) - 1)), 60) if old and new else 0
        return f"@@ -{old + by},{olds} +{new + by},{news} @@"

    return case(gold, headers(gold.patch, moved))


@damage("counts and line numbers")
def _(rng: random.Random, gold: Gold) -> Case | None:
    moved = DAMAGES["line numbers"](rng, gold)
    assert moved
    return DAMAGES["counts"](rng, replace(gold, patch=moved.answer))


@damage("every hunk at line 1")
def _(rng: random.Random, gold: Gold) -> Case | None:
    return case(
        gold,
        headers(
            gold.patch,
            lambda old, olds, new, news: (
                f"@@ -{min(old, 1)},{olds} +{min(new, 1)},{news} @@"
            ),
        ),
    )


@damage("no line numbers")
def _(rng: random.Random, gold: Gold) -> Case | None:
    header = rng.choice(["@@", "@@ ... @@", "@@ -,+ @@"])
    return case(gold, headers(gold.patch, lambda *numbers: header))


@damage("no context")
def _(rng: random.Random, gold: Gold) -> Case | None:
    """`@@ -5 +5 @@`: single-line hunks, as `diff -U0` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        text = ""
        for section in sections(gold.patch):
            change = read_patch(section)[0]
            if not (change.old and change.new == change.old):
                return None
            for name, tree in (("old", gold.base), ("new", gold.after)):
                Path(folder, name).write_bytes(tree[change.old])
            done = subprocess.run(
                ["git", "diff", "--no-index", "-U0", "old", "new"],
                cwd=folder, capture_output=True, text=True,
            )  # fmt: skip
            hunks = parts(done.stdout)[1:]
            text += parts(section)[0] + "".join(hunks)
    if re.search(r"^@@ -\d+,0 ", text, re.MULTILINE):
        return None  # only the line number shows the place
    return case(gold, text)


@damage("no prefixes")
def _(rng: random.Random, gold: Gold) -> Case | None:
    text = re.sub(r"^(---|\+\+\+) [ab]/", r"\1 ", gold.patch, flags=re.MULTILINE)
    if rng.random() < 0.5:
        text = re.sub(r"^diff --git .*\n(index .*\n)?", "", text, flags=re.MULTILINE)
        text = re.sub(
            r"^(new|deleted) file mode .*\n(index .*\n)?", "", text, flags=re.M
        )
    else:
        text = re.sub(r"^diff --git a/(.*) b/", r"diff --git \1 ", text, flags=re.M)
    return case(gold, text)


@damage("one prefix")
def _(rng: random.Random, gold: Gold) -> Case | None:
    if "new file mode" in gold.patch:
        return None
    side = rng.choice([r"^--- a/", r"^\+\+\+ b/"])
    return case(gold, re.sub(side, lambda m: m[0][:4], gold.patch, flags=re.MULTILINE))


@damage("other prefixes")
def _(rng: random.Random, gold: Gold) -> Case | None:
    if "new file mode" in gold.patch or "rename from" in gold.patch:
        return None
    one, other = rng.choice(
        [("old/lib/", "new/lib/"), ("a/./", "b/./"), ("x/a/", "x/b/")]
    )
    if one == "old/lib/":
        one, other = "testbed/", "testbed/"
    text = re.sub(r"^--- a/", f"--- {one}", gold.patch, flags=re.MULTILINE)
    text = re.sub(r"^\+\+\+ b/", f"+++ {other}", text, flags=re.MULTILINE)
    return case(gold, re.sub(r"^diff --git .*\n", "", text, flags=re.MULTILINE))


@damage("wrong folder")
def _(rng: random.Random, gold: Gold) -> Case | None:
    if "new file mode" in gold.patch or "rename from" in gold.patch:
        return None
    first = read_patch(sections(gold.patch)[0])[0].old
    assert first
    name = first.rpartition("/")[2]
    wrong = rng.choice(
        [f"src/{first}", f"lib/core/{name}", f"{first.partition('/')[2]}"]
    )
    if not wrong or wrong == first or wrong in gold.base:
        return None
    text = re.sub(rf"(?<= [ab]/){re.escape(first)}(?=\s)", wrong, gold.patch)
    return case(gold, text)


@damage("no headers but diff --git")
def _(rng: random.Random, gold: Gold) -> Case | None:
    text = re.sub(r"^(---|\+\+\+) .*\n", "", gold.patch, flags=re.MULTILINE)
    return case(gold, text) if HUNK.search(text) else None


@damage("/dev/null")
def _(rng: random.Random, gold: Gold) -> Case | None:
    """New and deleted files with wrong headers."""
    if "new file mode" not in gold.patch:
        # Turn the first file of the patch into a new or a deleted one.
        path = read_patch(sections(gold.patch)[0])[0].old
        if not path or path not in gold.after:
            return None
        tree = {p: c for p, c in gold.base.items() if p != path}
        gold = (
            between(tree, gold.after)
            if rng.random() < 0.5
            else between(gold.base, tree)
        )
    elif rng.random() < 0.5:
        gold = between(gold.after, gold.base)
    new = "new file mode" in gold.patch
    ways: list[Callable[[str], str]] = [
        lambda t: t.replace("--- /dev/null", "--- a/dev/null").replace("+++ /dev/null", "+++ b/dev/null"),
        lambda t: re.sub(r"^diff --git a/(.*) b/.*\nnew file mode .*\nindex .*\n--- /dev/null", r"diff --git a/\1 b/\1\nnew file mode 100644\n--- a/\1", t, flags=re.M),
    ]  # fmt: skip
    if new:
        ways.append(
            lambda t: re.sub(r"^diff --git a/(.*) b/.*\nnew file mode .*\nindex .*\n--- /dev/null", r"--- a/\1", t, flags=re.M)
        )  # fmt: skip
    else:
        ways[1] = lambda t: re.sub(
            r"^diff --git a/(.*) b/.*\n(deleted file mode .*\nindex .*\n--- .*\n)\+\+\+ /dev/null",
            r"diff --git a/\1 b/\1\n\2+++ b/\1",
            t,
            flags=re.MULTILINE,
        )
    text = rng.choice(ways)(gold.patch)
    return case(gold, text) if text != gold.patch else None


@damage("CRLF answer")
def _(rng: random.Random, gold: Gold) -> Case | None:
    if "new file mode" in gold.patch:
        return None  # a new file may have such line endings
    return case(gold, gold.patch.replace("\n", "\r\n"))


def _with_crlf(files: Files) -> Files:
    return {path: c.replace(b"\n", b"\r\n") for path, c in files.items()}


@damage("LF answer for CRLF files")
def _(rng: random.Random, gold: Gold) -> Case | None:
    if "new file mode" in gold.patch:
        return None
    return replace(
        case(gold, gold.patch),
        base=_with_crlf(gold.base),
        expected=_with_crlf(gold.after),
    )


@damage("no final newline")
def _(rng: random.Random, gold: Gold) -> Case | None:
    return case(gold, gold.patch.rstrip("\n"))


@damage("no mark for the end of the file")
def _(rng: random.Random, gold: Gold) -> Case | None:
    """The file ends in the context of the last hunk, without a newline."""
    change = read_patch(sections(gold.patch)[-1])[0]
    if not change.old or change.new != change.old or not change.hunks:
        return None
    hunk = change.hunks[-1]
    if hunk.old.lines[-1:] != hunk.new.lines[-1:] or not hunk.old.lines[-1]:
        return None
    lines = gold.base[change.old].split(b"\n")
    more = len(gold.after[change.old].split(b"\n")) - len(lines)
    base, after = dict(gold.base), dict(gold.after)
    base[change.old] = b"\n".join(lines[: hunk.end])
    after[change.old] = b"\n".join(
        gold.after[change.old].split(b"\n")[: hunk.end + more]
    )
    marked = between(base, after)
    text = marked.patch.replace("\\ No newline at end of file\n", "")
    return case(marked, text) if text != marked.patch else None


def _with_tabs(files: Files) -> Files:
    def tabbed(line: bytes) -> bytes:
        bare = line.lstrip(b" ")
        tabs, rest = divmod(len(line) - len(bare), 4)
        return b"\t" * tabs + b" " * rest + bare

    return {p: b"\n".join(map(tabbed, c.split(b"\n"))) for p, c in files.items()}


@damage("tabs became spaces")
def _(rng: random.Random, gold: Gold) -> Case | None:
    base, after = _with_tabs(gold.base), _with_tabs(gold.after)
    if base == gold.base or "new file mode" in gold.patch:
        return None
    tabbed = between(base, after)
    return case(tabbed, tabbed.patch.replace("\t", " " * rng.choice([4, 8])))


@damage("tabs in a new file")
def _(rng: random.Random, gold: Gold) -> Case | None:
    """If tabs became spaces in one file, the indentation of a new file is ambiguous."""
    path = read_patch(sections(gold.patch)[0])[0].old
    found = DAMAGES["tabs became spaces"](rng, gold)
    if not path or not found:
        return None
    new = "diff --git a/n.py b/n.py\nnew file mode 100644\n--- /dev/null\n+++ b/n.py\n"
    text = f"{found.answer}{new}@@ -0,0 +1,2 @@\n+if x:\n+    y()\n"
    return replace(found, answer=text, expected=None)


@damage("trailing spaces stripped")
def _(rng: random.Random, gold: Gold) -> Case | None:
    if any(re.search(rb"[ \t]$", c, re.MULTILINE) for c in gold.after.values()):
        return None
    text = "\n".join(line.rstrip() for line in gold.patch.split("\n"))
    return case(gold, text) if text != gold.patch else None


@damage("hunks out of order")
def _(rng: random.Random, gold: Gold) -> Case | None:
    texts = []
    for section in sections(gold.patch):
        header, *hunks = parts(section)
        rng.shuffle(hunks)
        texts.append(header + "".join(hunks))
    text = "".join(texts)
    return case(gold, text) if text != gold.patch else None


@damage("two places")
def _(rng: random.Random, gold: Gold) -> Case | None:
    """The lines occur twice in the file, and neither place is the stated one."""
    change = read_patch(sections(gold.patch)[0])[0]
    if not change.old or not change.new or not change.hunks:
        return None
    base = dict(gold.base)
    twice = "\n".join(change.hunks[0].old.lines).encode("utf-8", "surrogateescape")
    end = b"" if base[change.old].endswith(b"\n") else b"\n"
    base[change.old] += end + b"# between\n" + twice + b"\n"
    text = headers(gold.patch, lambda *numbers: "@@")
    return Case("", base, text, None)


@damage("two files")
def _(rng: random.Random, gold: Gold) -> Case | None:
    found = DAMAGES["wrong folder"](rng, gold)
    if not found:
        return None
    first = read_patch(sections(gold.patch)[0])[0].old
    assert first
    twin = f"twin/{first.rpartition('/')[2]}"
    return replace(found, base=found.base | {twin: gold.base[first]}, expected=None)


@damage("several at once")
def _(rng: random.Random, gold: Gold) -> Case | None:
    kinds = ["counts and line numbers", "no prefixes", "wrong folder", "counts"]
    text = gold.patch
    for kind in rng.sample(kinds[:3], 2):
        found = (
            DAMAGES[kind](rng, replace(gold, patch=text))
            if kind != "wrong folder"
            else DAMAGES[kind](rng, gold)
            if text == gold.patch
            else None
        )
        text = found.answer if found else text
    return (
        case(gold, f"Fix:\n```diff\n{text.rstrip()}\n```")
        if text != gold.patch
        else None
    )


def variants(patches: Sequence[str], per_kind: int, seed: int = 0) -> Iterator[Case]:
    """Up to `per_kind` cases of each kind, each from another patch of `patches`."""
    golds: dict[int, Gold | None] = {}
    for kind, function in DAMAGES.items():
        rng = random.Random(f"{seed}/{kind}")
        found = 0
        for number in rng.sample(range(len(patches)), len(patches)):
            if found == per_kind:
                break
            if number not in golds:
                golds[number] = gold_of(patches[number])
            gold = golds[number]
            damaged = function(rng, gold) if gold else None
            if damaged:
                found += 1
                yield replace(damaged, kind=kind)
