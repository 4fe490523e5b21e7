"""Spending, pending requests, and the remaining budget."""

from __future__ import annotations

from swebench_trainer.remote.response_store import ResponseStore
from swebench_trainer.remote.service import Ask, Usage
from swebench_trainer.remote.tables import Budget, RemoteTable

_BYTES_PER_TOKEN = 3
"""Conservative: tokens of code have three to four bytes."""


def worst_case(ask: Ask) -> Usage:
    """Upper bound of a request's tokens, with an estimate for the prompt."""
    prompt, output = _tokens(ask.first.prompt), ask.first.max_new_tokens
    read = Usage(written=prompt) if ask.shared else Usage(input=prompt)
    return read + Usage(output=output * len(ask.requests))


def estimated(ask: Ask, texts: list[str]) -> Usage:
    """Estimated tokens of a request, for services that report no usage."""
    return Usage(input=_tokens(ask.first.prompt), output=sum(map(_tokens, texts)))


def _tokens(text: str) -> int:
    return len(text.encode(errors="replace")) // _BYTES_PER_TOKEN + 1


class SpendTracker:
    """Counts tokens and money. A request needs a budget for its worst case."""

    def __init__(self, table: RemoteTable, store: ResponseStore) -> None:
        self._price = table.price
        self._budget = table.budget or Budget()
        self._store = store
        self._pending = Usage()

    @property
    def spent(self) -> Usage:
        """Tokens spent, including earlier attempts."""
        return self._store.usage

    @property
    def money(self) -> float | None:
        """Money spent; `None` without a price."""
        return self._price.of(self.spent) if self._price else None

    def can_afford(self, ask: Ask) -> bool:
        """Whether the budget covers spent, pending and this request's tokens."""
        return self._covers(self.spent + self._pending + worst_case(ask))

    @property
    def within_budget(self) -> bool:
        """Whether the budget covers spent and pending tokens."""
        return self._covers(self.spent + self._pending)

    def _covers(self, usage: Usage) -> bool:
        tokens, money = self._budget.tokens, self._budget.money
        if tokens is not None and usage.total > tokens:
            return False
        return money is None or self._price is None or self._price.of(usage) <= money

    def reserve(self, ask: Ask) -> None:
        """Reserve the worst case of a request."""
        self._pending += worst_case(ask)

    def release(self, ask: Ask) -> None:
        """Release the reservation; `spent` has the actual usage once it is stored."""
        self._pending -= worst_case(ask)

    def describe(self) -> str:
        """Spending and limits as text."""
        parts = [_of(f"{self.spent.total:,}", self._budget.tokens, "tokens")]
        if self.money is not None:
            parts.append(_of(f"{self.money:.4g}", self._budget.money, "money"))
        return " and ".join(parts)


def _of(spent: str, limit: float | None, unit: str) -> str:
    return f"{spent} {unit}" if limit is None else f"{spent} of {limit:,} {unit}"
