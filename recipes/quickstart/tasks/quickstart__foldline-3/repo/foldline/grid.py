"""Tables in plain text."""

_PADS = {"l": str.ljust, "r": str.rjust, "c": str.center}


def _cells(values):
    return [str(value) if value else "" for value in values]


def table(rows, header=None, align="", gap="  "):
    """Return rows, under an underlined header if given, in columns.

    The string align has one letter a column, of l, r and c; columns
    past its end are aligned left. None is shown as an empty cell, and
    short rows end in empty cells.
    """
    rows = [_cells(row) for row in rows]
    if header is not None:
        rows.insert(0, _cells(header))
    if not rows:
        return ""
    count = max(len(row) for row in rows)
    rows = [row + [""] * (count - len(row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    if header is not None:
        rows.insert(1, ["-" * width for width in widths])
    pads = [_PADS[letter] for letter in align.ljust(count, "l")]
    lines = []
    for row in rows:
        cells = [pad(*cell) for pad, *cell in zip(pads, row, widths)]
        lines.append(gap.join(cells).rstrip())
    return "\n".join(lines)
