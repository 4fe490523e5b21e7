"""The style that shows the files which BM25 finds for the issue."""

from __future__ import annotations

from pydantic import PositiveInt

from swebench_trainer.contracts import Prompt, PromptInputs
from swebench_trainer.prompts.chosen import query, show_chosen
from swebench_trainer.prompts.recall import AT
from swebench_trainer.prompts.retrieval import Searcher
from swebench_trainer.recipe.models import ContextTable
from swebench_trainer.types import Instance


class Bm25Table(ContextTable):
    """`[prompt]` of the `bm25` style."""

    files: PositiveInt = 10
    """How many of the files that are found may be shown, the best first, as far as there is room."""


class Bm25Style:
    """The issue with the source files whose words are most like its own."""

    context = "bm25"

    def __init__(self, table: Bm25Table) -> None:
        self._table = table
        self._searcher = Searcher()

    def render(self, instance: Instance, material: PromptInputs) -> Prompt:
        """Whole files where there is room, else what is about the issue in them.

        Raises:
            ValueError: The repository's files cannot be had, or the issue is too long.
        """
        text = query(instance)
        ranked = self._searcher.rank(material.tree(), text)
        count = self._table.files
        recorded = ranked[: max(count, *AT)]
        return show_chosen(self._table, instance, material, recorded, count, text)
