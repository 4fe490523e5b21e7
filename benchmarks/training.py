"""DPO steps with prompts that are read once, beside plain TRL on the same rows.

    python benchmarks/training.py [--prompt 2048] [--answer 128] [--rounds 3] [--pairs 1 4]

trains a small random Qwen2 with LoRA in fp32 on a CPU and prints a Markdown table.
Both sides are TRL's DPOTrainer with its defaults (activation checkpointing included),
except that `max_length` would drop rows as long as these; ours has the collator and
the forward that `[dpo] shared_prefix` puts in. They take turns, each round with the
same weights and rows, and their losses are compared. Processor seconds are given too:
with OMP_NUM_THREADS=1 other work on the machine changes them little.

`training_sft.py` goes on with packed SFT and the start of a training; `--gpu` runs
`training_gpu.py` instead, a model of 7B on a GPU.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from importlib.metadata import version
from typing import Any

from swebench_trainer.training.batching.shared_prefix import (
    SharedPrefixCollator,
    share_prefixes,
)
from swebench_trainer.training.models.tiny import tiny_directory
from swebench_trainer.training.silence import silence_libraries

ARCHITECTURE = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
STEPS = 3
"""Optimizer steps of one training, of which the first is not timed."""

Took = tuple[float, float]
"""Seconds on the clock, and of the processor."""


def make_rows(
    pairs: int, prompts: int, prompt: int, answer: int
) -> list[dict[str, list[int]]]:
    """Random pairs; answers are a quarter longer or shorter than `answer` tokens."""
    chance = random.Random(0)  # noqa: S311  # no secret

    def text(length: int) -> list[int]:
        return [chance.randrange(3, ARCHITECTURE["vocab_size"]) for _ in range(length)]

    def reply() -> list[int]:
        return text(chance.randint(answer * 3 // 4, answer * 5 // 4))

    known = [text(prompt) for _ in range(prompts)]
    gold = [reply() for _ in known]
    return [
        {
            "prompt_ids": known[number % prompts],
            "chosen_ids": gold[number % prompts],
            "rejected_ids": reply(),
        }
        for number in range(pairs)
    ]


def make_model() -> Any:
    """The same weights every time; the adapter is fresh, so the reference is the base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    return get_peft_model(Qwen2ForCausalLM(Qwen2Config(**ARCHITECTURE)), config)


def train(
    rows: list[dict[str, list[int]]], micro_batch: int, *, shared: bool
) -> tuple[list[Took], list[float]]:
    """What each step but the first took, and the loss of each."""
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from swebench_trainer.training.loop.training import for_token_rows

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def __init__(self) -> None:
            self.steps: list[Took] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wall, busy = self.start
            self.steps.append((time.perf_counter() - wall, time.process_time() - busy))

    tokenizer = AutoTokenizer.from_pretrained(tiny_directory())
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = for_token_rows(DPOTrainer)(
            model=make_model(),
            args=DPOConfig(
                output_dir=scratch,
                max_length=None,
                max_steps=STEPS,
                per_device_train_batch_size=micro_batch,
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
            processing_class=tokenizer,
            data_collator=SharedPrefixCollator(tokenizer.pad_token_id)
            if shared
            else None,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        if shared:
            share_prefixes(trainer.model.get_base_model())
        trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return clock.steps[1:], losses


def compare(
    what: str, rows: list[dict[str, list[int]]], micro_batch: int, rounds: int
) -> None:
    """Prints a row: medians, their ratio, and the largest difference of a loss."""
    steps: dict[bool, list[Took]] = {False: [], True: []}
    losses: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for shared in (False, True):
            took, lost = train(rows, micro_batch, shared=shared)
            steps[shared] += took
            losses[shared] += lost
    cells = []
    for times in zip(
        *(zip(*steps[s], strict=True) for s in (False, True)), strict=True
    ):
        plain, ours = map(statistics.median, times)
        cells += [f"{plain:.2f} s", f"{ours:.2f} s", f"{plain / ours:.2f}"]
    apart = max(abs(a - b) for a, b in zip(losses[False], losses[True], strict=True))
    cells += [f"{losses[False][-1]:.6f}", f"{losses[True][-1]:.6f}", f"{apart:.0e}"]
    print(f"| {what} | {' | '.join(cells)} | {len(steps[True])} |", flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", type=int, default=2048, help="tokens of a prompt")
    parser.add_argument("--answer", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each side")
    parser.add_argument(
        "--pairs", type=int, nargs="+", default=[1, 4], help="pairs of one prompt"
    )
    parser.add_argument("--gpu", action="store_true", help="see training_gpu.py")
    parser.add_argument("--shape", choices=("7b", "tiny"), default="7b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    if options.gpu:
        import training_gpu

        training_gpu.report(options.shape, options.device)
        return
    sizes = (options.prompt, options.answer)
    libraries = ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers", "trl"))
    print(f"{platform.platform()}, Python {platform.python_version()}, {libraries}\n")
    print(
        "| DPO step | plain TRL | shared prefix | ratio "
        "| processor: plain | shared | ratio "
        "| last loss: plain | shared | largest difference | steps |\n"
        + "| --- " * 11
        + "|"
    )
    with silence_libraries():
        for pairs in options.pairs:
            prompts = STEPS if pairs == 1 else 1
            what = f"{pairs} of one prompt" if pairs > 1 else "1 pair"
            compare(
                f"{what}, {sizes[0]} tokens, answers about {sizes[1]}",
                make_rows(pairs * prompts, prompts, *sizes),
                pairs,
                options.rounds,
            )


if __name__ == "__main__":
    main()
