"""Decoding that reads each prompt once, and caches it once, for all its answers.

The cache of transformers holds keys and values of prompt and answer for every row, and
copies them with each token. Here the keys and values of prompts and of answers are two
tensors:

    prompts  (prompts, key heads, prompt tokens, size)             written once
    answers  (prompts, key heads, width, answer tokens, size)      one more token per step

The answers form a grid, with `width` slots for each prompt. One matrix multiplication
scores all answers on their prompt, another one on themselves; a softmax over both joins
them. Prompts that are read together are a group, in which all unfinished answers have the
same length. Other prompts can join at any time as another group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "starcoder2")
"""Values of `model_type` for which tests show that it equals transformers' `generate`."""

ATTENTION = "shared_prompts"
"""Our attention implementation, as transformers knows it."""

CHUNK = 64
"""Tokens by which the room for answers grows."""

TOKENS = 8192
"""Tokens of prompts that are read at once, unless one alone has more."""

Pair = tuple["torch.Tensor", "torch.Tensor"]
"""Keys and values."""


def why_not(config: Any) -> str | None:
    """Why prompts cannot be shared with a model of this config; `None` if they can."""
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is not among {', '.join(FAMILIES)}"
    if getattr(config, "sliding_window", None) is not None:
        return "its attention has a window"
    return None


class SharedPrompts:
    """A `Decoder` for the models of `FAMILIES`.

    Args:
        model: In eval mode, on its device, without PEFT around it; adapters inside are
            used.
        pad: Id that fills up prompts.
    """

    joins = True

    def __init__(self, model: Any, pad: int) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(ATTENTION, _attend)
        self._config = model.config
        self._backbone = model.base_model
        self._head = model.get_output_embeddings()
        self._device = model.device
        self._pad = pad
        self._groups: list[_Group] = []

    def read(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[int]
    ) -> torch.Tensor:
        """See `Decoder.read`."""
        import torch

        width = max(map(len, prompts))
        caches, hidden = [], []
        for start in range(0, len(prompts), at_once := max(1, TOKENS // width)):
            few = prompts[start : start + at_once]
            # Padding stands behind what could see it, so no mask is needed.
            ids = [[*prompt, *[self._pad] * (width - len(prompt))] for prompt in few]
            output = self._backbone(
                torch.tensor(ids, device=self._device), use_cache=True
            )
            layers = output.past_key_values.layers
            caches.append([(layer.keys, layer.values) for layer in layers])
            hidden += [
                row[len(prompt) - 1].clone()  # a view would keep all of them
                for row, prompt in zip(output.last_hidden_state, few, strict=True)
            ]
        group = _Group(_joined(caches), [len(prompt) for prompt in prompts], answers)
        self._groups.append(group)
        logits: torch.Tensor = self._head(torch.stack(hidden))
        return logits[group.owners()]

    def write(self, tokens: Sequence[int]) -> torch.Tensor:
        """See `Decoder.write`."""
        import torch

        places = [place for group in self._groups for place in group.next_token()]
        with self._attending():
            output = self._backbone(
                torch.tensor(tokens, device=self._device)[:, None],
                position_ids=torch.tensor(places, device=self._device)[:, None],
                use_cache=False,
                groups=self._groups,
            )
        logits: torch.Tensor = self._head(output.last_hidden_state[:, 0])
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """See `Decoder.keep`."""
        wanted, end = set(rows), 0
        for group in self._groups:
            start, end = end, end + len(group.slots)
            group.keep([row - start for row in range(start, end) if row in wanted])
        self._groups = [group for group in self._groups if group.slots]

    def clear(self) -> None:
        """See `Decoder.clear`."""
        self._groups = []

    @contextmanager
    def _attending(self) -> Iterator[None]:
        """Attends as this module does; prompts are read as the model is set to."""
        before = self._config._attn_implementation
        # transformers makes no mask for a name that only has an attention.
        self._config._attn_implementation = ATTENTION
        try:
            yield
        finally:
            self._config._attn_implementation = before


class _Group:
    """Prompts that were read together, and the answers to them.

    Answers lie in a grid, with the same number of places for each prompt; a row is an
    answer that is still being written.

    Args:
        cache: Keys and values of the prompts for each layer, (prompts, heads, tokens,
            size), padded behind.
        lengths: Tokens of each prompt.
        answers: Rows of each prompt.
    """

    def __init__(
        self, cache: list[Pair], lengths: list[int], answers: Sequence[int]
    ) -> None:
        prompts, heads, _, size = cache[0][0].shape
        self.width = max(answers)
        self.slots = [
            prompt * self.width + place
            for prompt, count in enumerate(answers)
            for place in range(count)
        ]
        self._prompts = cache
        self._lengths = lengths
        empty = cache[0][0].new_empty(prompts, heads, self.width, 0, size)
        self._answers: list[Pair] = [(empty, empty)] * len(cache)
        self._tokens = 0
        self._locate()

    def owners(self) -> list[int]:
        """Number of each row's prompt."""
        return [slot // self.width for slot in self.slots]

    def next_token(self) -> list[int]:
        """Makes room for a token of each row; gives its position."""
        import torch

        keys = self._answers[0][0]
        if self._tokens == keys.shape[3]:
            room = keys.new_zeros(*keys.shape[:3], CHUNK, keys.shape[4])
            self._answers = [
                (torch.cat([k, room], dim=3), torch.cat([v, room], dim=3))
                for k, v in self._answers
            ]
        self._tokens += 1
        return [self._lengths[owner] + self._tokens - 1 for owner in self.owners()]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Attention of the newest token of each row.

        Args:
            layer: Number of the attention layer.
            query: (rows, heads, size).
            key: (rows, key heads, size), kept from now on.
            value: As `key`.
            scaling: Of the scores.

        Returns:
            (rows, heads, size).
        """
        import torch

        prompt_keys, prompt_values = self._prompts[layer]
        heads, length = prompt_keys.shape[1:3]
        keys, values = (x[:, :, :, : self._tokens] for x in self._answers[layer])
        keys[:, :, :, -1] = self._in_grid(key).transpose(1, 2)
        values[:, :, :, -1] = self._in_grid(value).transpose(1, 2)
        grid = self._in_grid(query * scaling)  # (prompts, width, heads, size)
        # (prompts, key heads, width, heads per key head, size)
        grid = grid.view(*grid.shape[:2], heads, -1, grid.shape[3]).transpose(1, 2)
        # On the prompt: (prompts, key heads, width * heads per key head, prompt tokens).
        scores = grid.flatten(2, 3) @ prompt_keys.transpose(2, 3)
        if self._padding is not None:
            scores = scores.masked_fill_(self._padding, float("-inf"))
        # On the answers: (prompts, key heads, width, heads per key head, answer tokens).
        on_answers = grid @ keys.transpose(3, 4)
        # Softmax over both: (…, prompt tokens + answer tokens).
        both = [scores.view(*grid.shape[:-1], length), on_answers]
        weights = torch.cat(both, dim=-1).softmax(-1, torch.float32).to(query.dtype)
        on_prompt, on_answer = torch.split(weights, [length, self._tokens], dim=-1)
        # Weighted values of both: the shape of `grid`.
        seen = (on_prompt.flatten(2, 3) @ prompt_values).view(grid.shape)
        seen = seen + on_answer @ values
        # Back to (prompts * width, heads, size), of which the rows are kept.
        seen = seen.transpose(1, 2).reshape(-1, *query.shape[1:])
        return seen if self._places is None else seen[self._places]

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets other rows; the grid shrinks when a quarter of it can go."""
        self.slots = [self.slots[row] for row in rows]
        if not rows:
            return
        by_prompt = {
            prompt: [slot % self.width for slot in slots]
            for prompt, slots in groupby(self.slots, key=lambda s: s // self.width)
        }
        width = max(map(len, by_prompt.values()))
        if 4 * len(by_prompt) * width <= 3 * len(self._lengths) * self.width:
            self._shrink(by_prompt, width)
        self._locate()

    def _shrink(self, by_prompt: dict[int, list[int]], width: int) -> None:
        """Leaves these prompts, and these answers to each of them."""
        import torch

        device = self._prompts[0][0].device
        # Places without an answer repeat another.
        places = [[*of, *of[:1] * (width - len(of))] for of in by_prompt.values()]
        prompts = torch.tensor(list(by_prompt), device=device)
        answers = torch.tensor(places, device=device)
        if len(by_prompt) < len(self._lengths):
            self._lengths = [self._lengths[prompt] for prompt in by_prompt]
            longest = max(self._lengths)
            for layer, (keys, values) in enumerate(self._prompts):
                self._prompts[layer] = (
                    keys[prompts, :, :longest],
                    values[prompts, :, :longest],
                )
        for layer, (keys, values) in enumerate(self._answers):
            self._answers[layer] = (
                keys[prompts[:, None], :, answers].transpose(1, 2).contiguous(),
                values[prompts[:, None], :, answers].transpose(1, 2).contiguous(),
            )
        self.width = width
        self.slots = [
            number * width + place
            for number, of in enumerate(by_prompt.values())
            for place in range(len(of))
        ]

    def _locate(self) -> None:
        """Prepares what the layers share: where the rows are, and what is padding."""
        import torch

        device = self._prompts[0][0].device
        full = len(self.slots) == len(self._lengths) * self.width
        self._places = None if full else torch.tensor(self.slots, device=device)
        longest = max(self._lengths)
        self._padding = None
        if min(self._lengths) < longest:
            lengths = torch.tensor(self._lengths, device=device)
            place = torch.arange(longest, device=device)
            self._padding = (place >= lengths[:, None])[:, None, None]

    def _in_grid(self, rows: torch.Tensor) -> torch.Tensor:
        """From (rows, heads, size) to (prompts, answers, heads, size)."""
        if self._places is not None:
            grid = rows.new_zeros(len(self._lengths) * self.width, *rows.shape[1:])
            rows = grid.index_copy_(0, self._places, rows)
        return rows.view(len(self._lengths), self.width, *rows.shape[1:])


def _joined(caches: list[list[Pair]]) -> list[Pair]:
    """The caches of some prompts and others as one."""
    import torch

    if len(caches) == 1:
        return caches[0]
    return [
        (torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer]))
        for layer in zip(*caches, strict=True)
    ]


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    groups: Sequence[_Group],
    scaling: float,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one token of each row; as transformers calls it.

    Args:
        module: The attention layer.
        query: (rows, heads, 1, size).
        key: (rows, key heads, 1, size).
        value: As `key`.
        _mask: There is none.
        groups: What the rows have seen, group by group.
        scaling: Of the scores.

    Returns:
        (rows, 1, heads, size), and no weights.
    """
    import torch

    layer: int = module.layer_idx  # type: ignore[assignment]  # torch knows modules only
    counts = [len(group.slots) for group in groups]
    parts = (torch.split(x[:, :, 0], counts) for x in (query, key, value))
    attended = [
        group.attend(layer, *part, scaling=scaling)
        for group, *part in zip(groups, *parts, strict=True)
    ]
    return (attended[0] if len(attended) == 1 else torch.cat(attended))[:, None], None
