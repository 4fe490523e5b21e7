"""Packed SFT steps in one process or several; prints parts, losses and gradient norms."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile

from swebench_trainer.training.batching import packing
from swebench_trainer.training.batching.microbatches import Layout, in_parts, packed
from swebench_trainer.training.loop.training import for_token_rows
from swebench_trainer.training.models.loading import (
    base_of,
    load_tokenizer,
    load_trainable,
)
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.rows import IGNORED

BATCH = 8


def rows():
    chance = random.Random(0)
    for _ in range(3 * BATCH):
        ids = [chance.randrange(3, 500) for _ in range(chance.choice([8, 20, 60, 100]))]
        read = len(ids) // 2
        yield {"input_ids": ids, "labels": [IGNORED] * read + ids[read:]}


def main():
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    table = HfTable(name="builtin:tiny", quantization="none")
    model, parts = load_trainable(table, None, seed=0), []
    base = base_of(model)
    packing.attend_by_sequence(base)
    layout = Layout(
        100, lambda row: len(row["input_ids"]), packed, packing.collator(base)
    )

    class Counting(in_parts(for_token_rows(SFTTrainer), layout)):
        def training_step(self, model, inputs, items=None):
            parts.append(len(inputs["parts"]))
            return super().training_step(model, inputs, items)

    with tempfile.TemporaryDirectory() as scratch:
        trainer = Counting(
            model=model,
            args=SFTConfig(
                output_dir=scratch,
                max_length=None,
                per_device_train_batch_size=BATCH
                // int(os.environ.get("WORLD_SIZE", 1)),
                num_train_epochs=1,
                learning_rate=1e-3,
                use_cpu=True,
                bf16=False,
                dataloader_pin_memory=False,
                activation_checkpointing=False,
                logging_steps=1,
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(list(rows())),
            processing_class=load_tokenizer(table),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    found = {name: [log[name] for log in logs] for name in ("loss", "grad_norm")}
    sys.stdout.write(json.dumps({"parts": parts, **found}) + "\n")


if __name__ == "__main__":
    with silence_libraries():
        main()
