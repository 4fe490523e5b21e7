"""Memory and time of 100 steps of SFT and of DPO on a CPU, through our own training.

    OMP_NUM_THREADS=1 python benchmarks/hundred_steps.py [--steps 100] [--prompt 512] [--answer 64]

makes a small random model in the shape of Qwen2.5-Coder with the tokenizer of
`builtin:tiny`, and trains LoRA adapters on it with frozen weights in fp32 and in 4 bits:
what `[sft]` and `[dpo]` do with their defaults, of two rows in a step, without
checkpoints. Each training has a process of its own, whose largest size is given, beside
what it was before the first step. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.models.tiny import tiny_directory
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.types import AnswerRef, Pair, SftRow, Status

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
BATCH = 2
WORDS = [
    "def",
    "return",
    "self",
    "value",
    "none",
    "if",
    "not",
    "in",
    "items",
    "result",
    "index",
    "count",
    "name",
    "path",
]


def write_model(folder: Path) -> None:
    """The model that every training begins with."""
    import shutil

    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shutil.copytree(tiny_directory(), folder)
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**ARCHITECTURE)).save_pretrained(folder)


def make_texts(count: int, prompt: int, answer: int) -> list[tuple[str, str, str]]:
    """Prompts, chosen and rejected answers of about so many tokens."""
    chance = random.Random(0)  # noqa: S311  # no secret

    def text(tokens: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(tokens * 2 // 3))

    return [(text(prompt), text(answer), text(answer)) for _ in range(count)]


def train(stage: str, quantization: str, model: Path, sizes: list[int]) -> None:
    """One training, in this process; prints its figures as JSON."""
    steps, prompt, answer = sizes
    table = HfTable(name=str(model), quantization=quantization)  # type: ignore[arg-type]  # pydantic checks it
    texts = make_texts(steps * BATCH, prompt, answer)
    began: list[tuple[float, float, float]] = []

    def step(*_: object) -> None:
        began.append((time.perf_counter(), time.process_time(), _peak()))

    keys: dict[str, Any] = {"batch_size": BATCH, "save_every": 0, "epochs": 1}
    with tempfile.TemporaryDirectory() as scratch:
        request = TrainRequest(Path(scratch), None, 1 << 15, 0, step)
        started = time.perf_counter(), _peak()
        if stage == "SFT":
            rows = [SftRow(str(n), p, c) for n, (p, c, _) in enumerate(texts)]
            train_sft(table, rows, SftTable(**keys), request)
        else:
            sources = AnswerRef.gold(), AnswerRef.of_sample(0)
            pairs = [
                Pair(str(n), p, c, r, "bench", *sources, Status.UNRESOLVED)
                for n, (p, c, r) in enumerate(texts)
            ]
            train_dpo(table, pairs, DpoTable(**keys), request)
        audit = json.loads((Path(scratch) / "audit.json").read_text())
    first, last = began[0], began[-1]
    print(
        json.dumps(
            {
                "before": started[1],
                "start": first[0] - started[0],
                "wall": last[0] - first[0],
                "busy": last[1] - first[1],
                "peak": _peak(),
                "moved": audit["moved"],
                "loss": audit["loss"],
                "longest": audit["longest"],
            }
        )
    )


def _peak() -> float:
    """Largest size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(stage: str, quantization: str, model: Path, sizes: list[int]) -> None:
    """Prints a row of the table."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", stage, quantization]
    done = subprocess.run(
        [*command, str(model), *map(str, sizes)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    got = json.loads(done.stdout.splitlines()[-1])
    weights = "fp32" if quantization == "none" else "4 bits"
    cells = [
        f"{stage}, {sizes[0]} steps, LoRA on {weights}",
        f"{got['longest']}",
        f"{got['start']:.1f} s",
        f"{got['wall']:.1f} s",
        f"{got['busy']:.1f} s",
        f"{got['before']:.0f} MB",
        f"{got['peak']:.0f} MB",
        f"{got['moved']:.1%}",
        f"{got['loss']:.4f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measures and prints."""
    if sys.argv[1:2] == ["--one"]:
        stage, quantization, model, *sizes = sys.argv[2:]
        train(stage, quantization, Path(model), [int(size) for size in sizes])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of a prompt")
    parser.add_argument("--answer", type=int, default=64, help="tokens of an answer")
    options = parser.parse_args()
    names = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    libraries = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"{platform.platform()}, Python {platform.python_version()}, {libraries}\n")
    print(
        "| training | longest row | until the first step was done | the others "
        "| of the processor | memory before | largest | adapter moved | last loss |\n"
        + "| --- " * 9
        + "|"
    )
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        with silence_libraries():
            write_model(model)
        for stage in ("SFT", "DPO"):
            for quantization in ("none", "nf4"):
                sizes = [options.steps, options.prompt, options.answer]
                measure(stage, quantization, model, sizes)


if __name__ == "__main__":
    main()
