"""`pairs.jsonl` is in TRL's preference format, and TRL's own trainer reads it."""

from __future__ import annotations

import pytest

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.strategies import (
    SelfGenerated,
    SelfGeneratedTable,
)
from swebench_trainer.store.jsonl import write_rows
from swebench_trainer.types import Candidate, Instance, Status, Verdict, as_row


@pytest.mark.slow
def test_trl_trains_on_the_file(tmp_path, monkeypatch) -> None:
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    from swebench_trainer.training.models.loading import load_tokenizer, load_trainable
    from swebench_trainer.training.models.table import HfTable
    from swebench_trainer.training.silence import silence_libraries

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    table = HfTable(name="builtin:tiny", quantization="none", lora=False)
    graded = []
    for number in range(4):
        name = f"demo-{number}"
        instance = Instance(name, "demo/demo", "0", "It breaks.", "")
        ends = {"good": Status.RESOLVED, "bad": Status.UNRESOLVED}
        answers = tuple(
            (
                Candidate(name, sample, "m", f"{text} {number}", f"{text} patch"),
                Verdict(name, sample, "m", end),
            )
            for sample, (text, end) in enumerate(ends.items())
        )
        graded.append(GradedInstance(instance, f"Fix {number}.", "", answers))
    made = list(SelfGenerated(SelfGeneratedTable()).pairs(graded))
    write_rows(tmp_path / "pairs.jsonl", map(as_row, made))
    rows = load_dataset(
        "json",
        data_files=str(tmp_path / "pairs.jsonl"),
        split="train",
        cache_dir=str(tmp_path / "datasets"),
    )
    assert {"prompt", "chosen", "rejected", "tier"} <= set(rows.column_names)
    with silence_libraries():
        trainer = DPOTrainer(
            model=load_trainable(table, None, seed=0),
            args=DPOConfig(
                output_dir=str(tmp_path / "out"),
                max_steps=2,
                per_device_train_batch_size=2,
                save_strategy="no",
                logging_steps=1,
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                report_to="none",
            ),
            train_dataset=rows,
            processing_class=load_tokenizer(table),
        )
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 2 and losses[0] == pytest.approx(0.6931, abs=1e-3)
