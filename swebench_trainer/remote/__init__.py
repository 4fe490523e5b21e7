"""Shared parts of backends that sample from an API, for authors of such plugins.

A plugin implements how to send one request and read its response (`Service`), and defines
the keys of its table (`RemoteTable`). `RemoteBackend` combines both into a backend with
limited concurrency, a budget, prices, stored responses and mapped errors.
"""

from __future__ import annotations

from swebench_trainer.remote.backend import RemoteBackend
from swebench_trainer.remote.service import (
    Answer,
    Ask,
    Fault,
    FaultKind,
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
    "FaultKind",
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
