"""Instances rendered for the model: prompt and answer, built together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swebench_trainer.answers.forms import render_answer
from swebench_trainer.contents.errors import UnavailableError
from swebench_trainer.contents.library import Files
from swebench_trainer.contracts import Prompt, PromptInputs, PromptStyle
from swebench_trainer.errors import UnusableInstance
from swebench_trainer.prompts.edits import first_unshown_edit, gold_edits
from swebench_trainer.prompts.retrieval import RETRIEVED, Recall
from swebench_trainer.recipe.models import PromptTable
from swebench_trainer.store.spool import Spool
from swebench_trainer.types import Contents, DropReason, Instance


@dataclass(frozen=True)
class RenderedInstance:
    """The prompt and the answer of an instance.

    Attributes:
        answer: Target of SFT; `None` if the instance has none.
        no_answer: Why it has none.
        contents: Place where the repository's files were found.
    """

    prompt: Prompt
    answer: str | None
    no_answer: DropReason | None
    contents: Contents


class RenderedInstances:
    """The rendered instances, on disk because they may not fit into memory.

    Args:
        table: The recipe's `[prompt]`.
        style: Renders the prompts.
        tokens: Counts the tokens of a prompt.
        seed: Seed of the recipe.

    Attributes:
        unusable: Why an instance cannot be rendered, by instance id.
        missing: Ids of unusable instances whose files may be available another time.
        recall: Recall of a style that retrieves files.
    """

    def __init__(
        self,
        table: PromptTable,
        style: PromptStyle,
        tokens: Callable[[str], int],
        seed: int,
    ) -> None:
        self._table = table
        self._style = style
        self._context = getattr(style, "context", table.use)
        self._tokens = tokens
        self._seed = seed
        self.unusable: dict[str, DropReason] = {}
        self.missing: list[str] = []
        self.recall = Recall()
        self._rendered: Spool[RenderedInstance] = Spool()
        self._index: dict[str, int] = {}

    def add(self, instance: Instance, files: Files, *, required: bool = False) -> None:
        """Render an instance, or record why that is impossible.

        Args:
            instance: The instance.
            files: Files of its repository, opened if the style needs them.
            required: Whether the files are needed for any style.
        """
        try:
            if required:
                files.open()
            rendered = self._render(instance, files)
        except ValueError as error:
            self.unusable[instance.instance_id] = DropReason.of(error)
            if isinstance(error, UnavailableError):
                self.missing.append(instance.instance_id)
        else:
            self._index[instance.instance_id] = len(self._rendered)
            self._rendered.append(rendered)

    def __getitem__(self, instance_id: str) -> RenderedInstance:
        return self._rendered[self._index[instance_id]]

    def row(self, instance_id: str) -> dict[str, Any]:
        """The row of `prompts.jsonl`."""
        prompt = self[instance_id].prompt
        row = {"instance_id": instance_id, "context": self._context}
        shown = {} if prompt.shown is None else {"files": list(prompt.shown)}
        return {**row, **shown, **prompt.facts, "prompt": prompt.text}

    def _render(self, instance: Instance, files: Files) -> RenderedInstance:
        material = PromptInputs(files.open, self._tokens, self._seed)
        prompt = self._style.render(instance, material)
        answer = no_answer = None
        try:
            answer = _answer(self._table, instance, files, prompt)
        except ValueError as error:
            no_answer = DropReason.of(error)
        if RETRIEVED in prompt.facts:
            self.recall.add(instance.patch, prompt.facts[RETRIEVED])
        return RenderedInstance(prompt, answer, no_answer, files.place)


def _answer(
    table: PromptTable, instance: Instance, files: Files, prompt: Prompt
) -> str:
    """The gold patch in the answer format.

    Raises:
        ValueError: The format cannot express it, or the prompt does not show its lines.
    """
    form, context = table.answer, table.context_of(instance.instance_id)
    answer = render_answer(form, instance, files.local_tree(), context=context)
    if prompt.shown is not None:
        edits = gold_edits(form, instance, files.open(), context)
        if path := first_unshown_edit(edits, prompt.shown):
            reason = "the answer edits lines that the prompt does not show"
            raise UnusableInstance(reason, path)
    return answer
