"""What instances become for the model: prompt and answer, made together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from swebench_trainer.answers.forms import render_answer
from swebench_trainer.contents.errors import UnavailableError
from swebench_trainer.contents.library import Files
from swebench_trainer.contracts import Prompt, PromptInputs, PromptStyle
from swebench_trainer.prompts.edits import gold_edits, unseen
from swebench_trainer.prompts.recall import Recall
from swebench_trainer.recipe.models import PromptTable
from swebench_trainer.store.spool import Spool
from swebench_trainer.types import Contents, Instance


@dataclass(frozen=True)
class Draft:
    """What an instance becomes for the model.

    Attributes:
        shown: The files that the prompt shows; `None` for a style that shows none.
        answer: What SFT would learn; empty if nothing, and then `untaught` says why.
        contents: Where the files of the repository were found.
        facts: See `Prompt`.
    """

    prompt: str
    shown: tuple[str, ...] | None
    answer: str
    untaught: str
    contents: Contents
    facts: Mapping[str, Any]


class Drafts:
    """The draft of each instance, on disk, for they may be many.

    Args:
        table: The recipe's `[prompt]`.
        style: What makes the prompts.
        tokens: Counts their tokens.
        seed: The recipe's.

    Attributes:
        unusable: Why an instance has no draft, by its id.
        missing: Those of them whose files cannot be had though the row is in order.
        recall: How well the style finds files, if it looks for some.
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
        self.unusable: dict[str, str] = {}
        self.missing: list[str] = []
        self.recall = Recall()
        self._drafts: Spool[Draft] = Spool()
        self._places: dict[str, int] = {}

    def add(self, instance: Instance, files: Files, *, required: bool = False) -> None:
        """Makes the draft of an instance, or notes why it cannot be.

        Args:
            instance: What the draft is of.
            files: Its repository's; opened if the style asks for them.
            required: Whether there is no draft without them in any case.
        """
        try:
            if required:
                files.open()
            draft = self._draft(instance, files)
        except ValueError as error:
            self.unusable[instance.instance_id] = str(error)
            if isinstance(error, UnavailableError):
                self.missing.append(instance.instance_id)
        else:
            self._places[instance.instance_id] = len(self._drafts)
            self._drafts.append(draft)

    def __getitem__(self, instance_id: str) -> Draft:
        return self._drafts[self._places[instance_id]]

    def row(self, instance_id: str) -> dict[str, Any]:
        """A row of `prompts.jsonl`."""
        draft = self[instance_id]
        row = {"instance_id": instance_id, "context": self._context}
        shown = {} if draft.shown is None else {"files": draft.shown}
        return {**row, **shown, **draft.facts, "prompt": draft.prompt}

    def _draft(self, instance: Instance, files: Files) -> Draft:
        material = PromptInputs(files.open, self._tokens, self._seed)
        prompt = self._style.render(instance, material)
        answer = untaught = ""
        try:
            answer = _answer(self._table, instance, files, prompt)
        except ValueError as error:
            untaught = str(error)
        if "retrieved" in prompt.facts:
            self.recall.add(instance.patch, prompt.facts["retrieved"])
        shown = None if prompt.shown is None else tuple(prompt.shown)
        return Draft(prompt.text, shown, answer, untaught, files.place, prompt.facts)


def _answer(
    table: PromptTable, instance: Instance, files: Files, prompt: Prompt
) -> str:
    """The gold patch as the model shall write it after reading the prompt.

    Raises:
        ValueError: It cannot, or ought not to.
    """
    form, context = table.answer, table.context_of(instance.instance_id)
    answer = render_answer(form, instance, files.at_hand(), context=context)
    if prompt.shown is not None:
        edits = gold_edits(form, instance, files.open(), context)
        if path := unseen(edits, prompt.shown):
            raise ValueError(
                f"the answer edits lines that the prompt does not show ({path})"
            )
    return answer
