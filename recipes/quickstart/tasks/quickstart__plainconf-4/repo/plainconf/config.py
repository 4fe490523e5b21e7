"""Looking values up and converting them."""

from .reader import loads
from .writer import dumps

_BOOLS = {
    "1": True, "on": True, "true": True, "yes": True,
    "0": False, "off": False, "false": False, "no": False,
}


class Config:
    """Values by section and key; the names of keys ignore case.

    A key that a section lacks is looked up in section "".
    """

    def __init__(self, sections=()):
        self._sections = {}
        for name, items in dict(sections).items():
            self._sections[name] = {}
            for key, value in items.items():
                self.set(name, key, value)

    @classmethod
    def loads(cls, text):
        return cls(loads(text))

    def dumps(self):
        return dumps(self._sections)

    def set(self, section, key, value):
        items = self._sections.setdefault(section, {})
        items[key.lower()] = str(value)

    def get(self, section, key, default=None):
        """The text of a value, or default if there is none."""
        key = key.lower()
        for name in (section, ""):
            items = self._sections.get(name, {})
            if key in items:
                return items[key]
        return default

    def get_int(self, section, key, default=None):
        """A value as an integer, written as in Python."""
        value = self.get(section, key)
        return default if value is None else int(value, 0)

    def get_bool(self, section, key, default=None):
        """A value as a truth value, such as yes, off or 1."""
        value = self.get(section, key)
        if value is None:
            return default
        if value.lower() not in _BOOLS:
            raise ValueError(f"not a truth value: {value!r}")
        return _BOOLS[value.lower()]

    def get_list(self, section, key, sep=","):
        """The parts of a value, without the empty ones."""
        parts = self.get(section, key, "").split(sep)
        return [part.strip() for part in parts if part.strip()]

    def merge(self, other):
        """A new Config: the values of self, overridden by other's."""
        merged = Config(self._sections)
        for name, items in other._sections.items():
            merged._sections.setdefault(name, {}).update(items)
        return merged
