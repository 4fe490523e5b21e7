"""Writers behind APIs: what every one of them needs, for authors of such backends.

A plugin says how one request is sent and how its response is read (`Service`) and which
keys its table has (`RemoteTable`); `RemoteBackend` makes a backend of the two, with a
limit on requests at once, a budget, prices, kept responses and mapped errors.
"""

from __future__ import annotations

from swebench_trainer.remote.backend import RemoteBackend
from swebench_trainer.remote.service import (
    Answer,
    Ask,
    Fault,
    Reply,
    Service,
    Usage,
    fault_of_status,
    parsed,
    seconds_of,
)
from swebench_trainer.remote.tables import Address, Budget, Price, RemoteTable, Variable
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import RowWriter, read_rows

__all__ = [
    "Address",
    "Answer",
    "Ask",
    "Budget",
    "Fault",
    "Price",
    "RemoteBackend",
    "RemoteTable",
    "Reply",
    "RowWriter",
    "Service",
    "Usage",
    "Variable",
    "digest",
    "fault_of_status",
    "parsed",
    "read_rows",
    "seconds_of",
]
