"""SFT and DPO of a 7B model on one GPU, beside plain TRL: `python benchmarks/training.py --gpu`.

The model has the shape of Qwen2.5-Coder-7B and random weights, so that nothing is
downloaded; it is made layer by layer on the device and quantised to nf4 at once, so
that it never takes more room than it will. Random weights cost what trained ones do;
only losses mean nothing, but that the first is the same on both sides.

Rows of SFT are ragged and have up to 8,192 tokens; pairs of DPO have 8,192 + 512. Both
sides train LoRA of rank 32 on all linear layers. TRL's side has its defaults, with bf16
embeddings (it would take fp32) and rows of this length (it would cut them). Then the
adapters take 20 DPO steps of 1,024 + 128 tokens at 5e-7 and at 5e-6, kept in bf16 as TRL keeps them and in
fp32, and it is told how many of their elements have moved and how far the margins.

`--gpu --shape tiny --device cpu` runs the same code on a machine without a GPU, in fp32.
"""

from __future__ import annotations

import gc
import platform
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from swebench_trainer.training.batching import packing
from swebench_trainer.training.batching.microbatches import (
    Layout,
    all_rows_at_once,
    in_parts,
    packed,
)
from swebench_trainer.training.batching.shared_prefix import (
    SharedPrefixCollator,
    share_prefixes,
)
from swebench_trainer.training.loop import activation_checkpointing, guards
from swebench_trainer.training.loop.training import (
    exact_adapters,
    for_token_rows,
    keep_in_fp32,
)
from swebench_trainer.training.models.loading import base_of
from swebench_trainer.training.models.table import TARGETS
from swebench_trainer.training.models.tiny import tiny_directory
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.rows import IGNORED


@dataclass(frozen=True)
class Shape:
    """A model and what it reads.

    Attributes:
        config: Of a Qwen2.
        prompt: Tokens of a DPO prompt, and of the longest SFT row.
        answer: Tokens of a DPO answer.
        sft_rows: Rows of an SFT step.
        steps: Steps of a timed training, of which the first is not timed.
        moves: Steps of a training whose adapters are looked at.
    """

    config: dict[str, Any]
    prompt: int
    answer: int
    sft_rows: int = 8
    steps: int = 4
    moves: int = 20


SHAPES = {
    "7b": Shape(
        {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
        8192,
        512,
    ),
    "tiny": Shape(
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 1024,
        },
        64,
        8,
        sft_rows=4,
        steps=2,
        moves=2,
    ),
}


def make_model(shape: Shape, device: str) -> Any:
    """The same random nf4 weights every time, with adapters that seem trained on them."""
    import torch
    from accelerate import init_empty_weights
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    dtype = dtype_on(device)
    with init_empty_weights():
        model = Qwen2ForCausalLM(Qwen2Config(**shape.config))
    torch.manual_seed(0)
    for name, module in list(model.named_modules()):
        for key, weight in list(module.named_parameters(recurse=False)):
            values = torch.empty(weight.shape, dtype=dtype, device=device)
            values = values.fill_(1.0) if "norm" in name else values.normal_(std=0.02)
            module._parameters[key] = torch.nn.Parameter(values, requires_grad=False)
        for key, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[key] = buffer.to(device)
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            model.set_submodule(name, quantised(module))
    seem_quantised(model, device)
    config = LoraConfig(
        r=32, lora_alpha=64, target_modules=list(TARGETS), task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return model


def dtype_on(device: str) -> Any:
    """What the weights that are not quantised are kept and computed in."""
    import torch

    return torch.bfloat16 if device == "cuda" else torch.float32


def quantised(module: Any) -> Any:
    """A linear layer in 4 bits; its full weights are free when it takes their place."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    weight = module.weight.data
    layer = Linear4bit(
        module.in_features,
        module.out_features,
        bias=module.bias is not None,
        compute_dtype=weight.dtype,
        device="meta",
    )
    layer.weight = Params4bit(
        weight, requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to(weight.device)
    layer.bias = module.bias
    return layer


def seem_quantised(model: Any, device: str) -> None:
    """Sets what loading a quantised model would have set."""
    from transformers import BitsAndBytesConfig
    from transformers.quantizers import AutoHfQuantizer
    from transformers.utils.quantization_config import QuantizationMethod

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype_on(device),
    )
    model.is_loaded_in_4bit = model.is_quantized = True
    model.quantization_method = QuantizationMethod.BITS_AND_BYTES
    model.hf_quantizer = AutoHfQuantizer.from_config(config)
    model.config.quantization_config = config


def text(chance: random.Random, shape: Shape, length: int) -> list[int]:
    """Random tokens."""
    return [chance.randrange(3, shape.config["vocab_size"]) for _ in range(length)]


def sft_rows(shape: Shape) -> list[dict[str, list[int]]]:
    """Ragged rows, the longest of `prompt` tokens, the last sixteenth an answer."""
    chance = random.Random(0)  # noqa: S311  # no secret
    rows = []
    for number in range(shape.sft_rows * shape.steps):
        longest = number % shape.sft_rows == 0
        length = shape.prompt if longest else int(shape.prompt / 8 ** chance.random())
        ids = text(chance, shape, length)
        read = length - length // 16
        rows.append({"input_ids": ids, "labels": [IGNORED] * read + ids[read:]})
    return rows


def pairs(shape: Shape, count: int) -> list[dict[str, list[int]]]:
    """Pairs of a prompt each."""
    chance = random.Random(0)  # noqa: S311  # no secret
    return [
        {
            "prompt_ids": text(chance, shape, shape.prompt),
            "chosen_ids": text(chance, shape, shape.answer),
            "rejected_ids": text(chance, shape, shape.answer),
        }
        for _ in range(count)
    ]


def arguments(device: str, rows_at_once: int, rows: int, **more: Any) -> dict[str, Any]:
    """What both sides' configurations have."""
    return {
        "max_length": None,
        "per_device_train_batch_size": rows_at_once,
        "gradient_accumulation_steps": rows // rows_at_once,
        "use_cpu": device == "cpu",
        "bf16": device != "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": device != "cpu",
        **more,
    }


@dataclass(frozen=True)
class Run:
    """What a training took.

    Attributes:
        seconds: Of the steps, the first left out.
        peak: Bytes on the GPU at most; 0 where there is none.
        logs: Of the steps.
        level: Of activation checkpointing.
        moved: Share of the adapters' elements that are not what they were.
    """

    seconds: float
    peak: int
    logs: list[dict[str, float]]
    level: str
    moved: float


def run(trainer: Any, scratch: Path, exact: dict[str, Any] | None) -> Run:
    """Trains; with `exact` as a recipe trains, else as TRL does."""
    import torch
    from transformers import PrinterCallback, TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        times: tuple[float, ...] = ()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times += (time.perf_counter(),)

    clock, level = Clock(), "full"
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    if exact is not None:
        keep_in_fp32(trainer.model, exact)
        base = base_of(trainer.model)
        level = activation_checkpointing.settle(trainer, base, "auto", scratch)
    before = guards.sample_weights(trainer.model)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    after = guards.sample_weights(trainer.model)
    moved = sum(int((after[name] != old).sum()) for name, old in before.items())
    return Run(
        clock.times[-1] - clock.times[0],
        torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        [log for log in trainer.state.log_history if "loss" in log],
        level,
        moved / sum(old.numel() for old in before.values()),
    )


def sft(shape: Shape, device: str, *, ours: bool, rows_at_once: int = 1) -> Run:
    """An SFT of plain TRL or of packed rows."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = make_model(shape, device)
    trainer_class, exact = for_token_rows(SFTTrainer), None
    sizes = arguments(
        device, rows_at_once, shape.sft_rows, max_steps=shape.steps, learning_rate=2e-4
    )
    if ours:
        base = base_of(model)
        packing.attend_by_sequence(base)
        layout = Layout(
            shape.prompt,
            lambda row: len(row["input_ids"]),
            packed,
            packing.collator(base),
        )
        trainer_class = in_parts(trainer_class, layout)
        sizes = all_rows_at_once(sizes)
        exact = exact_adapters(model)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_class(
            model=model,
            args=SFTConfig(
                output_dir=scratch, activation_checkpointing=not ours, **sizes
            ),
            train_dataset=Dataset.from_list(sft_rows(shape)),
            processing_class=tokenizer(),
        )
        return run(trainer, Path(scratch), exact)


def dpo(
    shape: Shape, device: str, steps: int, *, shared: bool, fp32: bool, rate: float
) -> Run:
    """A DPO of plain TRL, or with prompts that are read once, or adapters in fp32."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model = make_model(shape, device)
    exact = exact_adapters(model) if fp32 else None
    sizes = arguments(
        device, 1, 1, max_steps=steps, learning_rate=rate, lr_scheduler_type="constant"
    )
    reader = tokenizer()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = for_token_rows(DPOTrainer)(
            model=model,
            args=DPOConfig(
                output_dir=scratch, activation_checkpointing=not fp32, **sizes
            ),
            train_dataset=Dataset.from_list(pairs(shape, steps)),
            processing_class=reader,
            data_collator=SharedPrefixCollator(reader.pad_token_id) if shared else None,
        )
        if shared:
            share_prefixes(base_of(trainer.model))
        return run(trainer, Path(scratch), exact)


def tokenizer() -> Any:
    """Any will do: rows are tokens already."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_directory())


def show_speed(what: str, tokens: int, run: Callable[[], Run]) -> None:
    """Prints a row of the table of speeds; a side may run out of memory."""
    import torch

    try:
        done = run()
    except torch.OutOfMemoryError:
        print(f"| {what} | out of memory |  |  |  |", flush=True)
        return
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    rate = f"{tokens / done.seconds:.0f}"
    losses = ", ".join(f"{log['loss']:.4f}" for log in done.logs)
    peak = f"{done.peak / 2**30:.1f} GiB" if done.peak else ""
    print(f"| {what} | {rate} | {peak} | {done.level} | {losses} |", flush=True)


def measure(shape: Shape, device: str) -> None:
    """Prints both tables."""
    rows = sft_rows(shape)
    later = (
        sum(len(row["input_ids"]) for row in rows) * (shape.steps - 1) // shape.steps
    )
    # Nominal: a pair is its prompt and both answers once, however often it is read.
    nominal = (shape.steps - 1) * (shape.prompt + 2 * shape.answer)
    print(
        "| training | tokens/s | peak memory | checkpointing | losses |\n"
        + "| --- " * 5
        + "|"
    )
    for many in (1, shape.sft_rows):
        show_speed(
            f"SFT, plain TRL, {many} rows at once",
            later,
            partial(sft, shape, device, ours=False, rows_at_once=many),
        )
    show_speed("SFT, packed", later, partial(sft, shape, device, ours=True))
    plain = partial(dpo, shape, device, shape.steps, rate=5e-6)
    show_speed("DPO, plain TRL", nominal, partial(plain, shared=False, fp32=False))
    show_speed("DPO, shared prefix", nominal, partial(plain, shared=True, fp32=True))

    print(
        f"\n{shape.moves} DPO steps\n\n| rate | adapters | moved | margin | last loss |\n"
        + "| --- " * 5
        + "|"
    )
    short = replace(
        shape, prompt=min(shape.prompt, 1024), answer=min(shape.answer, 128)
    )
    for rate in (5e-7, 5e-6):
        for fp32 in (False, True):
            done = dpo(short, device, shape.moves, shared=True, fp32=fp32, rate=rate)
            last = done.logs[-1]
            kept = "fp32" if fp32 else "bf16 (TRL)"
            print(
                f"| {rate:.0e} | {kept} | {done.moved:.1%} "
                f"| {last['rewards/margins']:.5f} | {last['loss']:.5f} |",
                flush=True,
            )


def report(shape: str, device: str) -> None:
    """Measures and prints."""
    import torch

    names = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    libraries = ", ".join(f"{name} {version(name)}" for name in names)
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{where}, Python {platform.python_version()}, {libraries}\n")
    with silence_libraries():
        measure(SHAPES[shape], device)
