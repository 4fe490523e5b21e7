"""Words: names, numbers and lists in running text."""

import re


def slug(text, sep="-"):
    """'Hello, World!' gives 'hello-world'."""
    return sep.join(re.findall("[a-z0-9]+", text.lower()))


def snake(name):
    """'HTTPServerError' gives 'http_server_error'."""
    name = re.sub("([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def join(items, last="and"):
    """['a', 'b', 'c'] gives 'a, b and c'."""
    items = [str(item) for item in items]
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + f" {last} {items[-1]}"


def ordinal(number):
    """22 gives '22nd'."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{endings.get(number % 10, 'th')}"


def _many(noun):
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + "s"


def plural(count, noun, many=None):
    """A count with its noun; many is the plural of an irregular noun."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {many or _many(noun)}"
