"""The tiny model, offline and in a cache of the tests' own."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_examples import FULL, LORA, ROWS, SFT, request_in


@pytest.fixture(scope="session", autouse=True)
def _offline_and_apart(tmp_path_factory: pytest.TempPathFactory):
    """No network, no telemetry, and a cache of our own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture
def tokenizer():
    from swebench_trainer.training.models.loading import load_tokenizer

    return load_tokenizer(FULL)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """The weights of an uninterrupted training; equal trainings run only once."""
    finished: dict[tuple[str, ...], Path] = {}

    def weights_of(train, table, rows, settings, *, seed: int = 0) -> Path:
        parts = (table.model_dump_json(), settings.model_dump_json(), rows, seed)
        key = (train.__name__, *map(repr, parts))
        if key not in finished:
            out = tmp_path_factory.mktemp("trained")
            request = request_in(out, seed=seed)
            finished[key] = train(table, rows, settings, request)
        return finished[key]

    return weights_of


@pytest.fixture(scope="session")
def sft_adapter(trained) -> Path:
    """An adapter trained on ROWS."""
    from swebench_trainer.training.sft import train_sft

    return trained(train_sft, LORA, ROWS, SFT)


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory):
    """A tokenizer of each family of models, by name."""
    from families import FAMILIES, build

    folder = tmp_path_factory.mktemp("families")
    return {name: build(name, folder / name) for name in FAMILIES}
