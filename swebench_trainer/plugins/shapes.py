"""Whether a value that a plugin made has the fields and types that are documented."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from swebench_trainer.plugins.faults import described
from swebench_trainer.types import as_row


def wrong_with(value: object, kind: type[Any]) -> str:
    """What is wrong with a value that ought to be a `kind`; empty if nothing is.

    Args:
        value: Anything.
        kind: A dataclass of `types` or `contracts`.
    """
    if not isinstance(value, kind):
        return f"{described(value)}, not a {kind.__name__}"
    try:
        _model(kind).model_validate(as_row(value))  # type: ignore[arg-type]  # types hash
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"][:1].lower() + first["msg"][1:]
        given = described(first["input"])
        return f"a {kind.__name__} with the wrong {field} ({given}: {message})"
    return ""


@cache
def _model(kind: type[Any]) -> type[BaseModel]:
    """A strict model with the fields of a dataclass, which checks nothing by itself."""
    hints = get_type_hints(kind)
    fields = {spec.name: (hints[spec.name], ...) for spec in dataclasses.fields(kind)}
    config = ConfigDict(
        strict=True, arbitrary_types_allowed=True, protected_namespaces=()
    )
    return create_model(kind.__name__, __config__=config, **fields)  # type: ignore[call-overload,no-any-return]  # fields by name
