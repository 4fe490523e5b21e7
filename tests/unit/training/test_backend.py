from __future__ import annotations

import pytest
from training_examples import DPO, FULL, LORA, PAIRS, QLORA, ROWS, SFT, request_in

from swebench_trainer import hf
from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.hf import HfBackend


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


def known_by_heart(backend: HfBackend, weights) -> int:
    """Rows whose answer is the one that was trained, byte for byte, and then ends."""
    found = answers(backend, weights)
    return sum(
        (found[r.instance_id].text, found[r.instance_id].finish)
        == (r.completion, "stop")
        for r in ROWS
    )


def test_the_tiny_model_learns_rows_by_heart_and_dpo_keeps_them(tmp_path):
    backend = backend_of(FULL)
    sft = SFT.model_copy(update={"epochs": 40})
    dpo = DPO.model_copy(update={"learning_rate": 1e-5, "epochs": 2})
    first = backend.train_sft(ROWS, sft, request_in(tmp_path / "sft"))
    second = backend.train_dpo(PAIRS, dpo, request_in(tmp_path / "dpo", start=first))
    assert known_by_heart(backend, None) == 0
    assert known_by_heart(backend, first) == len(ROWS)
    assert known_by_heart(backend, second) == len(ROWS)


@pytest.mark.parametrize("table", [LORA, QLORA], ids=["lora", "qlora"])
def test_an_adapter_changes_what_is_sampled(tmp_path, table):
    backend = backend_of(table)
    weights = backend.train_sft(ROWS, SFT, request_in(tmp_path))
    with_adapter, base = answers(backend, weights), answers(backend, None)
    assert all(with_adapter[key].text != base[key].text for key in base)


def test_nothing_is_written_to_the_terminal(tmp_path, capfd):
    backend = backend_of(LORA)
    settings = SFT.model_copy(update={"save_every": 1})
    weights = backend.train_sft(ROWS, settings, request_in(tmp_path / "sft"))
    backend.train_dpo(PAIRS, DPO, request_in(tmp_path / "dpo", start=weights))
    known_by_heart(backend, weights)
    assert capfd.readouterr() == ("", "")


def test_answers_also_stop_at_the_eos_of_the_models_own_config(monkeypatch):
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


def test_the_name_is_the_recipes():
    assert backend_of(FULL).name == "builtin:tiny"
