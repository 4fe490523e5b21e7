"""The transformers sampler beside plain `generate`, on the same prompts.

    python benchmarks/sampling.py [--models tiny 100m] [--prompt 768] [--answer 48] [--prompts 2]
    python benchmarks/sampling.py --load

The first prints a Markdown table: k = 8 answers to each prompt, all of one length (no
token ends an answer), drawn with the settings of `[generate]`. Plain transformers is
asked in two ways: one `generate` call for each answer, and one for each prompt with
`num_return_sequences = 8`. All three run in one process, in turns, on random weights.
Processor seconds are given too: other work on the machine changes them little.

`--load` is a part of what `recipes/from-scratch.toml` asks for: answers of about 110 of
at most 192 tokens by `builtin:small`, 64 at once.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from swebench_trainer.contracts import SampleRequest
from swebench_trainer.sampling.transformers import TransformersSampler
from swebench_trainer.training.models.tiny import tiny_directory
from swebench_trainer.training.silence import silence_libraries

SAMPLES = 8
TEMPERATURE, TOP_P = 0.8, 0.95
MEDIUM = {
    "vocab_size": 16384,
    "hidden_size": 768,
    "intermediate_size": 2304,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
"""A Qwen2 of 94 million parameters."""

Prompts = list[list[int]]
Took = tuple[float, float]
"""Seconds on the clock, and of the processor."""


def open_model(name: str) -> Any:
    """The same random weights every time."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    with silence_libraries():
        if name == "100m":
            model = Qwen2ForCausalLM(Qwen2Config(**MEDIUM))
        else:
            model = AutoModelForCausalLM.from_pretrained(
                tiny_directory(f"builtin:{name}")
            )
    return model.eval().requires_grad_(False)


def make_prompts(count: int, shortest: int, longest: int) -> Prompts:
    """Random tokens."""
    chance = random.Random(0)  # noqa: S311 - no secret
    return [
        [chance.randrange(3, 1024) for _ in range(chance.randint(shortest, longest))]
        for _ in range(count)
    ]


def ours(model: Any, prompts: Prompts, lengths: list[list[int]], batch: int) -> int:
    """Tokens written by our sampler."""
    requests = [
        SampleRequest(
            *(str(prompt), sample, str(prompt), length),
            *(TEMPERATURE, TOP_P, 1000 * prompt + sample),
        )
        for prompt, asked in enumerate(lengths)
        for sample, length in enumerate(asked)
    ]
    sampler = TransformersSampler(
        model,
        encode=lambda text: prompts[int(text)],
        decode=str,
        stop=frozenset(),
        pad=0,
        batch_size=batch,
    )
    return sum(sample.completion_tokens for sample in sampler.sample(requests))


def plain(model: Any, prompts: Prompts, answer: int, at_once: int) -> int:
    """Tokens written by `generate`, so many answers to a prompt in one call."""
    import torch

    tokens = 0
    for prompt in prompts:
        for _ in range(0, SAMPLES, at_once):
            with torch.inference_mode():
                output = model.generate(
                    input_ids=torch.tensor([prompt]),
                    attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                    do_sample=True,
                    temperature=TEMPERATURE,
                    top_p=TOP_P,
                    top_k=0,
                    num_return_sequences=at_once,
                    min_new_tokens=answer,
                    max_new_tokens=answer,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            tokens += output[:, len(prompt) :].numel()
    return tokens


def timed(write: Callable[[], int], expected: int) -> Took:
    """What it took to write so many tokens."""
    wall, busy = time.perf_counter(), time.process_time()
    written = write()
    took = time.perf_counter() - wall, time.process_time() - busy
    if written != expected:
        raise SystemExit(f"{written} tokens instead of {expected}")
    return took


def compare(name: str, options: argparse.Namespace) -> None:
    """Prints three rows."""
    model = open_model(name)
    shortest = options.prompt * 9 // 10
    prompts = make_prompts(options.prompts, shortest, options.prompt)
    lengths = [[options.answer] * SAMPLES] * len(prompts)
    expected = sum(map(sum, lengths))
    batch = SAMPLES * len(prompts)
    ways: dict[str, Callable[[], int]] = {
        "our sampler": lambda: ours(model, prompts, lengths, batch),
        "`generate`, a call for each prompt": lambda: plain(
            model, prompts, options.answer, SAMPLES
        ),
        "`generate`, a call for each answer": lambda: plain(
            model, prompts, options.answer, 1
        ),
    }
    took: dict[str, list[Took]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, write in ways.items():
            took[way].append(timed(write, expected))
    base = [
        statistics.median(seconds) for seconds in zip(*took["our sampler"], strict=True)
    ]
    for way, rounds in took.items():
        wall, busy = (
            statistics.median(seconds) for seconds in zip(*rounds, strict=True)
        )
        print(
            f"| {name} | {way} | {expected} | {wall:.2f} s | {busy:.2f} s "
            f"| {wall / base[0]:.1f} | {busy / base[1]:.1f} |",
            flush=True,
        )


def load(prompts: int) -> None:
    """Prints what a part of the answers of `from-scratch` takes, and the whole would."""
    model = open_model("small")
    chance = random.Random(1)  # noqa: S311 - no secret
    lengths = [
        [min(192, max(30, round(chance.gauss(110, 35)))) for _ in range(SAMPLES)]
        for _ in range(prompts)
    ]
    shown = make_prompts(prompts, 240, 360)
    wall, busy = timed(
        lambda: ours(model, shown, lengths, 64), sum(sum(asked) for asked in lengths)
    )
    times = 2400 / (prompts * SAMPLES)
    print(
        f"{prompts * SAMPLES} answers, {sum(map(sum, lengths))} tokens: {wall:.1f} s, "
        f"{busy:.1f} s of the processor; 2400 would take {busy * times:.0f} s of it"
    )


def main() -> None:
    """Prints the table, or what the load took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["tiny", "100m"])
    parser.add_argument("--prompt", type=int, default=768)
    parser.add_argument("--answer", type=int, default=48)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--load", action="store_true")
    options = parser.parse_args()
    import torch

    print(
        f"{platform.system()}, Python {platform.python_version()}, torch {version('torch')}, "
        f"transformers {version('transformers')}, {torch.get_num_threads()} threads\n"
    )
    if options.load:
        load(options.prompts)
        return
    print("| model | way | tokens | clock | processor | times ours | processor |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.models:
        compare(name, options)


if __name__ == "__main__":
    main()
