"""Texts to token ids: the one place that SFT, DPO and sampling share.

A prompt and an answer are encoded apart and joined as ids, so what the model is
trained on begins with exactly the tokens that it is prompted with later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from swebench_trainer.contracts import TokenPart, TokenView
from swebench_trainer.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "swebench trainer marks this place"

ANSWER_FOLLOWS = "\n\n"
"""What stands between prompt and answer for a model that has no chat template."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Ids of a user's message, ready for the answer to follow.

    With a chat template the message is rendered as one user turn and the
    generation prompt; without one it is plain text behind the BOS token, if the
    tokenizer has one, and ends with an empty line. A special token spelled out in
    the message is encoded as the characters that it is: an issue must not end its
    own turn and begin one of the system.

    Raises:
        RecipeError: The message has special tokens, and the chat template changes it.
    """
    if not tokenizer.chat_template:
        text = prompt.rstrip("\n") + ANSWER_FOLLOWS
        ids = _ids(tokenizer, text, split_special_tokens=True)
        # Some tokenizers end every text; this one goes on.
        return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
    text = prompt.strip()  # the template decides about the space around it
    turn = _user_turn(tokenizer, prompt)
    if _encode(tokenizer, text) == _encode(tokenizer, text, literal=True):
        return _encode(tokenizer, turn)
    marked = _user_turn(tokenizer, prompt.replace(text, _MARK))
    before, mark, behind = marked.partition(_MARK)
    if not mark or before + text + behind != turn:
        raise RecipeError(
            "The model's chat template does not repeat a message as it is, so special tokens in an issue cannot be told from its own.",
            hint="Give the model a copy of its chat template that does.",
        )
    message = range(len(before), len(before) + len(text))
    return _encode_harmless(tokenizer, turn, message)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> list[list[int]]:
    """`encode_prompt` of each, in a third of its time where none has a special token.

    Raises:
        RecipeError: As `encode_prompt`.
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
    """What special tokens look like in a text; `None` if that cannot be told from it."""
    special = [t for t in tokenizer.added_tokens_decoder.values() if t.special]
    # Such a token is looked for in the text as the normaliser leaves it.
    return None if any(t.normalized for t in special) else [t.content for t in special]


def encode_completions(
    tokenizer: PreTrainedTokenizerBase, completions: Sequence[str]
) -> list[list[int]]:
    """`encode_completion` of each, in less time."""
    front = _lost_space(tokenizer)
    end = end_of_answer(tokenizer)
    texts = [front + completion for completion in completions]
    return [[*ids, end] for ids in _encode_all(tokenizer, texts, literal=True)]


def encode_completion(tokenizer: PreTrainedTokenizerBase, completion: str) -> list[int]:
    """Ids of an answer and of the token that ends it.

    Nothing that the chat template may put between the two is trained: it would be
    part of the patch. A special token spelled out in the answer is encoded as the
    characters that it is: it is quoted text, not an instruction to the model.
    """
    ids = _encode(tokenizer, _lost_space(tokenizer) + completion, literal=True)
    return [*ids, end_of_answer(tokenizer)]


def _lost_space(tokenizer: PreTrainedTokenizerBase) -> str:
    """The space that tokenizers in the manner of SentencePiece take from the front."""
    lost = _decode(tokenizer, _encode(tokenizer, " x", literal=True)) == "x"
    return " " * lost


def decode_completion(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of an answer, without special tokens and otherwise byte for byte."""
    return _decode(tokenizer, ids, skip_special_tokens=True)


def end_of_answer(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that ends an answer.

    It is the first special token that the chat template puts behind an assistant
    turn; base models ship templates whose end of turn is not their EOS token.
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


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokens that are no text, named by the tokenizer or only marked so."""
    marked = (
        token
        for token, added in tokenizer.added_tokens_decoder.items()
        if added.special
    )
    return frozenset((*tokenizer.all_special_ids, *marked))


def describe_row(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str | None
) -> TokenView:
    """Shows a row as the model sees it; see `TokenView`."""
    read = encode_prompt(tokenizer, prompt)
    learned = [] if completion is None else encode_completion(tokenizer, completion)
    return TokenView(
        parts=tuple(_parts(tokenizer, read, learned)),
        prompt_tokens=len(read),
        answer_tokens=len(learned),
        altered=completion is not None
        and decode_completion(tokenizer, learned) != completion,
    )


def _parts(
    tokenizer: PreTrainedTokenizerBase, read: list[int], learned: list[int]
) -> Iterator[TokenPart]:
    """The text of consecutive tokens that are alike."""
    special = special_ids(tokenizer)
    kinds = [
        (number >= len(read), token in special)
        for number, token in enumerate(read + learned)
    ]
    end, before = 0, ""
    for (trained, is_special), group in groupby(kinds):
        end += len(list(group))
        # Decoded from the start: alone, a part may lose the space before it.
        text = _decode(tokenizer, (read + learned)[:end])
        yield TokenPart(text.removeprefix(before), trained, is_special)
        before = text


def _encode_harmless(
    tokenizer: PreTrainedTokenizerBase, turn: str, message: range
) -> list[int]:
    """Ids of a rendered turn in which the message has no special tokens.

    Args:
        tokenizer: A fast one, which knows where its tokens come from.
        turn: The template's text with the message in it.
        message: Where in the turn the message is.
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
    """Ids of a text that stands in another; at the front it may be encoded otherwise."""
    newline = _encode(tokenizer, "\n", literal=True)
    behind = _encode(tokenizer, "\n" + text, literal=True)
    if behind[: len(newline)] != newline:  # they have grown together
        return _encode(tokenizer, text, literal=True)
    return behind[len(newline) :]


def _user_turn(tokenizer: PreTrainedTokenizerBase, message: str) -> str:
    """A user's message and the generation prompt, as the chat template has them."""
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
    """Ids of a part of a conversation; if `literal`, none of a special token."""
    return _ids(tokenizer, text, add_special_tokens=False, split_special_tokens=literal)


def _encode_all(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, literal: bool = False
) -> list[list[int]]:
    """`_encode` of each, by as many threads as there are."""
    if not texts:
        return []
    options = {"add_special_tokens": False, "split_special_tokens": literal}
    return list(tokenizer(list(texts), verbose=False, **options)["input_ids"])


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, **options: bool) -> list[int]:
    # Without its notice of long texts: we count tokens ourselves.
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
