"""A batch of answers, generated token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.sampling.token_sampler import TokenSampler, uniforms
from swebench_trainer.types import Finish

if TYPE_CHECKING:
    import torch


class Decoder(Protocol):
    """A model with its KV cache; each unfinished answer is a row."""

    joins: bool
    """Whether prompts can be added while other answers are unfinished."""

    def read(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[int]
    ) -> torch.Tensor:
        """Read prompts and append rows, `answers[n]` of them for `prompts[n]`.

        Returns:
            Logits of the first token of each new row, (rows, vocabulary).
        """

    def write(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read the newest token of each row.

        Returns:
            Logits of the next token, (rows, vocabulary).
        """

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all rows except these ascending indexes."""

    def clear(self) -> None:
        """Remove all rows."""


@dataclass
class Generation:
    """An unfinished or waiting answer.

    Attributes:
        prompt: Token ids of the prompt; one shared list for all answers to it.
        max_tokens: Maximum number of tokens of the answer.
        ids: Tokens so far.
        uniforms: Random number of each token.
    """

    request: SampleRequest
    prompt: list[int]
    max_tokens: int
    ids: list[int] = field(default_factory=list)
    uniforms: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Start, or restart, before the first token."""
        self.ids = []
        self.uniforms = uniforms(self.request.seed, self.max_tokens)


class Batch:
    """The unfinished answers.

    Args:
        decoder: The decoder, which is cleared.
        finish_of: Why an answer is finished; `None` if it is not.
    """

    def __init__(
        self, decoder: Decoder, finish_of: Callable[[Generation], Finish | None]
    ) -> None:
        decoder.clear()
        self.rows: list[Generation] = []
        self._decoder = decoder
        self._finish_of = finish_of
        self._token_sampler: TokenSampler | None = None

    def advance(self, joining: Sequence[Generation]) -> list[tuple[Generation, Finish]]:
        """Generate one token: the first of the joining rows, or the next of all others.

        Returns:
            The finished answers with the reason. They are removed from `rows`.
        """
        import torch

        rows = [*self.rows, *joining]
        with torch.inference_mode():
            if joining:
                self._read(joining)
            else:
                self._write()
            ends = [self._finish_of(row) for row in rows]
            unfinished = [number for number, end in enumerate(ends) if not end]
            if len(unfinished) < len(rows):
                self._decoder.keep(unfinished)
        if len(unfinished) != len(self.rows):
            self._token_sampler = None
        self.rows = [rows[number] for number in unfinished]
        return [(row, end) for row, end in zip(rows, ends, strict=True) if end]

    def _read(self, joining: Sequence[Generation]) -> None:
        prompts = {id(row.prompt): row.prompt for row in joining}
        answers = dict.fromkeys(prompts, 0)
        for row in joining:
            answers[id(row.prompt)] += 1
            row.begin()
        logits = self._decoder.read(list(prompts.values()), list(answers.values()))
        _append(joining, logits, _token_sampler(joining, logits))

    def _write(self) -> None:
        logits = self._decoder.write([row.ids[-1] for row in self.rows])
        if self._token_sampler is None:
            self._token_sampler = _token_sampler(self.rows, logits)
        _append(self.rows, logits, self._token_sampler)


def _token_sampler(rows: Sequence[Generation], logits: torch.Tensor) -> TokenSampler:
    return TokenSampler([row.request for row in rows], logits.device)


def _append(
    rows: Sequence[Generation], logits: torch.Tensor, sampler: TokenSampler
) -> None:
    tokens = sampler(logits, [row.uniforms[len(row.ids)] for row in rows])
    for row, token in zip(rows, tokens, strict=True):
        row.ids.append(token)
