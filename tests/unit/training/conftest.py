"""Trains the tiny model, offline and with a separate cache."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from training_examples import DPO, FULL, LORA, PAIRS, QLORA, ROWS, SFT, request_in

from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.sft import train_sft


@pytest.fixture(scope="session", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory):
    """Uses no network and a separate cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def _remember_installed_packages():
    """accelerate reads the metadata of peft from disk several times per step."""
    from accelerate.utils import imports

    with pytest.MonkeyPatch.context() as patch:
        remembered = functools.cache(imports._is_package_available)
        patch.setattr(imports, "_is_package_available", remembered)
        yield


@pytest.fixture
def tokenizer():
    from swebench_trainer.training.models.loading import load_tokenizer

    return load_tokenizer(FULL)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """Returns the weights of an uninterrupted training; equal trainings run only once."""
    finished: dict[tuple[str, ...], Path] = {}

    def weights_of(
        train, table, rows, settings, *, start: Path | None = None, seed: int = 0
    ) -> Path:
        parts = (table.model_dump_json(), settings.model_dump_json(), rows, start, seed)
        key = (train.__name__, *map(repr, parts))
        if key not in finished:
            out = tmp_path_factory.mktemp("trained")
            request = request_in(out, start=start, seed=seed)
            finished[key] = train(table, rows, settings, request)
        return finished[key]

    return weights_of


@pytest.fixture(scope="session")
def sft_adapter(trained) -> Path:
    """An adapter trained on ROWS."""
    return trained(train_sft, LORA, ROWS, SFT)


@pytest.fixture(scope="session")
def qlora_adapter(trained) -> Path:
    """An adapter for 4-bit weights, trained on ROWS."""
    return trained(train_sft, QLORA, ROWS, SFT)


@pytest.fixture(scope="session")
def sft_model(trained) -> Path:
    """A whole model trained on ROWS."""
    return trained(train_sft, FULL, ROWS, SFT)


@pytest.fixture(scope="session")
def dpo_adapter(trained, sft_adapter) -> Path:
    """An adapter trained on PAIRS, from the adapter trained on ROWS."""
    return trained(train_dpo, LORA, PAIRS, DPO, start=sft_adapter)


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory):
    """The tokenizer of each model family, by name."""
    from families import FAMILIES, build

    folder = tmp_path_factory.mktemp("families")
    return {name: build(name, folder / name) for name in FAMILIES}
