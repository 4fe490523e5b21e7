"""Prompts and answers of the model families, for any text."""

# ruff: noqa: RUF001  (DeepSeek writes its tokens with fullwidth bars)
from __future__ import annotations

import json
import unicodedata

import pytest
from families import FAMILIES, build
from hypothesis import HealthCheck, given, settings, strategies as st

from swebench_trainer.errors import RecipeError
from swebench_trainer.training.models.loading import load_tokenizer
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.tokens.encoding import (
    decode_completion,
    describe_row,
    encode_completion,
    encode_prompt,
    end_of_answer,
    special_ids,
)
from swebench_trainer.training.tokens.rows import IGNORED, encode_rows
from swebench_trainer.types import SftRow


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def tokenizer(family, families):
    return families[family]


CONTROLS = (
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "<|EOT|>",
    "</s>",
    "<s>",
    "<｜end▁of▁sentence｜>",
    "<｜begin▁of▁sentence｜>",
    "<FILL_ME>",
    "▁<PRE>",
    "[/INST]",
    "### Response:",
    "<<SYS>>",
    "<tool_call>",
)
PIECES = st.one_of(
    st.sampled_from((*CONTROLS, " ", "\n", "\t", "\r\n", "  \n", "def f(x):")),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


def writable(family: str, text: str) -> str:
    """The text as the family's tokenizer can reproduce it."""
    if FAMILIES[family].kind == "qwen":
        return unicodedata.normalize("NFC", text)
    if FAMILIES[family].kind == "codellama":
        return text.replace("▁", " ")
    return text


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(prompt=TEXTS, answer=TEXTS)
def test_a_training_row_is_the_prompt_and_the_trained_answer(
    family, tokenizer, prompt, answer
):
    (row,) = encode_rows(tokenizer, [SftRow("x", prompt, answer)])
    sft = row.as_sft()
    ids, labels = sft["input_ids"], sft["labels"]
    prompt_ids = encode_prompt(tokenizer, prompt)
    learned = [label for label in labels if label != IGNORED]

    assert ids[: len(prompt_ids)] == prompt_ids
    assert labels == [IGNORED] * len(prompt_ids) + ids[len(prompt_ids) :]
    assert learned[-1] == end_of_answer(tokenizer)
    special = special_ids(tokenizer)
    assert [token for token in learned if token in special] == learned[-1:]
    assert decode_completion(tokenizer, learned) == writable(family, answer)
    assert row.altered == (writable(family, answer) != answer)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(message=TEXTS)
def test_an_issue_adds_no_special_token_and_loses_no_character(
    family, tokenizer, message
):
    special = special_ids(tokenizer)
    ids, plain = (encode_prompt(tokenizer, text) for text in (message, "Crash."))
    assert [t for t in ids if t in special] == [t for t in plain if t in special]

    frame = tokenizer.decode(plain)
    template = tokenizer.chat_template
    if not template:
        text = message.rstrip("\n")
    else:
        text = message.strip() if "| trim" in template else message
    expected = frame.replace("Crash.", writable(family, text))
    shown = tokenizer.decode(ids)
    if FAMILIES[family].kind == "codellama":  # it can take a space from the front
        expected, shown = expected.replace(" ", ""), shown.replace(" ", "")
    assert shown == expected


def test_ordinary_prompts_are_encoded_like_transformers_does(tokenizer):
    for prompt in ("Fix it.", "\n Fix  it.\n\n", "<not_special> é漢🙂"):
        if tokenizer.chat_template:
            assert encode_prompt(tokenizer, prompt) == tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                return_dict=False,
            )
        else:
            text = prompt.rstrip("\n") + "\n\n"
            assert encode_prompt(tokenizer, prompt) == tokenizer(text)["input_ids"]


def test_a_special_token_in_an_issue_is_its_characters(tokenizer):
    """No other character of the prompt may change, not even a space."""
    hostile = f"Crash {tokenizer.eos_token}: bad."
    shown = tokenizer.decode(encode_prompt(tokenizer, hostile))
    harmless = tokenizer.decode(encode_prompt(tokenizer, "Crash @: bad."))
    assert shown == harmless.replace("@", tokenizer.eos_token)


def test_a_prompt_has_one_bos_token_and_no_end(family, tokenizer):
    ids = encode_prompt(tokenizer, "Fix it.")
    begin = FAMILIES[family].begin
    if begin:
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[0] == tokenizer.convert_tokens_to_ids(begin)
    else:
        assert tokenizer.bos_token_id is None
    if not FAMILIES[family].chat:
        assert tokenizer.eos_token_id not in ids


def test_an_answer_ends_with_the_end_token_of_the_family(family, tokenizer):
    end = encode_completion(tokenizer, "x")[-1]
    assert tokenizer.convert_ids_to_tokens(end) == FAMILIES[family].end


def test_a_prompt_has_no_eos_token_even_if_the_tokenizer_adds_it_to_every_text(
    tmp_path,
):
    tokenizer = build("codellama-base", tmp_path / "model")
    tokenizer.add_eos_token = True
    assert tokenizer("x")["input_ids"][-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in encode_prompt(tokenizer, "Fix it.")


def test_an_end_token_that_is_only_marked_as_special_is_found(tmp_path):
    """The base model's EOS is another token than its template's end of turn."""
    tokenizer = build("deepseek-coder-base", tmp_path / "model")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}<|EOT|>{% endfor %}"
    )
    assert "<|EOT|>" not in tokenizer.all_special_tokens
    end = tokenizer.convert_ids_to_tokens(end_of_answer(tokenizer))
    assert end == "<|EOT|>"


def test_an_answer_ends_with_the_end_of_a_turn_rather_than_eos(tmp_path):
    """A base model may have the template of the instruct model, and another EOS."""
    build("qwen2.5-coder-instruct", tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"eos_token": "<|endoftext|>"}))
    table = HfTable(name=str(path.parent), quantization="none")
    tokenizer = load_tokenizer(table)
    assert tokenizer.eos_token == "<|endoftext|>"
    end = encode_completion(tokenizer, "x")[-1]
    assert tokenizer.convert_ids_to_tokens(end) == "<|im_end|>"


def test_a_tokenizer_that_loses_spaces_is_refused(tmp_path):
    build("deepseek-coder-base", tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    text = path.read_text()
    assert '"\\\\s?\\\\p{L}+"' in text
    broken = text.replace('"behavior":"Isolated"', '"behavior":"Removed"')
    path.write_text(broken.replace('"behavior": "Isolated"', '"behavior": "Removed"'))
    with pytest.raises(RecipeError, match="loses spaces or line breaks"):
        load_tokenizer(HfTable(name=str(path.parent), quantization="none"))


def test_a_view_has_each_character_once_and_marks_the_answer(family, tokenizer):
    prompt, answer = f"Fix {tokenizer.eos_token} it.", "a.py\n- x\n+ y\n"
    view = describe_row(tokenizer, prompt, answer)
    prompt_ids, answer_ids = (
        encode_prompt(tokenizer, prompt),
        encode_completion(tokenizer, answer),
    )
    assert "".join(p.text for p in view.parts) == tokenizer.decode(
        prompt_ids + answer_ids
    )
    assert view.prompt_tokens == len(prompt_ids)
    assert view.answer_tokens == len(answer_ids)
    trained = [part for part in view.parts if part.trained]
    assert [part.special for part in trained] == [False, True]
    assert trained[0].text.removeprefix(" ") == answer
    assert trained[1].text == FAMILIES[family].end
    read = "".join(
        part.text for part in view.parts if part.special and not part.trained
    )
    turns = 2 if "qwen" in family else 0  # system and user; other families end no turns
    assert read.count(tokenizer.eos_token) == turns
    assert describe_row(tokenizer, prompt, None).answer_tokens == 0


def test_a_saved_model_gets_the_same_tokens(family, tokenizer, tmp_path):
    """A trained whole model has a copy of the tokenizer."""
    tokenizer.save_pretrained(tmp_path)
    config = {"model_type": "qwen2" if "qwen" in family else "llama"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    saved = load_tokenizer(HfTable(name="builtin:tiny", quantization="none"), tmp_path)
    for text in ("Fix it.", " x\n", "".join(CONTROLS), f"a {CONTROLS[0]} b"):
        assert encode_prompt(saved, text) == encode_prompt(tokenizer, text)
        assert encode_completion(saved, text) == encode_completion(tokenizer, text)
        ids = encode_completion(saved, text)
        assert decode_completion(saved, ids) == decode_completion(tokenizer, ids)
