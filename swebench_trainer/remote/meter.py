"""What has been spent, what is on its way, and what still fits into the budget."""

from __future__ import annotations

from swebench_trainer.remote.service import Ask, Usage
from swebench_trainer.remote.tables import Budget, Price

_BYTES_PER_TOKEN = 3
"""Of a prompt, on the safe side: tokens of code have three to four."""


def worst_case(ask: Ask) -> Usage:
    """The most that a request may use, by an estimate of its prompt."""
    prompt = len(ask.first.prompt.encode()) // _BYTES_PER_TOKEN + 1
    return Usage(input=prompt, output=ask.first.max_new_tokens * len(ask.requests))


def estimated(ask: Ask, texts: list[str]) -> Usage:
    """What a request has used, for services that do not say."""
    written = sum(len(text.encode()) // _BYTES_PER_TOKEN + 1 for text in texts)
    return Usage(input=worst_case(ask).input, output=written)


class Meter:
    """Counts tokens and money. A request is let through when the worst of it fits.

    Attributes:
        spent: By earlier attempts too.
    """

    def __init__(
        self, price: Price | None, budget: Budget | None, spent: Usage
    ) -> None:
        self._price = price
        self._budget = budget or Budget()
        self._under_way = Usage()
        self.spent = spent

    @property
    def money(self) -> float | None:
        """What was spent; `None` without a price."""
        return self._price.of(self.spent) if self._price else None

    def fits(self, ask: Ask) -> bool:
        """Whether the budget holds what is spent, what is under way, and this."""
        usage = self.spent + self._under_way + worst_case(ask)
        tokens, money = self._budget.tokens, self._budget.money
        if tokens is not None and usage.total > tokens:
            return False
        return money is None or self._price is None or self._price.of(usage) <= money

    def begin(self, ask: Ask) -> None:
        """Sets aside what a request may use."""
        self._under_way += worst_case(ask)

    def end(self, ask: Ask) -> None:
        """Gives it back; what it has used is added to `spent` when it is kept."""
        worst = worst_case(ask)
        self._under_way += Usage(input=-worst.input, output=-worst.output)

    def words(self) -> str:
        """What was spent of what, for people."""
        parts = [_of(f"{self.spent.total:,}", self._budget.tokens, "tokens")]
        if self.money is not None:
            parts.append(_of(f"{self.money:.4g}", self._budget.money, "money"))
        return " and ".join(parts)


def _of(spent: str, limit: float | None, unit: str) -> str:
    return f"{spent} {unit}" if limit is None else f"{spent} of {limit:,} {unit}"
