"""Text to token ids, for SFT, DPO and sampling.

Prompt and answer are encoded separately and joined as ids, so training rows begin with
exactly the tokens that the model gets as a prompt later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from swebench_trainer.answers.markup import is_markup_token, opening_at_end
from swebench_trainer.contracts import TokenPart, TokenView
from swebench_trainer.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "swebench trainer marks this place"

_LONGEST_OPENING = 24
"""Tokens at the end of a prompt that may open a thought."""

ANSWER_FOLLOWS = "\n\n"
"""Separator of prompt and answer for a model without a chat template."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of a user message, ready for the answer to follow.

    With a chat template the message is rendered as one user turn and the generation
    prompt. Without one it is plain text after the BOS token, if the tokenizer has one,
    and ends with an empty line. Special tokens spelled out in the message are encoded
    as ordinary characters: an issue must not be able to end its turn and begin a system
    turn.

    Raises:
        RecipeError: The message has special tokens, and the chat template changes it.
    """
    if not tokenizer.chat_template:
        text = prompt.rstrip("\n") + ANSWER_FOLLOWS
        ids = _ids(tokenizer, text, split_special_tokens=True)
        # Some tokenizers add an end token to every text.
        return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
    text = prompt.strip()  # templates treat surrounding whitespace in their own way
    turn = _user_turn(tokenizer, prompt)
    if _encode(tokenizer, text) == _encode(tokenizer, text, literal=True):
        return _encode(tokenizer, turn)
    marked = _user_turn(tokenizer, prompt.replace(text, _MARK))
    before, mark, behind = marked.partition(_MARK)
    if not mark or before + text + behind != turn:
        raise RecipeError(
            "The model's chat template changes messages, so special tokens in an issue cannot be told from those of the template.",
            hint="Use a copy of the model whose chat template copies messages unchanged.",
        )
    message = range(len(before), len(before) + len(text))
    return _encode_literal_message(tokenizer, turn, message)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> list[list[int]]:
    """`encode_prompt` of each prompt; three times faster without special tokens.

    Raises:
        RecipeError: See `encode_prompt`.
    """
    special = _special_texts(tokenizer)
    if special is None or not tokenizer.chat_template:
        return [encode_prompt(tokenizer, prompt) for prompt in prompts]
    turns = _encode_all(tokenizer, [_user_turn(tokenizer, p) for p in prompts])
    return [
        encode_prompt(tokenizer, prompt) if any(x in prompt for x in special) else ids
        for prompt, ids in zip(prompts, turns, strict=True)
    ]


def _special_texts(tokenizer: PreTrainedTokenizerBase) -> list[str] | None:
    """The texts of special tokens; `None` if a text does not show where they are."""
    special = [t for t in tokenizer.added_tokens_decoder.values() if t.special]
    # A normalized token is matched against the normalized text.
    return None if any(t.normalized for t in special) else [t.content for t in special]


def encode_completions(
    tokenizer: PreTrainedTokenizerBase, completions: Sequence[str]
) -> list[list[int]]:
    """`encode_completion` of each completion, faster."""
    front = _lost_space(tokenizer)
    end = end_of_answer(tokenizer)
    texts = [front + completion for completion in completions]
    return [[*ids, end] for ids in _encode_all(tokenizer, texts, literal=True)]


def encode_completion(tokenizer: PreTrainedTokenizerBase, completion: str) -> list[int]:
    """Token ids of an answer and its end token.

    Text that the chat template puts between the two is not trained: it would become part
    of the patch. Special tokens spelled out in the answer are encoded as ordinary
    characters, because they are quoted text.
    """
    return encode_completions(tokenizer, [completion])[0]


def _lost_space(tokenizer: PreTrainedTokenizerBase) -> str:
    """The leading space that SentencePiece-like tokenizers drop; empty for others."""
    lost = _decode(tokenizer, _encode(tokenizer, " x", literal=True)) == "x"
    return " " * lost


def decode_completion(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of an answer, without special tokens, otherwise byte for byte."""
    return _decode(tokenizer, ids, skip_special_tokens=True)


def decode_answer(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text that a model wrote, without special tokens except markup around thoughts.

    Many models mark their thoughts with special tokens, which alone tell the answer
    from a draft.
    """
    special = special_ids(tokenizer)
    kept = [
        token
        for token in ids
        if token not in special
        or is_markup_token(str(tokenizer.convert_ids_to_tokens(token)))
    ]
    if special.isdisjoint(kept):
        return decode_completion(tokenizer, ids)
    return _decode(tokenizer, kept)


def opened_thought(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> str:
    """The opening of a thought at the end of an encoded prompt; empty without one."""
    opening = opening_at_end(_decode(tokenizer, prompt[-_LONGEST_OPENING:]))
    return f"{opening}\n" if opening else ""


def end_of_answer(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that ends an answer.

    This is the first special token after an assistant turn in the chat template; in some
    base models it is not the EOS token.
    """
    if tokenizer.chat_template:
        turns = [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": _MARK},
        ]
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
        behind = text.rpartition(_MARK)[2]
        special = special_ids(tokenizer)
        for token in _encode(tokenizer, behind):
            if token in special:
                return token
    return int(tokenizer.eos_token_id)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of special tokens, whether the tokenizer names them or only marks them."""
    added = tokenizer.added_tokens_decoder
    marked = {token for token in added if added[token].special}
    return marked.union(tokenizer.all_special_ids)


def describe_row(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str | None
) -> TokenView:
    """Shows a row as the model sees it; see `TokenView`."""
    prompt_ids = encode_prompt(tokenizer, prompt)
    answer_ids = [] if completion is None else encode_completion(tokenizer, completion)
    return TokenView(
        parts=tuple(_parts(tokenizer, prompt_ids, answer_ids)),
        prompt_tokens=len(prompt_ids),
        answer_tokens=len(answer_ids),
        altered=completion is not None
        and decode_completion(tokenizer, answer_ids) != completion,
    )


def _parts(
    tokenizer: PreTrainedTokenizerBase, prompt_ids: list[int], answer_ids: list[int]
) -> Iterator[TokenPart]:
    """The text of consecutive tokens of the same kind."""
    special = special_ids(tokenizer)
    ids = prompt_ids + answer_ids
    kinds = [
        (number >= len(prompt_ids), token in special)
        for number, token in enumerate(ids)
    ]
    end, before = 0, ""
    for (trained, is_special), group in groupby(kinds):
        end += len(list(group))
        # Decoded from the start: on its own, a part may lose its leading space.
        text = _decode(tokenizer, ids[:end])
        yield TokenPart(text.removeprefix(before), trained, is_special)
        before = text


def _encode_literal_message(
    tokenizer: PreTrainedTokenizerBase, turn: str, message: range
) -> list[int]:
    """Ids of a rendered turn in which special tokens of the message are plain text.

    Args:
        tokenizer: A fast tokenizer, which gives the offsets of its tokens.
        turn: The template's text, including the message.
        message: Range of the message in the turn.
    """
    encoded = tokenizer(
        turn, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    special = special_ids(tokenizer)
    ids: list[int] = []
    for token, (start, end) in zip(
        encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        if token in special and start in message:
            ids += _encode_inside(tokenizer, turn[start:end])
        else:
            ids.append(token)
    return ids


def _encode_inside(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text inside another one; at the start of a text they may differ."""
    newline = _encode(tokenizer, "\n", literal=True)
    behind = _encode(tokenizer, "\n" + text, literal=True)
    if behind[: len(newline)] != newline:  # the newline was merged with the text
        return _encode(tokenizer, text, literal=True)
    return behind[len(newline) :]


def _user_turn(tokenizer: PreTrainedTokenizerBase, message: str) -> str:
    """A user message and the generation prompt, rendered by the chat template."""
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            add_generation_prompt=True,
            tokenize=False,
        )
    )


def _encode(
    tokenizer: PreTrainedTokenizerBase, text: str, *, literal: bool = False
) -> list[int]:
    """Ids of a part of a conversation; if `literal`, without special tokens."""
    return _ids(tokenizer, text, add_special_tokens=False, split_special_tokens=literal)


def _encode_all(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, literal: bool = False
) -> list[list[int]]:
    """`_encode` of each text, on all threads."""
    if not texts:
        return []
    options = {"add_special_tokens": False, "split_special_tokens": literal}
    return list(tokenizer(list(texts), verbose=False, **options)["input_ids"])


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, **options: bool) -> list[int]:
    # `verbose` only warns about long texts, which we count ourselves.
    return list(tokenizer(text, verbose=False, **options)["input_ids"])


def _decode(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    *,
    skip_special_tokens: bool = False,
) -> str:
    return str(
        tokenizer.decode(
            list(ids),
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
    )
