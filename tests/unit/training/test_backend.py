from __future__ import annotations

import pytest
from training_examples import DPO, FULL, LORA, PAIRS, QLORA, ROWS, SFT, request_in

from swebench_trainer import hf
from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.hf import HfBackend
from swebench_trainer.training.sft import train_sft


def backend_of(table) -> HfBackend:
    return HfBackend(table)


def answers(backend: HfBackend, weights) -> dict[str, Sample]:
    """Greedy answers to the prompts of ROWS."""
    sampler = backend.open_sampler(weights, batch_size=4)
    requests = [
        SampleRequest(r.instance_id, 0, r.prompt, 64, 0.0, 1.0, 0) for r in ROWS
    ]
    found = {s.instance_id: s for s in sampler.sample(requests)}
    sampler.close()
    return found


def memorized(backend: HfBackend, weights) -> int:
    """Number of rows whose answer equals the trained one byte for byte, and then ends."""
    found = answers(backend, weights)
    return sum(
        (found[r.instance_id].text, found[r.instance_id].finish)
        == (r.completion, "stop")
        for r in ROWS
    )


def test_the_tiny_model_memorizes_rows_and_keeps_them_in_dpo(tmp_path):
    backend = backend_of(FULL)
    sft = SFT.model_copy(update={"epochs": 24})
    dpo = DPO.model_copy(update={"learning_rate": 1e-5, "epochs": 2})
    first = backend.train_sft(ROWS, sft, request_in(tmp_path / "sft"))
    second = backend.train_dpo(PAIRS, dpo, request_in(tmp_path / "dpo", start=first))
    assert memorized(backend, None) == 0
    assert memorized(backend, first) == len(ROWS)
    assert memorized(backend, second) == len(ROWS)


@pytest.mark.parametrize("table", [LORA, QLORA], ids=["lora", "qlora"])
def test_an_adapter_changes_the_samples(trained, table):
    backend = backend_of(table)
    weights = trained(train_sft, table, ROWS, SFT)
    with_adapter, base = answers(backend, weights), answers(backend, None)
    assert all(with_adapter[key].text != base[key].text for key in base)


def test_nothing_is_written_to_the_terminal(tmp_path, capfd):
    backend = backend_of(LORA)
    sft = SFT.model_copy(update={"epochs": 1, "save_every": 1})
    dpo = DPO.model_copy(update={"epochs": 1})
    weights = backend.train_sft(ROWS, sft, request_in(tmp_path / "sft"))
    backend.train_dpo(PAIRS, dpo, request_in(tmp_path / "dpo", start=weights))
    memorized(backend, weights)
    assert capfd.readouterr() == ("", "")


def test_answers_also_stop_at_the_eos_token_of_the_generation_config(monkeypatch):
    seen = {}

    class Recorded(hf.TransformersSampler):
        def __init__(self, model, **options):
            seen.update(options)
            super().__init__(model, **options)

    monkeypatch.setattr(hf, "TransformersSampler", Recorded)
    HfBackend(FULL).open_sampler(None, batch_size=3)
    assert seen["stop"] == {1}
    assert seen["pad"] == 0
    assert seen["batch_size"] == 3


def test_the_backend_has_the_name_of_the_recipe():
    assert backend_of(FULL).name == "builtin:tiny"
