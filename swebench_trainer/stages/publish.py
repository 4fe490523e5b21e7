"""publish: the last adapter with its card, released by the recipe's publisher."""

from __future__ import annotations

import shutil

from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import resolved_settings
from swebench_trainer.reporting.card import model_card
from swebench_trainer.reporting.summaries import read_evaluation, read_grading
from swebench_trainer.stages.context import StageContext, StageSummary
from swebench_trainer.store.jsonl import read_json, write_bytes, write_json


def run(context: StageContext) -> StageSummary:
    """Writes `release/` (weights and card) and `receipt.json`.

    Raises:
        StageError: There is nothing to publish.
    """
    recipe = context.recipe
    stage = "dpo" if context.weights("dpo") else "sft"
    weights = context.weights(stage)
    if weights is None:
        raise StageError("There are no trained weights to publish.")
    publisher = context.plugins.registry.create("publisher", recipe.publish)
    release = context.dir.file("release")
    shutil.rmtree(release, ignore_errors=True)
    shutil.copytree(weights, release)
    card = model_card(
        recipe.name,
        stage,
        settings=resolved_settings(recipe),
        summary=read_evaluation(context.run.stage("evaluate").file("summary.json")),
        candidates=read_grading(context.run.stage("grade").file("summary.json")),
        is_adapter=weights.name == "adapter",
        leakage=read_json(context.run.stage("prepare").file("leakage.json")),
    )
    write_bytes(release / "README.md", card.encode())
    place = publisher.publish(release)
    write_json(
        context.dir.file("receipt.json"),
        {
            "stage": stage,
            "place": place,
            "files": sorted(
                p.relative_to(release).as_posix()
                for p in release.rglob("*")
                if p.is_file()
            ),
        },
    )
    return {"weights": stage, "place": place}
