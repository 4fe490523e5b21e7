"""SFT steps with packed rows, and the start of a training, beside plain TRL.

    python benchmarks/training_sft.py [--longest 1024] [--rounds 3] [--rows 16]

trains a small random Qwen2 with LoRA in fp32 on a CPU and prints Markdown tables. One
side is TRL's SFTTrainer with its defaults (8 rows of a micro-batch padded to the longest,
activation checkpointing), except that `max_length` would cut rows as long as these; the
other has the micro-batches and the attention of `[sft] packing`, with and without
checkpointing. All take the same steps of 8 rows from the same weights, in turns, and
their losses are compared. Lengths are ragged: log-uniform from a sixteenth of the longest
on. Useful tokens are those that are no padding.

Then the same texts are made ready to train on: by TRL, by us for the first time, and
from the cache. Processor seconds are given too: with OMP_NUM_THREADS=1 other work on
the machine changes them little.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training import Took, make_model

import swebench_trainer
from swebench_trainer.training.batching import packing
from swebench_trainer.training.batching.microbatches import Layout, in_parts, packed
from swebench_trainer.training.loop.training import for_token_rows
from swebench_trainer.training.models.tiny import tiny_directory
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.rows import IGNORED, encode_rows
from swebench_trainer.types import SftRow

BATCH = 8
"""Rows of an optimizer step: TRL's default."""

KINDS = ("plain TRL", "packed", "packed, nothing recomputed")


def make_rows(count: int, longest: int) -> list[dict[str, list[int]]]:
    """Random rows of ragged lengths, the last eighth of each an answer."""
    chance = random.Random(0)  # noqa: S311  # no secret
    rows = []
    for _ in range(count):
        length = int(longest / 16 ** chance.random())
        ids = [chance.randrange(3, 4096) for _ in range(length)]
        read = length - length // 8
        rows.append({"input_ids": ids, "labels": [IGNORED] * read + ids[read:]})
    return rows


def train(
    rows: list[dict[str, list[int]]], kind: str
) -> tuple[list[Took], list[float]]:
    """What each step took, and the loss of each."""
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def __init__(self) -> None:
            self.steps: list[Took] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wall, busy = self.start
            self.steps.append((time.perf_counter() - wall, time.process_time() - busy))

    clock, model, trainer_class = Clock(), make_model(), for_token_rows(SFTTrainer)
    if kind != "plain TRL":
        base = model.get_base_model()
        packing.attend_by_sequence(base)
        room = max(len(row["input_ids"]) for row in rows)
        layout = Layout(
            room, lambda row: len(row["input_ids"]), packed, packing.collator(base)
        )
        trainer_class = in_parts(trainer_class, layout)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_class(
            model=model,
            args=SFTConfig(
                output_dir=scratch,
                max_length=None,
                max_steps=len(rows) // BATCH,
                per_device_train_batch_size=BATCH,
                activation_checkpointing=kind != KINDS[-1],
                learning_rate=1e-4,
                use_cpu=True,
                bf16=False,
                dataloader_pin_memory=False,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(tiny_directory()),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return clock.steps, losses


def compare_steps(rows: list[dict[str, list[int]]], rounds: int) -> None:
    """Prints a row for each kind: useful tokens of a second, against plain TRL's."""
    steps: dict[str, list[Took]] = {kind: [] for kind in KINDS}
    losses: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            took, lost = train(rows, kind)
            steps[kind].append(tuple(map(sum, zip(*took, strict=True))))
            losses[kind] += lost
    tokens = sum(len(row["input_ids"]) for row in rows)
    print(
        f"\n{len(rows)} rows of {min(len(r['input_ids']) for r in rows)} to "
        f"{max(len(r['input_ids']) for r in rows)} tokens, {tokens / len(rows):.0f} on "
        f"average, {BATCH} a step\n\n"
        "| SFT | useful tokens/s | ratio | tokens per processor second | ratio "
        "| last loss | largest difference |\n" + "| --- " * 7 + "|"
    )
    rates: dict[str, list[float]] = {}
    for kind in KINDS:
        rates[kind] = [
            tokens / statistics.median(took) for took in zip(*steps[kind], strict=True)
        ]
        cells = [
            cell
            for mine, plain in zip(rates[kind], rates[KINDS[0]], strict=True)
            for cell in (f"{mine:.0f}", f"{mine / plain:.2f}")
        ]
        pairs = zip(losses[KINDS[0]], losses[kind], strict=True)
        apart = max(abs(a - b) for a, b in pairs)
        cells += [f"{losses[kind][-1]:.6f}", f"{apart:.0e}"]
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


def make_texts(count: int) -> list[SftRow]:
    """Pieces of our own source, as prompts and answers."""
    chance = random.Random(0)  # noqa: S311  # no secret
    files = sorted(Path(swebench_trainer.__file__).parent.rglob("*.py"))
    source = "".join(path.read_text(encoding="utf-8") for path in files)

    def piece(least: int, most: int) -> str:
        length = chance.randint(least, most)
        start = chance.randrange(len(source) - length)
        return source[start : start + length]

    return [SftRow(str(n), piece(4000, 16000), piece(300, 1500)) for n in range(count)]


def trl_start(rows: list[SftRow], tokenizer: Any) -> tuple[Took, Any]:
    """TRL's own preparation of prompts and answers: what it took, and its data set."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    taken: list[Took] = []

    class Timed(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
        def _prepare_dataset(self, *arguments: Any) -> Any:
            wall, busy = time.perf_counter(), time.process_time()
            data = super()._prepare_dataset(*arguments)
            taken.append((time.perf_counter() - wall, time.process_time() - busy))
            return data

    messages = [
        {
            "prompt": [{"role": "user", "content": row.prompt}],
            "completion": [{"role": "assistant", "content": row.completion}],
        }
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Timed(
            model=AutoModelForCausalLM.from_pretrained(tiny_directory()),
            args=SFTConfig(
                output_dir=scratch,
                max_length=None,
                use_cpu=True,
                bf16=False,
                report_to="none",
            ),
            train_dataset=Dataset.from_list(messages),
            processing_class=tokenizer,
        )
    return taken[0], trainer.train_dataset


def our_start(rows: list[SftRow], tokenizer: Any) -> tuple[Took, Any]:
    """From texts to the data set that `[sft]` trains on, and what that took."""
    from datasets import Dataset

    wall, busy = time.perf_counter(), time.process_time()
    data = Dataset.from_list([row.as_sft() for row in encode_rows(tokenizer, rows)])
    return (time.perf_counter() - wall, time.process_time() - busy), data


def compare_starts(count: int, rounds: int) -> None:
    """Prints a row for each way to begin; each begins in a process of its own."""
    import json
    import subprocess
    import sys

    ways = ("plain TRL", "first time", "from the cache")
    took: dict[str, list[Took]] = {way: [] for way in ways}
    tokens = 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            environment = {
                **os.environ,
                "XDG_CACHE_HOME": cache,
                "HF_DATASETS_CACHE": cache,
            }
            for way in ways:
                side = "trl" if way == "plain TRL" else "ours"
                command = [
                    sys.executable,
                    __file__,
                    "--start",
                    side,
                    "--texts",
                    str(count),
                ]
                done = subprocess.run(  # our own script
                    command, env=environment, capture_output=True, text=True, check=True
                )
                *seconds, tokens = json.loads(done.stdout.splitlines()[-1])
                took[way].append((seconds[0], seconds[1]))
    print(
        f"\n{count} rows of {tokens} tokens together\n\n"
        "| start | seconds | of TRL's | of the first time | processor seconds "
        "| of TRL's | of the first time |\n" + "| --- " * 7 + "|"
    )
    medians = {
        way: [statistics.median(times) for times in zip(*took[way], strict=True)]
        for way in ways
    }
    for way in ways:
        cells = [
            cell
            for n in (0, 1)
            for cell in (
                f"{medians[way][n]:.2f}",
                f"{medians[way][n] / medians[ways[0]][n]:.2f}",
                f"{medians[way][n] / medians[ways[1]][n]:.2f}",
            )
        ]
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


def start(side: str, count: int) -> None:
    """Begins once and prints what it took, without imports, tokenizer and model."""
    import json

    import datasets  # noqa: F401  # not to be timed
    from transformers import AutoTokenizer

    rows = make_texts(count)
    tokenizer = AutoTokenizer.from_pretrained(tiny_directory())
    tokenizer("to have it ready")
    took, data = {"trl": trl_start, "ours": our_start}[side](rows, tokenizer)
    print(json.dumps([*took, sum(map(len, data["input_ids"]))]))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--longest", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=32, help="rows to train on")
    parser.add_argument("--texts", type=int, default=200, help="rows to make ready")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each side")
    parser.add_argument("--start", choices=("trl", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    with silence_libraries():
        if options.start:
            start(options.start, options.texts)
            return
        names = ("torch", "transformers", "trl", "tokenizers")
        libraries = ", ".join(f"{name} {version(name)}" for name in names)
        print(f"{platform.platform()}, Python {platform.python_version()}, {libraries}")
        compare_starts(options.texts, options.rounds)
        compare_steps(make_rows(options.rows, options.longest), options.rounds)


if __name__ == "__main__":
    main()
