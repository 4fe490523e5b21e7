"""Errors around a training have a message and a hint, and lose no steps."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from training_examples import (
    DPO,
    FULL,
    LORA,
    PAIRS,
    ROWS,
    SFT,
    metrics,
    request_in,
    same_weights,
    stop_after,
)

from swebench_trainer.errors import (
    PrerequisiteError,
    RecipeError,
    StageError,
    TrainerError,
)
from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.training import failures
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.loop import activation_checkpointing, guards
from swebench_trainer.training.models import tiny
from swebench_trainer.training.models.loading import (
    load_model,
    load_tokenizer,
    load_trainable,
)
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries

EACH_STEP = SFT.model_copy(update={"save_every": 1})


def shown(error: TrainerError) -> list[str]:
    """The message and the hint, as the user reads them."""
    lines = str(error).splitlines()
    assert len(lines) == 2, lines
    return lines


def failing_at(number: int, error):
    """A progress callback that fails at a step."""

    def step(done: int, _total: int, _word: str) -> None:
        if done == number:
            error()

    return step


def out_of_gpu_memory():
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def out_of_memory():
    """A real failure of torch's allocator."""
    import torch

    torch.empty(1 << 50)


# Memory


@pytest.mark.parametrize("error", [out_of_gpu_memory, out_of_memory])
def test_out_of_memory_names_the_numbers_and_the_keys(tmp_path, error):
    settings = SFT.model_copy(update={"micro_batch": 2})
    with pytest.raises(StageError, match="Out of memory") as caught:
        train_sft(LORA, ROWS, settings, request_in(tmp_path, step=failing_at(2, error)))
    what, hint = shown(caught.value)
    longest = json.loads((tmp_path / "audit.json").read_text())["longest_kept"]
    assert f"{longest} tokens" in what
    assert "micro_batch is 2" in what
    assert "GiB" in what
    assert hint.startswith("Try [sft] micro_batch = 1, then ")
    assert hint.endswith(
        f"last checkpoint. Or [prompt] max_tokens below {longest} with --redo sft, or "
        '[model] quantization = "nf4" with --redo sft.'
    )


def test_the_hint_names_only_keys_that_can_help(tmp_path):
    tried = {"needed": {"none": None, "full": 12 * 2**30}}
    (tmp_path / activation_checkpointing.FILE).write_text(json.dumps(tried))
    table = HfTable(name="builtin:tiny", checkpointing="full")
    with (
        pytest.raises(StageError) as caught,
        failures.training(table, DPO, {"longest_kept": 900}, tmp_path),
    ):
        out_of_gpu_memory()
    what, hint = shown(caught.value)
    assert "checkpointing = 'none' needs more than available" in what
    assert "checkpointing = 'full' needs about 12.0 GiB" in what
    assert hint == "Try [prompt] max_tokens below 900 with --redo sft."


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        (SftTable(batch_size=9, micro_batch=9), "[sft] micro_batch = 3, then"),
        (SftTable(micro_tokens=4000), "[sft] micro_tokens = 2000, then"),
        (SftTable(micro_tokens=1000), "[sft] micro_tokens = 900, then"),
        (SftTable(micro_tokens=800), "[model] checkpointing"),
        (
            DpoTable(batch_size=8, micro_batch=4, loss="kto"),
            '[model] checkpointing = "full"; the same command resumes from the last '
            "checkpoint. Or [dpo] micro_batch = 2 with --redo dpo, or [prompt]",
        ),
        (
            DpoTable(batch_size=8, micro_batch=2, loss="kto"),
            '[model] checkpointing = "full"; the same command resumes from the last '
            "checkpoint. Or [prompt]",
        ),
    ],
)
def test_the_suggested_values_are_valid(settings, first):
    with (
        pytest.raises(StageError) as caught,
        failures.training(FULL, settings, {"longest_kept": 900}, Path()),
    ):
        out_of_gpu_memory()
    assert shown(caught.value)[1].startswith(f"Try {first}")


def test_a_training_resumed_after_out_of_memory_ends_with_the_same_bits(
    tmp_path, sft_adapter
):
    request = request_in(tmp_path, step=failing_at(4, out_of_memory))
    with pytest.raises(StageError, match="Out of memory"):
        train_sft(LORA, ROWS, EACH_STEP, request)
    steps = []
    request = request_in(tmp_path, step=lambda done, *_: steps.append(done))
    assert same_weights(train_sft(LORA, ROWS, EACH_STEP, request), sft_adapter)
    assert steps == [4, 5, 6]


def test_the_hint_suggests_checkpointing_if_it_is_off():
    with (
        pytest.raises(StageError) as caught,
        failures.training(FULL, SFT, {"longest_kept": 9}, Path()),
    ):
        out_of_gpu_memory()
    assert shown(caught.value)[1].startswith("Try [model] checkpointing = ")


def test_a_nan_gradient_stops_the_training_before_a_checkpoint(tmp_path, monkeypatch):
    sample = guards.sample_weights

    def spoil(model):
        weight = next(p for p in model.parameters() if p.requires_grad)
        weight.register_hook(lambda gradient: gradient * float("nan"))
        return sample(model)

    monkeypatch.setattr(guards, "sample_weights", spoil)
    with pytest.raises(StageError, match="norm is nan at step 1"):
        train_sft(LORA, ROWS, EACH_STEP, request_in(tmp_path))
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))


def test_other_errors_keep_their_traceback(tmp_path):
    def bug():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_sft(LORA, ROWS, SFT, request_in(tmp_path, step=failing_at(1, bug)))


# Disk


@contextmanager
def no_file_larger_than(size: int):
    """Makes writes fail like on a full disk, without filling one."""
    tiny.tiny_directory()  # created before the limit
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [20_000, 150_000], ids=["adapter", "optimizer"])
def test_a_full_disk_costs_only_the_steps_since_the_last_checkpoint(
    tmp_path, sft_adapter, size
):
    with pytest.raises(KeyboardInterrupt):
        train_sft(LORA, ROWS, EACH_STEP, request_in(tmp_path, step=stop_after(3)))
    with (
        pytest.raises(StageError, match="No space left") as caught,
        no_file_larger_than(size),
    ):
        train_sft(LORA, ROWS, EACH_STEP, request_in(tmp_path))
    what, hint = shown(caught.value)
    assert str(tmp_path) in what
    assert failures.RESUME in hint
    steps = []
    request = request_in(tmp_path, step=lambda done, *_: steps.append(done))
    assert same_weights(train_sft(LORA, ROWS, EACH_STEP, request), sft_adapter)
    assert steps == [3, 4, 5, 6]
    assert metrics(tmp_path) == metrics(sft_adapter.parent)


@pytest.mark.parametrize("table", [LORA, FULL], ids=["adapter", "model"])
def test_a_disk_too_full_for_the_weights_leaves_no_partial_directory(tmp_path, table):
    with (
        pytest.raises(StageError, match="No space left"),
        no_file_larger_than(20_000),
    ):
        train_sft(table, ROWS, SFT, request_in(tmp_path))
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "model").exists()
    assert train_sft(table, ROWS, SFT, request_in(tmp_path)).is_dir()


def test_a_tokenizer_that_cannot_be_written_is_a_full_disk_too(tmp_path, tokenizer):
    """Its writer raises a plain Exception."""
    with (
        pytest.raises(StageError, match="No space left"),
        no_file_larger_than(1000),
        failures.training(FULL, SFT, {}, tmp_path),
    ):
        tokenizer.save_pretrained(tmp_path)


def test_a_small_file_system_that_fills_up_is_named(tmp_path):
    out = tmp_path / "small"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", str(out)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        with pytest.raises(StageError, match="No space left"):
            train_sft(LORA, ROWS, EACH_STEP, request_in(out))
    finally:
        subprocess.run(["umount", str(out)], check=True)


# Models


@pytest.fixture
def model(tmp_path):
    """A model in a separate directory."""
    tiny.write_tiny(tmp_path / "model")
    return HfTable(name=str(tmp_path / "model"), quantization="none")


def weights_of(table: HfTable) -> Path:
    return Path(table.name, "model.safetensors")


@pytest.mark.parametrize("kept", [5, 20_000, -10])
def test_truncated_weights_are_named(model, kept):
    path = weights_of(model)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RecipeError, match="are damaged") as caught:
        load_model(model)
    assert model.name in shown(caught.value)[0]


def test_missing_weights_are_not_initialized_at_random(model):
    from safetensors.torch import load_file, save_file

    path = weights_of(model)
    whole = load_file(path)
    save_file(
        {name: t for name, t in whole.items() if "layers.1.mlp" not in name},
        path,
        metadata={"format": "pt"},
    )
    with (
        silence_libraries(),
        pytest.raises(RecipeError, match="lack 3 of its weights") as caught,
    ):
        load_model(model)
    assert "layers.1.mlp" in shown(caught.value)[0]


def test_weights_that_do_not_match_the_config_are_refused(model):
    path = Path(model.name, "config.json")
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"intermediate_size": 200}))
    with (
        silence_libraries(),
        pytest.raises(RecipeError, match="do not have the shapes") as caught,
    ):
        load_model(model)
    shown(caught.value)


def test_a_model_removed_after_the_check_is_named(model):
    shutil.rmtree(model.name)
    for load in (load_model, load_tokenizer):
        with pytest.raises(RecipeError, match="does not exist"):
            load(model)


def test_a_tokenizer_without_an_eos_token_is_refused(model):
    path = Path(model.name, "tokenizer_config.json")
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"eos_token": None}))
    with pytest.raises(RecipeError, match="no EOS token") as caught:
        load_tokenizer(model)
    assert "eos_token" in shown(caught.value)[1]


def test_a_context_window_that_is_too_short_stops_before_the_first_step(
    model, tmp_path
):
    path = Path(model.name, "config.json")
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"max_position_embeddings": 16}))
    with pytest.raises(RecipeError, match="context window is 16") as caught:
        train_sft(model, ROWS, SFT, request_in(tmp_path / "sft"))
    assert "max_tokens = 16" in shown(caught.value)[1]
    assert not (tmp_path / "sft" / "metrics.jsonl").exists()


def test_a_model_that_does_not_fit_in_memory_is_named():
    with (
        pytest.raises(StageError, match="some/model does not fit") as caught,
        failures.loading("some/model"),
    ):
        out_of_memory()
    assert 'quantization = "nf4"' in shown(caught.value)[1]


def test_other_loading_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"), failures.loading("some/model"):
        raise RuntimeError("a bug")


# Weights of an earlier stage


def gone(adapter: Path) -> None:
    shutil.rmtree(adapter)


def emptied(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()


def cut(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def unreadable(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("{")


@pytest.mark.parametrize("damage", [gone, emptied, cut, unreadable])
def test_dpo_refuses_damaged_sft_weights(tmp_path, sft_adapter, damage):
    start = shutil.copytree(sft_adapter, tmp_path / "adapter")
    damage(start)
    with pytest.raises(StageError, match="weights in") as caught:
        train_dpo(LORA, PAIRS, DPO, request_in(tmp_path / "dpo", start=start))
    what, hint = shown(caught.value)
    assert str(start) in what
    assert "--redo" in hint


def test_an_adapter_of_another_model_is_refused(model, sft_adapter):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model.name, intermediate_size=200)
    AutoModelForCausalLM.from_config(config).save_pretrained(model.name)
    with (
        silence_libraries(),
        pytest.raises(StageError, match="another model") as caught,
    ):
        load_model(model, sft_adapter)
    shown(caught.value)


# Packages


def test_a_bitsandbytes_that_fails_to_import_is_named_even_without_quantization(
    tmp_path, monkeypatch
):
    """peft imports it whenever it is installed."""
    (tmp_path / "bitsandbytes").mkdir()
    (tmp_path / "bitsandbytes" / "__init__.py").write_text(
        "raise OSError('libcudart.so.12: cannot open shared object file')"
    )
    for name in [n for n in sys.modules if n.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PrerequisiteError) as caught:
        load_trainable(FULL, None, 0)
    what, hint = shown(caught.value)
    assert "bitsandbytes is installed but does not work: libcudart.so.12" in what
    assert 'quantization = "none"' in hint


def test_a_bitsandbytes_without_its_library_is_named_if_there_is_a_gpu(monkeypatch):
    from bitsandbytes import cextension

    missing = cextension.ErrorHandlerMockBNBNativeLibrary("no such file")
    monkeypatch.setattr(cextension, "lib", missing)
    failures.require_bitsandbytes(gpu=False)
    with pytest.raises(PrerequisiteError, match="no library for CUDA") as caught:
        failures.require_bitsandbytes(gpu=True)
    assert "python -m bitsandbytes" in shown(caught.value)[1]


CHECK = """
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.training.failures import require_bitsandbytes
require_bitsandbytes(gpu=False)
try:
    require_bitsandbytes(gpu=True)
except PrerequisiteError as error:
    print(error)
"""


@pytest.mark.slow
def test_an_installed_bitsandbytes_without_its_library_is_recognized(tmp_path):
    (installed,) = find_spec("bitsandbytes").submodule_search_locations
    shutil.copytree(
        installed,
        tmp_path / "bitsandbytes",
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHECK],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no library for CUDA" in done.stdout


@pytest.mark.parametrize("name", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_needs_a_gpu(name):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(PrerequisiteError, match="needs a GPU") as caught:
        load_model(FULL.model_copy(update={"attention": name}))
    assert 'attention = "auto"' in shown(caught.value)[1]
