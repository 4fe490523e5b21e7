"""Paragraphs: wrapping, indenting and shortening."""

import re


def _pieces(words, size):
    """Yield the words, with those longer than size cut up."""
    for word in words:
        for start in range(0, len(word), size):
            yield word[start : start + size]


def wrap(text, width=72, hanging=""):
    """Return text as a list of lines of at most width columns.

    The prefix hanging goes before every line but the first.
    Words too long for a line of their own are cut up.
    """
    narrow = width - len(hanging)
    if narrow < 1:
        raise ValueError("width leaves no room for text")
    lines = []
    line = ""
    for word in _pieces(text.split(), width):
        room = narrow if lines else width
        if not line:
            line = word
        elif len(line) + 1 + len(word) <= room:
            line += " " + word
        else:
            lines.append(line)
            line = word
    if line:
        lines.append(line)
    return lines[:1] + [hanging + rest for rest in lines[1:]]


def fill(text, width=72):
    """Wrap each paragraph of text; blank lines separate paragraphs."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join("\n".join(wrap(p, width)) for p in paragraphs)


def indent(text, prefix="    "):
    """Put prefix before each line of text that is not blank."""
    lines = []
    for line in text.splitlines(keepends=True):
        if line.strip():
            line = prefix + line
        lines.append(line)
    return "".join(lines)


def shorten(text, width, mark="..."):
    """Collapse white space, and cut text after a word to fit width."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    room = width - len(mark)
    if room < 0:
        raise ValueError("width leaves no room for the mark")
    cut = text.rfind(" ", 0, room + 1)
    if cut < 0:
        cut = room
    return text[:cut] + mark
