"""What has been spent, what is on its way, and what still fits into the budget."""

from __future__ import annotations

from swebench_trainer.remote.service import Ask, Usage
from swebench_trainer.remote.tables import Budget, Price

_BYTES_PER_TOKEN = 3
"""Of a prompt, on the safe side: tokens of code have three to four."""


def worst_case(ask: Ask) -> Usage:
    """The most that a request may use, by an estimate of its prompt."""
    prompt, output = _tokens(ask.first.prompt), ask.first.max_new_tokens
    read = Usage(written=prompt) if ask.shared else Usage(input=prompt)
    return read + Usage(output=output * len(ask.requests))


def estimated(ask: Ask, texts: list[str]) -> Usage:
    """What a request has used, for services that do not say."""
    return Usage(input=_tokens(ask.first.prompt), output=sum(map(_tokens, texts)))


def _tokens(text: str) -> int:
    return len(text.encode(errors="replace")) // _BYTES_PER_TOKEN + 1


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
        return self._holds(self.spent + self._under_way + worst_case(ask))

    @property
    def holds(self) -> bool:
        """Whether the budget still holds what is spent, and what is under way."""
        return self._holds(self.spent + self._under_way)

    def _holds(self, usage: Usage) -> bool:
        tokens, money = self._budget.tokens, self._budget.money
        if tokens is not None and usage.total > tokens:
            return False
        return money is None or self._price is None or self._price.of(usage) <= money

    def begin(self, ask: Ask) -> None:
        """Sets aside what a request may use."""
        self._under_way += worst_case(ask)

    def end(self, ask: Ask) -> None:
        """Gives it back; what it has used is added to `spent` when it is kept."""
        self._under_way -= worst_case(ask)

    def words(self) -> str:
        """What was spent of what, for people."""
        parts = [_of(f"{self.spent.total:,}", self._budget.tokens, "tokens")]
        if self.money is not None:
            parts.append(_of(f"{self.money:.4g}", self._budget.money, "money"))
        return " and ".join(parts)


def _of(spent: str, limit: float | None, unit: str) -> str:
    return f"{spent} {unit}" if limit is None else f"{spent} of {limit:,} {unit}"
