"""Tests of the distributions beside this file, from the checkout, where their SDKs are."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

SDKS = {
    "swebench-trainer-anthropic": "anthropic",
    "swebench-trainer-openai": "openai",
    "swebench-trainer-together": "openai",
}
MISSING = {name: sdk for name, sdk in SDKS.items() if find_spec(sdk) is None}

collect_ignore = list(MISSING)
for distribution in Path(__file__).parent.glob("swebench-trainer-*"):
    sys.path.insert(0, str(distribution))


def pytest_report_header() -> list[str]:
    """Says what is not tested, and why."""
    return [
        f"{name}: no tests, {sdk} is not installed" for name, sdk in MISSING.items()
    ]
