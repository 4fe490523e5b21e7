"""Texts to token ids: the one place that SFT, DPO and sampling share.

A prompt and an answer are encoded apart and joined as ids, so what the model is
trained on begins with exactly the tokens that it is prompted with later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "swebench trainer marks this place"


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Ids of a user's message, ready for the answer to follow.

    With a chat template the message is rendered as one user turn and the
    generation prompt; without one it stays plain text. A special token spelled
    out in the message is encoded as the characters that it is: an issue must not
    end its own turn and begin one of the system.
    """
    if not tokenizer.chat_template:
        return list(tokenizer(prompt, split_special_tokens=True)["input_ids"])
    text = prompt.strip()  # the template decides about the space around it
    literal = _encode(tokenizer, text, literal=True)
    if literal == _encode(tokenizer, text):
        return _encode(tokenizer, _user_turn(tokenizer, prompt))
    marked = _user_turn(tokenizer, prompt.replace(text, _MARK))
    ids, *others = [_encode(tokenizer, part) for part in marked.split(_MARK)]
    return ids + [token for part in others for token in literal + part]


def encode_completion(tokenizer: PreTrainedTokenizerBase, completion: str) -> list[int]:
    """Ids of an answer and of the token that ends it.

    A special token spelled out in the answer is encoded as the characters that
    it is: it is quoted text, not an instruction to the model.
    """
    ids = _encode(tokenizer, completion, literal=True)
    return [*ids, end_of_answer(tokenizer)]


def decode_completion(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of an answer, without special tokens and otherwise byte for byte."""
    return str(
        tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
    )


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
        special = set(tokenizer.all_special_ids)
        for token in _encode(tokenizer, behind):
            if token in special:
                return token
    return int(tokenizer.eos_token_id)


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
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=literal)
    return list(encoded["input_ids"])
