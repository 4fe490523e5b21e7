"""The answers that a model writes at the same time, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.sampling.token_sampler import Draws, chances

if TYPE_CHECKING:
    import torch


class Decoder(Protocol):
    """A model with what it has read; each answer under way is a row."""

    joins: bool
    """Whether prompts can be read while answers to others are under way."""

    def read(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[int]
    ) -> torch.Tensor:
        """Reads prompts; so many answers to each become rows, behind those there are.

        Returns:
            Logits of the first token of each new row, (rows, vocabulary).
        """

    def write(self, tokens: Sequence[int]) -> torch.Tensor:
        """Reads the newest token of each row.

        Returns:
            Logits of the next, (rows, vocabulary).
        """

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all rows but these, given by their numbers in rising order."""

    def clear(self) -> None:
        """Forgets all rows."""


@dataclass
class Row:
    """An answer under way, or one that waits.

    Attributes:
        prompt: Ids of the prompt; the same list for all answers to it.
        most: Tokens that the answer may have.
        ids: Those that it has.
        chances: What each is drawn with.
    """

    request: SampleRequest
    prompt: list[int]
    most: int
    ids: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Goes back to before the first token."""
        self.ids = []
        self.chances = chances(self.request.seed, self.most)


class Batch:
    """The answers under way.

    Args:
        decoder: Forgets what it has read.
        ending: Why an answer has ended; empty if it has not.
    """

    def __init__(self, decoder: Decoder, ending: Callable[[Row], str]) -> None:
        decoder.clear()
        self.rows: list[Row] = []
        self._decoder = decoder
        self._ending = ending
        self._draws: Draws | None = None

    def advance(self, joining: Sequence[Row]) -> list[tuple[Row, str]]:
        """Writes a token: the first of those that join, or the next of all others.

        Returns:
            The answers that have ended, and why. They are no longer among `rows`.
        """
        import torch

        rows = [*self.rows, *joining]
        with torch.inference_mode():
            if joining:
                self._read(joining)
            else:
                self._write()
            ends = [self._ending(row) for row in rows]
            under_way = [number for number, end in enumerate(ends) if not end]
            if len(under_way) < len(rows):
                self._decoder.keep(under_way)
        if len(under_way) != len(self.rows):
            self._draws = None
        self.rows = [rows[number] for number in under_way]
        return [(row, end) for row, end in zip(rows, ends, strict=True) if end]

    def _read(self, joining: Sequence[Row]) -> None:
        prompts = {id(row.prompt): row.prompt for row in joining}
        answers = dict.fromkeys(prompts, 0)
        for row in joining:
            answers[id(row.prompt)] += 1
            row.begin()
        logits = self._decoder.read(list(prompts.values()), list(answers.values()))
        _append(joining, logits, Draws([row.request for row in joining], logits.device))

    def _write(self) -> None:
        logits = self._decoder.write([row.ids[-1] for row in self.rows])
        if self._draws is None:
            requests = [row.request for row in self.rows]
            self._draws = Draws(requests, logits.device)
        _append(self.rows, logits, self._draws)


def _append(rows: Sequence[Row], logits: torch.Tensor, draws: Draws) -> None:
    tokens = draws(logits, [row.chances[len(row.ids)] for row in rows])
    for row, token in zip(rows, tokens, strict=True):
        row.ids.append(token)
