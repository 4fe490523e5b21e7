"""Recorded predictions in place of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from swebench_trainer.contracts import Sample, SampleOnly, SampleRequest
from swebench_trainer.recipe.models import ModelTable, RecipePath
from swebench_trainer.store.predictions import (
    Prediction,
    predictions_in,
    read_predictions,
)

Predictions = Annotated[RecipePath, AfterValidator(predictions_in)]
"""A file of predictions; for a folder, the file in it, which is fingerprinted by content."""


class ReplayTable(ModelTable):
    """Recorded predictions in the harness's format, in place of a model."""

    use: str = "replay"
    """Name of this backend."""
    path: Predictions | tuple[Predictions, ...]
    """Predictions as `.jsonl`, `.json`, or a submission folder (`all_preds.jsonl`, `preds.json`, or `logs/<instance>/patch.diff`). The n-th prediction of an instance over all paths is its n-th sample."""


class ReplayBackend(SampleOnly):
    """Recorded predictions of another system; samples only.

    Args:
        table: The recipe's `[model]`.
    """

    name = use = "replay"

    def __init__(self, table: ReplayTable) -> None:
        path = table.path
        self._paths = (path,) if isinstance(path, Path) else path

    def check(self) -> None:
        """Read every file.

        Raises:
            DataError: A file is invalid; the message names the line.
        """
        self._read()

    def open_sampler(self, weights: Path | None, *, batch_size: int) -> ReplaySampler:
        """Open the recorded predictions.

        Raises:
            PluginError: `weights` are given.
            DataError: A file is invalid.
        """
        if weights is not None:
            self.refuse("open trained weights")
        return ReplaySampler(self._read())

    def _read(self) -> list[Prediction]:
        return [row for path in self._paths for row in read_predictions(path)]


class ReplaySampler:
    """A `Sampler` over recorded predictions.

    Args:
        predictions: Predictions, in the order of an instance's samples.
    """

    def __init__(self, predictions: Sequence[Prediction]) -> None:
        self._recorded: dict[str, list[Prediction]] = defaultdict(list)
        for prediction in predictions:
            self._recorded[prediction.instance_id].append(prediction)

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`. Requests without a prediction are not answered."""
        for request in requests:
            recorded = self._recorded.get(request.instance_id, [])
            if request.sample < len(recorded):
                prediction = recorded[request.sample]
                yield Sample(
                    instance_id=request.instance_id,
                    sample=request.sample,
                    text=prediction.patch,
                    model=prediction.model,
                    patch=prediction.patch,
                )

    def close(self) -> None:
        """Free the predictions."""
        self._recorded.clear()
