"""Other values for literals, of the same type and on the same line."""

from __future__ import annotations

import re

from swebench_trainer.grading.counter.draws import Draws

_PARTS = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|u\{[^}]*\}|N\{[^}]*\}|[0-7]{1,3}|.|$)"
    r"|(?P<word>[A-Za-z]{2,})|(?P<digits>[0-9]+)|.",
)
_INTEGER = re.compile(r"[0-9]+\Z")
_DECIMAL = re.compile(r"(?P<whole>[0-9]*)\.(?P<rest>[0-9]*)\Z")


def other_number(text: str, draws: Draws) -> str | None:
    """Another number of a different length; `None` if it is written in a special way.

    Args:
        text: A number without sign, as written.
        draws: Determines the choice.
    """
    if _INTEGER.match(text) and (text == "0" or text[0] != "0"):
        low = 10 ** len(text)
        return str(int(text) % 7 + low + draws.below(8 * low))
    if decimal := _DECIMAL.match(text):
        return f"{draws.below(80) + 11}{decimal['whole']}.{decimal['rest'] or '0'}"
    return None


def other_text(text: str, draws: Draws) -> str:
    r"""Another text of a different length, for the inside of a string literal.

    One word or number is replaced, never a part of an escape such as `\n`.

    Args:
        text: The text between the quotes, or one line of it.
        draws: Determines the choice.
    """
    parts = list(_PARTS.finditer(text))
    for kind in ("word", "digits"):
        found = [part for part in parts if part[kind]]
        if not found:
            continue
        part = draws.choice(found)
        if kind == "word":
            new = draws.word(len(part[0]) + 1)
            new = new.capitalize() if part[0][0].isupper() else new
        else:
            new = other_number(part[0], draws) or f"{draws.below(9) + 1}{part[0]}"
        return text[: part.start()] + new + text[part.end() :]
    return text + draws.word(4)
