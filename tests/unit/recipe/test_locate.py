"""Positions of keys: against tomllib, which knows the keys but not the places."""

import tomllib

from hypothesis import given, strategies as st

from swebench_trainer.recipe.locate import locate

TRICKY = '''\
name = "a # b = [c]"   # comment with key = value
"quoted key" = 1
list = [
  "x = 1",   # not a key
  { inner = 2 },
]
text = """
[not.a.table]
fake = 1
"""

[data]
use = 'rows'
holdout = { by = "repo", fraction = 0.2 }

[data.deep]
key = 1
a.b = 2
'''


def test_every_key_is_found_where_it_stands():
    lines = TRICKY.split("\n")
    places = locate(TRICKY)
    for path, place in places.items():
        found = lines[place.line - 1][place.column - 1 :][: place.width]
        assert path[-1] in found, (path, place)
    assert places["data", "holdout", "fraction"].line == 14
    assert ("fake",) not in places
    assert ("not", "a", "table") not in places
    assert places["data", "deep", "a", "b"].line == 18


def paths(value, prefix=()):
    for key, inner in value.items():
        yield (*prefix, key)
        if isinstance(inner, dict):
            yield from paths(inner, (*prefix, key))


KEY = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
STRING = st.text(
    st.characters(codec="ascii", exclude_characters='"\\\r\n\x7f', min_codepoint=32),
    max_size=40,
)
LINE = st.one_of(
    st.tuples(KEY, st.integers()).map(lambda kv: f"{kv[0]} = {kv[1]}"),
    st.tuples(KEY, STRING).map(lambda kv: f'{kv[0]} = "{kv[1]}"'),
    st.tuples(KEY, STRING).map(lambda kv: f'{kv[0]} = """\n{kv[1]}\n"""'),
    st.tuples(KEY, KEY).map(lambda kv: f"{kv[0]} = {{ {kv[1]} = 1 }}"),
    st.tuples(KEY, STRING).map(lambda kv: f'{kv[0]} = [\n  "{kv[1]}",\n]'),
    KEY.map(lambda key: f"[{key}]"),
    STRING.map(lambda text: f"# {text}"),
)


@given(st.lists(LINE, max_size=8).map("\n".join))
def test_finds_what_tomllib_finds(text):
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # the same key twice
        return
    assert set(locate(text)) == set(paths(values))
