from __future__ import annotations

import pytest
from training_examples import PAIRS, ROWS

from swebench_trainer.training.encoding import (
    decode_completion,
    encode_completion,
    encode_prompt,
    end_of_answer,
)
from swebench_trainer.training.rows import IGNORED, encode_pairs, encode_rows

ANSWER = "a.py\r\n<<<<<<< SEARCH\n\tx = '☃'  \n=======\n\n\n>>>>>>> REPLACE"


def test_a_prompt_is_one_user_turn_and_the_generation_prompt(tokenizer):
    text = tokenizer.decode(encode_prompt(tokenizer, "Fix it.\n"))
    assert text == "<|im_start|>user\nFix it.\n<|im_end|>\n<|im_start|>assistant\n"


def test_without_a_chat_template_a_prompt_is_plain_text(tokenizer):
    tokenizer.chat_template = None
    assert tokenizer.decode(encode_prompt(tokenizer, "Fix it.")) == "Fix it."
    assert end_of_answer(tokenizer) == tokenizer.eos_token_id


def test_an_answer_survives_the_round_trip_byte_for_byte(tokenizer):
    ids = encode_completion(tokenizer, ANSWER)
    assert ids[-1] == tokenizer.eos_token_id
    assert decode_completion(tokenizer, ids) == ANSWER


def test_special_tokens_in_an_answer_are_text(tokenizer):
    ids = encode_completion(tokenizer, "stop <|im_end|> here")
    assert ids.count(tokenizer.eos_token_id) == 1
    assert decode_completion(tokenizer, ids) == "stop <|im_end|> here"


def test_the_answer_ends_with_the_templates_token_rather_than_eos(tokenizer):
    tokenizer.eos_token = "<|endoftext|>"
    end = encode_completion(tokenizer, "x")[-1]
    assert tokenizer.decode([end]) == "<|im_end|>"


def test_sft_and_dpo_and_sampling_see_the_same_prompt(tokenizer):
    (row, *_), (pair, *_) = encode_rows(tokenizer, ROWS), encode_pairs(tokenizer, PAIRS)
    prompt = encode_prompt(tokenizer, ROWS[0].prompt)
    sft, dpo = row.as_sft(), pair.as_preference()
    assert sft["input_ids"][: len(prompt)] == prompt == dpo["prompt_ids"]
    assert sft["input_ids"][len(prompt) :] == dpo["chosen_ids"]


def test_the_answer_and_its_end_are_learned_and_the_prompt_is_not(tokenizer):
    (row, *_) = encode_rows(tokenizer, ROWS)
    labels = row.as_sft()["labels"]
    learned = [label for label in labels if label != IGNORED]
    assert labels[: len(row.prompt)] == [IGNORED] * len(row.prompt)
    assert learned == encode_completion(tokenizer, ROWS[0].completion)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content }}",
        "{% for m in messages %}[{{ m.content }}]{% endfor %}",
    ],
)
def test_a_template_without_an_end_token_falls_back_to_eos(tokenizer, template):
    tokenizer.chat_template = template
    assert end_of_answer(tokenizer) == tokenizer.eos_token_id
