"""The markup that separates thoughts from the answer, in one table.

Open models mark their thoughts in many ways: tags, special tokens, channels, fixed
sentences. `FORMS` has a regular expression for each; `marks` finds their places in a
text. The sources are the models' chat templates and the reasoning parsers of vLLM and
SGLang.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from swebench_trainer.answers.layout import Layout


class Kind(Enum):
    """What a mark does."""

    OPEN = auto()
    """A thought begins."""
    CLOSE = auto()
    """A thought ends; it may have begun in the prompt."""
    ANSWER = auto()
    """The answer begins, which ends a thought."""
    TURN = auto()
    """The next message begins: the answer, if a thought came before."""
    END = auto()
    """A message ends: the thought if one is open, otherwise the answer."""


@dataclass(frozen=True)
class Form:
    """A markup.

    Attributes:
        pattern: Regular expression, ignoring case, `^` matching at each line.
        anywhere: Whether it counts in the middle of a line too.
        certain: Whether an unclosed opening can be nothing else.
    """

    kind: Kind
    pattern: str
    anywhere: bool = True
    certain: bool = True


_NAME = (
    r"(?:think(?!_o(?:n|ff)\b)|thought|reason(?:ing)?\b|analysis\b|scratch_?pad\b"
    r"|reflection\b|rationale\b|deliberation\b|chain[_-]of[_-]thought|cot\b"
    r"|(?:inner|internal)[_-]?(?:monologue|thought)|monologue\b|ant_?thinking)\w*"
)
_PREFIX = r"(?!no_)(?:[\w.-]+[:|]|\w+_)?"
_SHORT = r"(?:think(?:ing)?|thoughts?)"
_WORD = r"(?:think(?:ing)?|thoughts?|reasoning|cot|inner)"
_SEP = "[_:\u2581 -]"
_L, _R = "<[|\uff5c]", "[|\uff5c]>"
_MESSAGE = r"(?:[^<\n]*<\|constrain\|>)?[^<\n]*<\|message\|>"
_ASSISTANT = r"(?:<\|start\|>[ ]*assistant[ ]*)?"

FORMS = (
    # <think>, <thinking>, <thought>, <seed:think>, <mm:think>, <longcat_think>, ...
    Form(Kind.OPEN, rf"<[ ]*{_PREFIX}{_NAME}(?:\s[^<>\n]*)?(?<!/)>", anywhere=False),
    Form(Kind.CLOSE, rf"<[ ]*/[ ]*{_PREFIX}{_NAME}[ ]*>"),
    # Mistral, Kimi-VL, openPangu, MedGemma
    Form(Kind.OPEN, rf"\[{_SHORT}\](?!\()", certain=False),
    Form(Kind.CLOSE, rf"\[[ ]*/[ ]*(?:{_SHORT}|reasoning)[ ]*\]"),
    Form(Kind.OPEN, rf"[\u25c1\u27e8\u3008\u3010]{_SHORT}[\u25b7\u27e9\u3009\u3011]"),
    Form(Kind.CLOSE, rf"[\u25c1\u27e8\u3008\u3010]/{_SHORT}[\u25b7\u27e9\u3009\u3011]"),
    Form(Kind.OPEN, r"\[unused16\]|<unused94>(?:thought\n)?"),
    Form(Kind.CLOSE, r"\[unused17\]|<unused95>"),
    # <|begin_of_thought|>, <|START_THINKING|>, <|think:start|>, <|inner_prefix|>, ...
    Form(
        Kind.OPEN,
        rf"{_L}(?:plamo:)?(?:(?:begin|start)(?:{_SEP}of)?{_SEP})?{_WORD}"
        rf"(?:{_SEP}(?:start|begin|prefix))?(?::plamo)?{_R}",
    ),
    Form(
        Kind.CLOSE,
        rf"{_L}(?:plamo:)?(?:/|(?:end|stop)(?:{_SEP}of)?{_SEP}){_WORD}(?::plamo)?{_R}"
        rf"|{_L}{_WORD}{_SEP}(?:end|stop|suffix){_R}",
    ),
    Form(
        Kind.ANSWER,
        rf"{_L}(?:(?:begin|start)(?:{_SEP}of)?{_SEP})?"
        rf"(?:solution|response|answer|content){_R}|<\|START_TEXT\|>",
    ),
    Form(
        Kind.END,
        rf"{_L}(?:/|(?:end|stop)(?:{_SEP}of)?{_SEP})"
        rf"(?:solution|response|text|answer|content|message|msg){_R}",
    ),
    # Harmony and its relatives, with their special tokens
    Form(
        Kind.ANSWER,
        rf"{_ASSISTANT}<\|channel\|>[ ]*(?:final|answer|response)\b{_MESSAGE}",
    ),
    Form(
        Kind.OPEN,
        rf"{_ASSISTANT}<\|channel\|>(?![ ]*(?:final|answer|response)\b){_MESSAGE}",
    ),
    Form(Kind.OPEN, rf"{_ASSISTANT}to=self[ ]*<\|message\|>"),
    Form(Kind.ANSWER, rf"{_ASSISTANT}to=user[ ]*<\|message\|>"),
    Form(Kind.TURN, r"<\|start\|>[ ]*assistant[ ]*<\|message\|>"),
    Form(Kind.END, r"<\|(?:end|return|call|eom|end_message)\|>"),
    Form(Kind.OPEN, r"<\|channel>[ ]*(?!(?:final|answer|response)\b)\w*"),
    Form(Kind.ANSWER, r"<\|channel>[ ]*(?:final|answer|response)\b"),
    Form(Kind.CLOSE, r"<channel\|>"),
    # Inkling, Kimi K3, and turns as thoughts (s1, HyperCLOVA X)
    Form(Kind.OPEN, r"<\|content_thinking\|>"),
    Form(Kind.ANSWER, r"<\|content_text\|>"),
    Form(Kind.OPEN, r"<\|open\|>\s*think\s*<\|sep\|>"),
    Form(Kind.CLOSE, r"<\|close\|>\s*think\s*<\|sep\|>"),
    Form(Kind.ANSWER, r"<\|open\|>\s*response\s*<\|sep\|>"),
    Form(Kind.END, r"<\|close\|>\s*(?:response|message)\s*<\|sep\|>"),
    Form(Kind.OPEN, r"<\|im_start\|>[ ]*think\w*|\A\s*/think\n"),
    Form(Kind.ANSWER, r"<\|im_start\|>[ ]*answer\b"),
    Form(Kind.TURN, r"<\|im_start\|>[ ]*assistant\b"),
    # Harmony decoded without special tokens
    Form(Kind.OPEN, r"\A\s*(?-i:analysis(?=[A-Z<`'\"]|[ ]*\n))", certain=False),
    Form(Kind.OPEN, r"assistant(?:analysis|commentary)(?=\W|[A-Z]|to=)", certain=False),
    Form(Kind.ANSWER, r"assistantfinal"),
    Form(Kind.ANSWER, r"(?-i:^[ ]*assistant\n+final$)"),
    Form(Kind.ANSWER, r"\A(?-i:final)(?=--- |diff --git )"),
    # Gemma and s1 decoded without special tokens: the end of the thought is lost
    Form(Kind.OPEN, r"\A\s*(?-i:thought|think)\n", certain=False),
    # Sentences of Granite and Apriel
    Form(
        Kind.OPEN,
        r"^[ ]*(?:here is|here[\u2019']s) my thought process:",
        certain=False,
    ),
    Form(Kind.ANSWER, r"^[ ]*(?:here is|here[\u2019']s) my response:"),
    Form(Kind.OPEN, r"^[ ]*here are my reasoning steps:", certain=False),
    Form(Kind.ANSWER, r"\[begin final response\]"),
    Form(Kind.END, r"\[end final response\]"),
    # A code block has no end of its own if it contains others.
    Form(Kind.OPEN, rf"^[ ]*(?:```|~~~)[ ]*{_SHORT}\b", certain=False),
)  # fmt: skip

END_TOKEN = re.compile(
    rf"{_L}[\w:\u2581/-]{{1,40}}{_R}|</s>|<eos>|<end_of_turn>|<turn\|>"
    r"|<end_of_utterance>|\[EOS\]|\[EOT\]|<EOT>"
)
"""A special token that a service may leave at the end of an answer."""

_TABLE = re.compile(
    "|".join(f"(?P<f{n}>{form.pattern})" for n, form in enumerate(FORMS)),
    re.IGNORECASE | re.MULTILINE,
)
_TOKENS = re.compile(
    r"<\|?(?:start|message|channel|constrain|end|return|call|open|close|sep|im_start"
    r"|eom|end_message|content_thinking|content_text)\|?>"
)
"""Special tokens that only make a mark together with the text between them."""


@dataclass(frozen=True)
class Mark:
    """A place in a text where a form matches.

    Attributes:
        form: The form.
        start: Index of the first character.
        end: Index after the last character.
        inside: Whether a part of a patch contains it.
    """

    form: Form
    start: int
    end: int
    inside: bool


def is_markup_token(token: str) -> bool:
    """Whether a special token separates thoughts from the answer, alone or with others."""
    found = _TABLE.fullmatch(token)
    return bool(found or _TOKENS.fullmatch(token))


def opening_at_end(text: str) -> str:
    """The opening of a thought that a prompt ends with; empty without one."""
    text = text.rstrip()
    for found in _TABLE.finditer(text):
        form = _form_of(found)
        if found.end() == len(text) and form.kind is Kind.OPEN and form.certain:
            return found[0]
    return ""


def _form_of(found: re.Match[str]) -> Form:
    return FORMS[int((found.lastgroup or "f0")[1:])]


def marks(layout: Layout) -> Iterator[Mark]:
    """Finds the marks of a text, in order; quoted ones are mentions, not marks."""
    text = layout.text
    for found in _TABLE.finditer(text):
        form = _form_of(found)
        start, end = found.span()
        inside = layout.part_at(start) is not None
        counts = form.anywhere or inside or is_on_its_own(text, start, end)
        if counts and not is_quoted(text, start, end):
            yield Mark(form, start, end, inside)


def is_on_its_own(text: str, start: int, end: int) -> bool:
    """Whether a mark starts its line, or ends it as a word of its own."""
    before, after = _around(text, start, end)
    return not before.strip() or (before[-1].isspace() and not after.strip())


def _around(text: str, start: int, end: int) -> tuple[str, str]:
    """The rest of the line before and after a place."""
    stop = text.find("\n", end)
    line_start = text.rfind("\n", 0, start) + 1
    return text[line_start:start], text[end : stop if stop >= 0 else len(text)]


def is_quoted(text: str, start: int, end: int) -> bool:
    """Whether a quotation mark touches the place, and quotes it."""
    before, after = _around(text, start, end)
    touching = before[-1:] + after[:1]
    return any(
        mark in touching and len(every.findall(before)) % 2 and every.search(after)
        for mark, every in _QUOTES.items()
    )


_QUOTES = {
    "`": re.compile("`"),
    '"': re.compile('"'),
    "'": re.compile(r"(?<![^\W_])'|'(?![^\W_])"),  # not an apostrophe
}
