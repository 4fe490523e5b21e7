"""DPO that reads a prompt once for all the answers to it in a micro-batch.

Plain DPO forwards prompt + chosen and prompt + rejected. Here a prompt and the
answers to it are one row, in which an answer sees the prompt and itself:

    prompt but its last token │ last token, answer 1 │ last token, answer 2 │ …

The last token of a prompt stands before each answer because it is what predicts the
answer's first token. Positions go on from the prompt in every answer, so each hidden
state is the one that prompt + answer would have alone.

TRL's trainer does not notice: its batch holds the answers behind that one token, and
the model's backbone, which is what reads the row, hands back their hidden states.
Losses, metrics and the fused head stay TRL's.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "starcoder2")
"""Values of `model_type` for which the tests find it equal to plain DPO."""

ATTENTIONS = ("sdpa", "flex_attention")
"""Attention implementations that take a mask of our own."""

PROMPT = 0
"""Segment of the tokens that all answers see; answers count from 1."""

PADDING = -1
"""Segment behind the end of a row."""


@dataclass(frozen=True)
class Packed:
    """A prompt and the answers to it in one row.

    Attributes:
        ids: Tokens.
        positions: Where each token would stand in prompt + answer alone.
        segments: `PROMPT`, or the number of the answer.
        parts: Where each answer is read.
    """

    ids: list[int]
    positions: list[int]
    segments: list[int]
    parts: list[range]


def pack(prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> Packed:
    """Packs a prompt of at least one token and the answers to it.

    The last token of an answer is left out: nothing is predicted from it.
    """
    *shared, last = prompt
    depth = len(shared)
    row = Packed(shared, list(range(depth)), [PROMPT] * depth, [])
    for number, answer in enumerate(answers, start=1):
        part = [last, *answer[:-1]]
        row.parts.append(range(len(row.ids), len(row.ids) + len(part)))
        row.positions.extend(range(depth, depth + len(part)))
        row.segments.extend([number] * len(part))
        row.ids.extend(part)
    return row


@dataclass(frozen=True)
class SharedPrefixCollator:
    """Makes TRL's preference batch, and one row per prompt for `share_prefixes`.

    Args:
        pad: Id that fills up a batch.
    """

    pad: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collates pairs, chosen answers first; an answer in two pairs is read once.

        Args:
            examples: Rows with `prompt_ids`, `chosen_ids` and `rejected_ids`.

        Returns:
            `input_ids` and `completion_mask` (2 * pairs, answer + 1), each answer
            behind the last token of its prompt; `attention_mask` (prompts, row), from
            which TRL counts tokens; and `shared`, what the backbone reads: `input_ids`,
            `position_ids` and `segments` (prompts, row), and `places` (2 * pairs,
            answer + 1), which of all their tokens `input_ids` stands for.
        """
        import torch

        sequences = [
            (tuple(example["prompt_ids"]), tuple(example[side]))
            for side in ("chosen_ids", "rejected_ids")
            for example in examples
        ]
        answers: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
        for prompt, answer in sequences:
            answers.setdefault(prompt, {})[answer] = None
        rows = [pack(prompt, list(known)) for prompt, known in answers.items()]
        width = max(len(row.ids) for row in rows)
        places = {
            (prompt, answer): [number * width + place for place in part]
            for number, (prompt, row) in enumerate(zip(answers, rows, strict=True))
            for answer, part in zip(answers[prompt], row.parts, strict=True)
        }
        segments = _padded([row.segments for row in rows], PADDING)
        return {
            "input_ids": _padded([[p[-1], *a] for p, a in sequences], self.pad),
            "completion_mask": _padded([[0] + [1] * len(a) for _, a in sequences], 0),
            "attention_mask": (segments != PADDING).to(torch.long),
            "shared": {
                "input_ids": _padded([row.ids for row in rows], self.pad),
                "position_ids": _padded([row.positions for row in rows], 0),
                "segments": segments,
                # The last token of an answer was not read, and TRL does not ask.
                "places": _padded([[*places[s], places[s][0]] for s in sequences], 0),
            },
        }


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
    )


def obstacle(model: PreTrainedModel) -> str | None:
    """Why prompts cannot be shared with this model; `None` if they can."""
    config = model.config
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is not among {', '.join(FAMILIES)}"
    if config._attn_implementation not in ATTENTIONS:
        return f"{config._attn_implementation} is not among {', '.join(ATTENTIONS)}"
    if getattr(config, "sliding_window", None) is not None:
        return "its attention has a window"
    return None


def share_prefixes(model: PreTrainedModel) -> None:
    """Lets the model's backbone read what `SharedPrefixCollator` packs.

    Batches of other collators are read as before.

    Args:
        model: Without PEFT around it; adapters inside are used.
    """
    from torch.nn.functional import embedding

    backbone = model.base_model
    read = backbone.forward

    @functools.wraps(read)
    def forward(*args: Any, shared: Any = None, **options: Any) -> Any:
        if shared is None:
            return read(*args, **options)
        options["input_ids"] = shared["input_ids"]
        options["position_ids"] = shared["position_ids"]
        options["attention_mask"] = attention_mask(
            shared["segments"], backbone.config._attn_implementation
        )
        output = read(**options)
        hidden = output.last_hidden_state.flatten(0, 1)
        # As embeddings are looked up: indexing sums its gradients in any order, and
        # a resumed training would not end with the same bits.
        output.last_hidden_state = embedding(shared["places"], hidden)
        return output

    backbone.forward = forward


def attention_mask(
    segments: torch.Tensor, implementation: str
) -> torch.Tensor | BlockMask:
    """The mask in which an answer sees the prompt and itself.

    Args:
        segments: (rows, tokens), see `Packed`.
        implementation: One of `ATTENTIONS`.

    Returns:
        True where a token is seen, (rows, 1, seeing, seen); for FlexAttention blocks
        of it, of which those that nobody sees are skipped.
    """
    import torch

    rows, tokens = segments.shape
    if implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(
            _sees(segments), rows, None, tokens, tokens, device=segments.device
        )
    row = torch.arange(rows, device=segments.device)[:, None, None, None]
    place = torch.arange(tokens, device=segments.device)
    return _sees(segments)(row, row, place[:, None], place)


def _sees(segments: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Whether a token sees another, as FlexAttention asks it; indices may be tensors."""

    def sees(
        row: torch.Tensor, _head: torch.Tensor, one: torch.Tensor, other: torch.Tensor
    ) -> torch.Tensor:
        # Padding is a segment too: a token that saw nothing at all would be NaN.
        seen = segments[row, other]
        return (other <= one) & ((seen == PROMPT) | (seen == segments[row, one]))

    return sees


class PromptSampler:
    """Takes prompts in random order, and all pairs of a prompt before the next.

    Args:
        prompts: The prompt of each pair.
        seed: Seed of the order, which is another in every epoch.
    """

    def __init__(self, prompts: Sequence[Hashable], seed: int) -> None:
        self._pairs: dict[Hashable, list[int]] = {}
        for pair, prompt in enumerate(prompts):
            self._pairs.setdefault(prompt, []).append(pair)
        self._count = len(prompts)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; accelerate calls it, after a resume too."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self._seed} {self._epoch}")  # noqa: S311  # no secret
        for pairs in chance.sample(list(self._pairs.values()), len(self._pairs)):
            yield from chance.sample(pairs, len(pairs))
