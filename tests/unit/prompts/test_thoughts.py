"""Drafts in thoughts never reach the patch, whatever markup the model uses."""

from __future__ import annotations

import pytest
from damage import Memory
from hypothesis import given, settings, strategies as st

from swebench_trainer.answers.diffs import ExtractedPatch
from swebench_trainer.answers.forms import AnswerForm, extract_patch
from swebench_trainer.answers.markup import is_markup_token

FORMS: tuple[AnswerForm, ...] = ("search-replace", "diff")
TREE = {"calc.py": b"add = 1\nmul = 2\n"}


def written(form: AnswerForm, old: str, new: str) -> str:
    """A patch of one line in an answer format, ending with its last line."""
    if form == "diff":
        return (
            f"--- a/calc.py\n+++ b/calc.py\n@@ -1,2 +1,2 @@\n-{old}\n+{new}\n mul = 2\n"
            if old.startswith("add")
            else f"--- a/calc.py\n+++ b/calc.py\n@@ -1,2 +1,2 @@\n add = 1\n-{old}\n+{new}\n"
        )
    return f"calc.py\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


def draft(form: AnswerForm) -> str:
    return written(form, "mul = 2", "mul = 0")


def final(form: AnswerForm) -> str:
    return written(form, "add = 1", "add = 3")


def extracted(form: AnswerForm, text: str, finish: str = "stop") -> ExtractedPatch:
    return extract_patch(form, text, Memory(TREE), finish=finish)


def is_right(found: ExtractedPatch) -> bool:
    return "+add = 3" in found.patch and "mul = 0" not in found.patch


FINAL = "<|start|>assistant<|channel|>final"
MARKUP = (
    ("<think>", "</think>"),
    ("<THINK>", "</Think>"),
    ("<think>\n<think>", "</think>\n</think>"),
    ('<think effort="high">', "</think>"),
    ("< think >", "< / think >"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<analysis>", "</analysis>"),
    ("<inner_monologue>", "</inner_monologue>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<ifm|think_fast>", "</ifm|think_fast>"),
    ("<think>", "</think>\n<answer>"),
    ("<think>", "</think>\n<response>"),
    ("[THINK]", "[/THINK]"),
    ("[think]", "[/think]"),
    ("[unused16]", "[unused17]"),
    ("<unused94>thought\n", "<unused95>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|begin_of_thought|>", "<|end_of_thought|>\n\n<|begin_of_solution|>"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_TEXT|>"),
    ("<|think|>", "<|end|><|begin|>assistant<|content|>"),
    ("<|think:start|>", "<|think:end|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    ("<|content_thinking|>", "<|end_message|><|message_model|><|content_text|>"),
    (
        "<|open|>think<|sep|>",
        "<|close|>think<|sep|><|open|>response<|sep|>",
    ),
    ("<|channel|>analysis<|message|>", f"<|end|>{FINAL}<|message|>"),
    ("<|channel|>analysis<|message|>", f"<|end|>{FINAL} <|constrain|>diff<|message|>"),
    ("<|channel|>commentary<|message|>", f"<|end|>{FINAL}<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("to=self<|message|>", "<|eom|><|start|>assistant to=user<|message|>"),
    ("<|im_start|>think\n", "<|im_start|>answer\n"),
    ("/think\n", "<|im_end|>\n<|im_start|>assistant\n"),
    ("analysis", "assistantfinal"),
    ("Here is my thought process:", "\nHere is my response:"),
    ("Here's my thought process:", "\nHere's my response:"),
    ("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]\n"),
)
LAYOUTS = {
    "on lines of their own": "{opening}\nMaybe.\n{draft}No.\n{closing}\n{final}",
    "glued": "{opening}Maybe\n{draft}no.{closing}{final}",
    "after the last line of a draft": "{opening}\n{bare}{closing}\n{final}",
    "with words behind": "{opening}\n{draft}\n{closing} Here it is:\n{final}\nDone.\n",
    "opened in the prompt": "Maybe.\n{draft}\nNo.\n{closing}\n\n{final}",
    "a list in the thought": "{opening}\n- one\n{draft}\n- so no.{closing}\n{final}",
}


def laid_out(layout: str, form: AnswerForm, opening: str, closing: str) -> str:
    return LAYOUTS[layout].format(
        opening=opening,
        closing=closing,
        draft=draft(form),
        bare=draft(form).rstrip(),
        final=final(form),
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_follows_the_last_thought_is_the_answer(form, layout) -> None:
    for opening, closing in MARKUP:
        text = laid_out(layout, form, opening, closing)
        found = extracted(form, text)
        # One turn ends another only if a thought came before; these are refused.
        unknown = opening == "/think\n" and layout == "opened in the prompt"
        assert is_right(found) or (unknown and found.extraction.failed), text


@pytest.mark.parametrize("form", FORMS)
def test_a_thought_without_an_end_has_no_answer(form) -> None:
    for opening, _ in MARKUP:
        found = extracted(form, f"{opening}\n{draft(form)}\nPerhaps.", "length")
        assert found.extraction.failed and not found.patch, opening


UNKNOWN = (
    ("<ponder>", "</ponder>"),
    ("[DRAFT]", "[/DRAFT]"),
    ("<|musing|>", "<|speaking|>"),
    ("```thinking", "```"),
    ("# Draft", "## Final answer:"),
    ("thought\n", ""),
    ("think\n", ""),
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("opening", "closing"), UNKNOWN)
def test_a_draft_in_unknown_markup_is_refused(form, opening, closing) -> None:
    text = f"{opening}\nMaybe.\n{draft(form)}\nNo.\n{closing}\n{final(form)}"
    found = extracted(form, text)
    assert found.patch == ""
    assert found.extraction.reason == "a draft and the answer cannot be told apart"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text",
    [
        "{final}\n<think>Is it right?</think>\nDone.\n",
        "{final}\n<think>Or rather\n{draft}",
        "a</think>{final}</think>\n",
        "{final}<|im_end|>\n<|im_start|>assistant\n{draft}",
        "{final}\nThe </think> tag works now.\n",
    ],
)
def test_a_patch_that_may_be_a_draft_is_refused(form, text) -> None:
    found = extracted(form, text.format(final=final(form), draft=draft(form)))
    assert found.extraction.failed and not found.patch


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text",
    [
        "{final}\nIt closes `</think>` now.\n",
        '{final}\n```python\nre.sub(r"<think>.*?</think>", "")\n```\n',
        "A fix for <think> tags:\n{final}",
        "The `<|channel|>final<|message|>` header, and `[/THINK]`:\n{final}",
        "The final answer:\n{final}",
        "<result>\n{final}</result>\n",
        "{final}\n<think>\nDone.",
        "Analysis: it is wrong.\n{final}",
        "</think>\n\n{final}",
    ],
)
def test_a_mention_of_markup_changes_nothing(form, text) -> None:
    assert is_right(extracted(form, text.format(final=final(form))))


@pytest.mark.parametrize("form", FORMS)
def test_the_answer_in_tags_replaces_a_draft_outside_of_them(form) -> None:
    text = f"Draft:\n{draft(form)}\n<answer>\n{final(form)}</answer>\n"
    found = extracted(form, text)
    assert is_right(found) and "tags" in found.extraction.repairs


def test_a_closing_tag_at_the_end_of_a_hunk_may_be_content() -> None:
    tree = {"a.html": b"<p>\n", "b.html": b"<p>\n"}
    one = "--- a/a.html\n+++ b/a.html\n@@ -1 +1 @@\n-<p>\n+x</think>\n"
    alone = extract_patch("diff", one, Memory(tree), finish="stop")
    assert alone.patch == one
    both = extract_patch("diff", one + one.replace("a.html", "b.html"), Memory(tree))
    assert both.extraction.failed
    paired = one.replace("+x", "+<think>x")
    text = paired + paired.replace("a.html", "b.html")
    assert extract_patch("diff", text, Memory(tree), finish="stop").patch == text


def test_special_tokens_that_separate_thoughts_are_known() -> None:
    kept = (
        *("[THINK]", "[/THINK]", "<|channel|>", "<|message|>", "<|start|>", "<|end|>"),
        *("<|channel>", "<channel|>", "<|START_THINKING|>", "<|END_RESPONSE|>"),
        *("<unused95>", "<|inner_suffix|>", "<|open|>", "<|sep|>", "</think>"),
    )
    assert all(map(is_markup_token, kept))
    dropped = ("<|im_end|>", "<s>", "</s>", "<pad>", "<|fim_middle|>", "[INST]")
    assert not any(map(is_markup_token, dropped))


@pytest.mark.parametrize("form", FORMS)
@given(
    marks=st.sampled_from(MARKUP),
    layout=st.sampled_from(sorted(LAYOUTS)),
    before=st.text("ab -`<'\n", max_size=12),
    repeats=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_no_text_in_a_thought_brings_its_draft_into_the_patch(
    form, marks, layout, before, repeats
) -> None:
    opening, closing = marks
    text = laid_out(layout, form, opening, closing).replace(
        draft(form), (before + "\n" + draft(form)) * repeats
    )
    found = extracted(form, text)
    assert is_right(found) or not found.patch
