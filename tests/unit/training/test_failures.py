"""What goes wrong around a training is said in two lines, and nothing is lost."""

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
    stop_after,
    tensors,
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
from swebench_trainer.training.models.loading import load_model, load_tokenizer
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries

EACH_STEP = SFT.model_copy(update={"save_every": 1})


def said(error: TrainerError) -> list[str]:
    """What the user reads: what went wrong, and the next step."""
    lines = str(error).splitlines()
    assert len(lines) == 2, lines
    return lines


def failing_at(number: int, error):
    """A progress callback inside the training that fails at a step."""

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
    what, hint = said(caught.value)
    longest = json.loads((tmp_path / "audit.json").read_text())["longest_kept"]
    assert f"{longest} tokens" in what
    assert "micro_batch is 2" in what
    assert "GiB" in what
    assert hint.startswith("Try [sft] micro_batch = 1, then ")
    assert hint.endswith(
        f"last checkpoint. Or [prompt] max_tokens below {longest} with --redo sft, or "
        '[model] quantization = "nf4" with --redo sft.'
    )


def test_only_keys_that_can_help_are_named(tmp_path):
    tried = {"needed": {"none": None, "full": 12 * 2**30}}
    (tmp_path / activation_checkpointing.FILE).write_text(json.dumps(tried))
    table = HfTable(name="builtin:tiny", checkpointing="full")
    with (
        pytest.raises(StageError) as caught,
        failures.training(table, DPO, {"longest_kept": 900}, tmp_path),
    ):
        out_of_gpu_memory()
    what, hint = said(caught.value)
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
def test_what_it_advises_is_accepted(settings, first):
    with (
        pytest.raises(StageError) as caught,
        failures.training(FULL, settings, {"longest_kept": 900}, Path()),
    ):
        out_of_gpu_memory()
    assert said(caught.value)[1].startswith(f"Try {first}")


def test_after_out_of_memory_the_training_goes_on_to_the_same_bits(tmp_path, trained):
    import torch

    weights = trained(train_sft, LORA, ROWS, EACH_STEP)
    straight = tensors(weights)
    request = request_in(tmp_path / "two", step=failing_at(4, out_of_memory))
    with pytest.raises(StageError, match="Out of memory"):
        train_sft(LORA, ROWS, EACH_STEP, request)
    steps = []
    request = request_in(tmp_path / "two", step=lambda done, *_: steps.append(done))
    again = tensors(train_sft(LORA, ROWS, EACH_STEP, request))
    assert steps == [4, 5, 6]
    assert all(torch.equal(t, again[name]) for name, t in straight.items())


def test_without_checkpointing_it_is_what_to_turn_on():
    with (
        pytest.raises(StageError) as caught,
        failures.training(FULL, SFT, {"longest_kept": 9}, Path()),
    ):
        out_of_gpu_memory()
    assert said(caught.value)[1].startswith("Try [model] checkpointing = ")


def test_a_gradient_that_is_no_number_stops_before_it_is_saved(tmp_path, monkeypatch):
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
    """What a full disk does to whoever writes, without filling one."""
    tiny.tiny_directory()  # which is not what is to fail
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [20_000, 150_000], ids=["adapter", "optimizer"])
def test_a_full_disk_costs_the_steps_since_the_last_checkpoint(tmp_path, trained, size):
    import torch

    weights = trained(train_sft, LORA, ROWS, EACH_STEP)
    straight = tensors(weights)
    out = tmp_path / "two"
    with pytest.raises(KeyboardInterrupt):
        train_sft(LORA, ROWS, EACH_STEP, request_in(out, step=stop_after(3)))
    with (
        pytest.raises(StageError, match="No space left") as caught,
        no_file_larger_than(size),
    ):
        train_sft(LORA, ROWS, EACH_STEP, request_in(out))
    what, hint = said(caught.value)
    assert str(out) in what
    assert failures.RESUME in hint
    steps = []
    request = request_in(out, step=lambda done, *_: steps.append(done))
    again = tensors(train_sft(LORA, ROWS, EACH_STEP, request))
    assert steps == [3, 4, 5, 6]
    assert all(torch.equal(t, again[name]) for name, t in straight.items())
    assert metrics(out) == metrics(weights.parent)


@pytest.mark.parametrize("table", [LORA, FULL], ids=["adapter", "model"])
def test_a_disk_too_full_for_the_weights_leaves_no_half_of_them(tmp_path, table):
    with (
        pytest.raises(StageError, match="No space left"),
        no_file_larger_than(20_000),
    ):
        train_sft(table, ROWS, SFT, request_in(tmp_path))
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "model").exists()
    assert train_sft(table, ROWS, SFT, request_in(tmp_path)).is_dir()


def test_a_tokenizer_on_a_full_disk_is_a_full_disk_too(tmp_path, tokenizer):
    """Its writer raises a plain Exception."""
    with (
        pytest.raises(StageError, match="No space left"),
        no_file_larger_than(1000),
        failures.training(FULL, SFT, {}, tmp_path),
    ):
        tokenizer.save_pretrained(tmp_path)


def test_a_disk_that_is_really_full(tmp_path):
    out = tmp_path / "small"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", str(out)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root alone")
    try:
        with pytest.raises(StageError, match="No space left"):
            train_sft(LORA, ROWS, EACH_STEP, request_in(out))
    finally:
        subprocess.run(["umount", str(out)], check=True)


# Models


@pytest.fixture
def model(tmp_path):
    """A model in a directory of its own."""
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
    assert model.name in said(caught.value)[0]


def test_weights_that_lack_some_are_not_filled_up_with_noise(model):
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
    assert "layers.1.mlp" in said(caught.value)[0]


def test_weights_of_another_config_are_refused(model):
    path = Path(model.name, "config.json")
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"intermediate_size": 200}))
    with (
        silence_libraries(),
        pytest.raises(RecipeError, match="do not have the shapes") as caught,
    ):
        load_model(model)
    said(caught.value)


def test_a_model_that_has_vanished_since_the_check_is_named(model):
    shutil.rmtree(model.name)
    for load in (load_model, load_tokenizer):
        with pytest.raises(RecipeError, match="does not exist"):
            load(model)


def test_a_tokenizer_without_an_end_is_refused(model):
    path = Path(model.name, "tokenizer_config.json")
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"eos_token": None}))
    with pytest.raises(RecipeError, match="no EOS token") as caught:
        load_tokenizer(model)
    assert "eos_token" in said(caught.value)[1]


def test_a_window_that_is_too_short_stops_before_the_first_step(model, tmp_path):
    path = Path(model.name, "config.json")
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"max_position_embeddings": 16}))
    with pytest.raises(RecipeError, match="context window is 16") as caught:
        train_sft(model, ROWS, SFT, request_in(tmp_path / "sft"))
    assert "max_tokens = 16" in said(caught.value)[1]
    assert not (tmp_path / "sft" / "metrics.jsonl").exists()


def test_a_model_that_is_larger_than_the_memory_is_named():
    with (
        pytest.raises(StageError, match="some/model does not fit") as caught,
        failures.loading("some/model"),
    ):
        out_of_memory()
    assert 'quantization = "nf4"' in said(caught.value)[1]


def test_other_errors_of_loading_keep_their_traceback():
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
def test_damaged_weights_of_sft_stop_dpo(tmp_path, sft_adapter, damage):
    start = shutil.copytree(sft_adapter, tmp_path / "adapter")
    damage(start)
    with pytest.raises(StageError, match="weights in") as caught:
        train_dpo(LORA, PAIRS, DPO, request_in(tmp_path / "dpo", start=start))
    what, hint = said(caught.value)
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
    said(caught.value)


# Packages


def said_with(package: Path, script: str) -> str:
    """What a script prints where `package` hides the installed one of its name."""
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


LOAD = """
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.training.models.loading import (load_trainable)
from swebench_trainer.training.models.table import HfTable
try:
    load_trainable(HfTable(name="builtin:tiny", quantization="none"), None, 0)
except PrerequisiteError as error:
    print(error)
"""


def test_a_bitsandbytes_that_does_not_load_is_named_whatever_it_is_needed_for(tmp_path):
    """peft imports it wherever it is installed."""
    (tmp_path / "bitsandbytes").mkdir()
    (tmp_path / "bitsandbytes" / "__init__.py").write_text(
        "raise OSError('libcudart.so.12: cannot open shared object file')"
    )
    what, hint = said_with(tmp_path, LOAD).splitlines()
    assert "bitsandbytes is installed but does not work: libcudart.so.12" in what
    assert 'quantization = "none"' in hint


CHECK = """
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.training.failures import require_bitsandbytes
require_bitsandbytes(gpu=False)
try:
    require_bitsandbytes(gpu=True)
except PrerequisiteError as error:
    print(error)
"""


def test_a_bitsandbytes_without_its_library_is_named_where_there_is_a_gpu(tmp_path):
    (installed,) = find_spec("bitsandbytes").submodule_search_locations
    shutil.copytree(
        installed,
        tmp_path / "bitsandbytes",
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    what, hint = said_with(tmp_path, CHECK).splitlines()
    assert "no library for CUDA" in what
    assert "python -m bitsandbytes" in hint


@pytest.mark.parametrize("name", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_needs_a_gpu(name):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(PrerequisiteError, match="needs a GPU") as caught:
        load_model(FULL.model_copy(update={"attention": name}))
    assert 'attention = "auto"' in said(caught.value)[1]
