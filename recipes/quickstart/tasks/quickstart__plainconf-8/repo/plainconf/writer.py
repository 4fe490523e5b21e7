"""Writing: from a dict of sections to text."""

_SPECIAL = set('"#;\n\t')


def quote(value):
    """Quote value unless it would be read back as it is."""
    if value and value == value.strip() and not _SPECIAL & set(value):
        return value
    value = value.replace("\\", "\\\\")
    value = value.replace('"', '\\"')
    value = value.replace("\n", "\\n")
    value = value.replace("\t", "\\t")
    return f'"{value}"'


def dumps(sections):
    """Write {section: {key: value}} as text that loads can read."""
    blocks = []
    for name in sorted(sections, key=bool):
        lines = [f"[{name}]"] if name else []
        for key, value in sections[name].items():
            lines.append(f"{key} = {quote(value)}")
        if lines:
            blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
