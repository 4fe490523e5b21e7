from __future__ import annotations

import pytest
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from swebench_trainer.errors import StageError
from swebench_trainer.training.batching.shared_prefix import SharedPrefixCollator
from swebench_trainer.training.loop.guards import audit_collator
from swebench_trainer.training.tokens.rows import Encoded

END = 9
SFT = [
    Encoded("short", [1, 2], ([3, END],)),
    Encoded("long", [1, 2, 4], ([3, 5, 6, END],)),
]
PAIRS = [
    Encoded("short", [1, 2], ([3, END], [4, END])),
    Encoded("long", [1, 2, 4], ([3, 5, 6, END], [7, END])),
]


def test_the_sft_collator_trains_answers_and_their_end_tokens():
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    examples = [row.as_sft() for row in SFT]
    assert audit_collator(collate, examples, SFT, 2) == {"cut": 0, "collated": 2}


def test_prompts_must_be_trained_with_a_prompt_loss():
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    examples = [row.as_sft(prompt_loss=1) for row in SFT]
    audit_collator(collate, examples, SFT, 2, prompt_loss=True)
    with pytest.raises(
        StageError, match=r"tokens \(4\) differ from those of the rows \(6\)"
    ):
        audit_collator(collate, [row.as_sft() for row in SFT], SFT, 1, prompt_loss=True)


@pytest.mark.parametrize(
    "collate",
    [DataCollatorForPreference(pad_token_id=0), SharedPrefixCollator(0)],
    ids=["plain", "shared"],
)
def test_the_dpo_collators_train_both_answers_and_their_end_tokens(collate):
    examples = [row.as_preference() for row in PAIRS]
    assert audit_collator(collate, examples, PAIRS, 2) == {"cut": 0, "collated": 2}


def test_a_truncated_answer_is_detected():
    collate = DataCollatorForPreference(pad_token_id=0, max_length=6)
    examples = [row.as_preference() for row in PAIRS]
    with pytest.raises(
        StageError, match=r"tokens \(5\) differ from those of the rows \(6\)"
    ):
        audit_collator(collate, examples, PAIRS, 1)


def test_a_masked_end_token_is_detected():
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    examples = [row.as_sft() for row in SFT]
    examples[1]["labels"][-1] = -100
    with pytest.raises(StageError, match=r"tokens \(3\) .* rows \(4\)"):
        audit_collator(collate, examples, SFT, 1)


def test_a_trained_prompt_is_detected():
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    examples = [{"input_ids": row.as_sft()["input_ids"]} for row in SFT]
    with pytest.raises(StageError, match="or a prompt is"):
        audit_collator(collate, examples, SFT, 1)
