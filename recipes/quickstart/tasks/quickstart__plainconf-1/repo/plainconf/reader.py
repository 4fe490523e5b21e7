"""Reading: from text to a dict of sections."""

import re

_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t"}
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"\s*(?:[#;].*)?')
_COMMENT = re.compile(r"\s[#;]")


class ParseError(ValueError):
    """A line that cannot be read; the attribute line is its number."""

    def __init__(self, message, line):
        super().__init__(f"line {line}: {message}")
        self.line = line


def _unescape(match):
    return _ESCAPES.get(match[1], match[1])


def _value(text):
    """Take the quotes or the comment off the text after an equals sign."""
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        return _ESCAPE.sub(_unescape, quoted[1])
    return _COMMENT.split(text)[0].rstrip()


def loads(text):
    """Read text into {section: {key: value}}.

    Keys before the first section are in section "". A key that is
    given twice in a section has its last value.
    """
    sections = {}
    name = ""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            if line[-1] != "]":
                raise ParseError("missing ]", number)
            name = line[1:-1].strip()
            sections[name] = {}
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise ParseError("expected key = value", number)
        items = sections.setdefault(name, {})
        items[key.strip().lower()] = _value(value.strip())
    return sections
