"""The small Protocols behind the hooks: what a plugin's factory must return.

A factory registered with `register(name, factory, config=…)` is called with the
validated table of the recipe (an instance of its own config model) and returns
an object of the Protocol of its kind. `swebench_trainer.testing` has a suite of
contract tests for each kind and a fake that behaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal, Protocol

from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.types import (
    Candidate,
    Instance,
    Pair,
    SftRow,
    Status,
    Verdict,
)

StepProgress = Callable[[int, int, str], None]
"""Progress callback: steps done, steps in all, a word about the last one."""

ItemProgress = Callable[[str, int, int, str], None]
"""Progress callback: name of an item, items done, items in all, a word about it."""


class Source(Protocol):
    """Gives the instances of a recipe."""

    def load(self) -> SourceData:
        """Reads every instance.

        Raises:
            DataError: The data as a whole cannot be used.
        """

    def digest(self) -> str:
        """Digest of the content, which changes whenever `load` would give something else."""


@dataclass(frozen=True)
class SourceData:
    """What a source holds.

    Attributes:
        instances: Usable rows, in the source's order, ids unique; a `Spool` where
            they may be too many for the memory.
        dropped: `(instance id or row number, reason)` of each row that is not.
    """

    instances: Sequence[Instance]
    dropped: tuple[tuple[str, str], ...] = ()


class Tree(Protocol):
    """The files of a repository at one commit."""

    def read(self, path: str) -> bytes | None:
        """Content of the regular file at `path`, `None` where there is none.

        Raises:
            ValueError: The path is unsafe: it leaves the repository, or names `.git`.
        """

    def mode(self, path: str) -> str:
        """What lies at `path`, as git has it; empty where nothing does.

        Returns:
            `100644` or `100755` (a file), `120000` (a link), `160000` (a submodule) or
            `040000` (a directory).

        Raises:
            ValueError: The path is unsafe.
        """

    def paths(self) -> Sequence[str]:
        """Every regular file, from the root of the repository, sorted."""


@dataclass(frozen=True)
class PromptInputs:
    """What a prompt can be made of beside the instance itself.

    Attributes:
        tree: Opens the repository's files at the instance's commit, which may have to
            be fetched; raises `ValueError` where they cannot be had.
        tokens: How many tokens a text is as a prompt, the chat template's included;
            an estimate on the safe side where the backend cannot count.
        seed: The recipe's.
    """

    tree: Callable[[], Tree]
    tokens: Callable[[str], int]
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """What the model reads.

    Attributes:
        text: The user's message.
        shown: The lines of the repository's files that the text shows, as ranges of
            indexes from 0, by path; `None` for a style that shows no files. An answer
            that edits other lines is not taught.
        facts: What else there is to know of the prompt, as further columns of
            `prompts.jsonl`; JSON-able.
    """

    text: str
    shown: Mapping[str, Sequence[range]] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class PromptStyle(Protocol):
    """Turns an instance into the text that the model reads.

    A style may have an attribute `context`, a word for what its prompts show beside
    the issue; without one it is the style's name. Results are compared within one
    context alone, and those of `oracle`, which shows what gold touches, are labelled
    as not leaderboard-valid.
    """

    def render(self, instance: Instance, material: PromptInputs) -> Prompt:
        """The user's message for `instance`.

        Raises:
            ValueError: The instance lacks what the style needs; it is dropped
                with the message as the reason.
        """


@dataclass(frozen=True)
class TrainRequest:
    """What a backend needs beside the rows.

    Attributes:
        out: Directory of the stage. The backend writes `adapter/` (PEFT layout)
            or `model/` (full parameters), `checkpoints/`, `metrics.jsonl` (one
            row per logged step) and `audit.json` here, and for `milestones` a row
            each in `milestones.jsonl`: `step`, `seconds` of training until then, and,
            but for the last step, `weights`, a directory in `milestones/`.
        start: Weights to start from, as an earlier training returned them;
            `None` means the base model.
        max_tokens: Longest prompt plus answer, in tokens.
        seed: Seed of order, initialisation and dropout.
        step: Called after each optimizer step.
    """

    out: Path
    start: Path | None
    max_tokens: int
    seed: int
    step: StepProgress


@dataclass(frozen=True)
class SampleRequest:
    """One answer to be written. Equal requests give equal answers on one machine.

    Attributes:
        temperature: 0 means greedy; what follows then means nothing.
        top_p: Draws from the smallest set of tokens with this probability.
        seed: Seed of this answer alone.
        top_k: Draws from so many of the most likely tokens; 0 means all. Top-p is a part
            of what this leaves.
        min_p: Draws from tokens that are at least so likely, relative to the most
            likely one.
    """

    instance_id: str
    sample: int
    prompt: str
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    top_k: int = 0
    min_p: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One answer.

    Attributes:
        text: What the model wrote, without special tokens.
        finish: `stop`, `length`, `too long` for a prompt that leaves no room to
            answer, or `refused` where the writer declines; empty when not known.
        model: The writer's own name, when it knows better than the recipe.
        patch: Set by writers whose answer is a patch already (recorded
            predictions); `None` means that the patch is taken from `text`.
    """

    instance_id: str
    sample: int
    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = ""
    model: str = ""
    patch: str | None = None


class Sampler(Protocol):
    """An opened model that writes answers; closed when no longer needed."""

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """Answers each request, in any order, each as soon as it is there."""

    def close(self) -> None:
        """Frees memory and connections."""


class Backend(Protocol):
    """Trains and opens a model. A backend may offer only some of the methods.

    What it does not offer raises `PluginError` and says what to use instead.
    """

    name: str
    """`model_name_or_path` of the base model, for predictions and the card."""

    def check(self) -> None:
        """Fails early, before anything is computed.

        Raises:
            PrerequisiteError: A package, a device or a key is missing.
            RecipeError: The model does not exist or cannot be used.
        """

    def train_sft(
        self, rows: Sequence[SftRow], settings: SftTable, request: TrainRequest
    ) -> Path:
        """Trains on prompt and completion; resumes from `checkpoints/` if there.

        Returns:
            The directory of the trained weights.
        """

    def train_dpo(
        self, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
    ) -> Path:
        """Trains on pairs, with `request.start` as policy and as reference.

        With `settings.loss = "kto"` a pair may lack one of its answers.

        Returns:
            The directory of the trained weights.
        """

    def open_sampler(self, weights: Path | None, *, batch_size: int) -> Sampler:
        """Opens the base model (`None`) or trained weights for sampling."""


class KeepsResponses(Protocol):
    """A `Backend` whose answers cost money, and that keeps them. Optional."""

    def keep_responses(self, folder: Path) -> None:
        """Says where they are kept, before `open_sampler`.

        What is there already answers the same requests again, and is not paid for twice.

        Args:
            folder: The stage's directory, or one in it; it need not be there.
        """

    def figures(self) -> Mapping[str, str | int | float]:
        """What the kept answers have used and cost, for the stage's line."""


class TrainingChecker(Protocol):
    """A `Backend` that looks at the keys of a training before the run begins. Optional."""

    def check_training(self, settings: SftTable | DpoTable) -> None:
        """Fails early, before anything is computed.

        Raises:
            PrerequisiteError: A package or a device is missing.
        """


@dataclass(frozen=True)
class TokenPart:
    """Consecutive tokens of a row that are alike, as text.

    Attributes:
        trained: Whether the loss is on them.
        special: Whether they are special tokens, such as the end of a turn.
    """

    text: str
    trained: bool
    special: bool


@dataclass(frozen=True)
class TokenView:
    """A row as the model sees it.

    Attributes:
        parts: Their texts joined are the row, prompt first.
        answer_tokens: With the token that ends the answer; 0 without an answer.
        altered: Whether the tokenizer cannot write the answer byte for byte.
    """

    parts: tuple[TokenPart, ...]
    prompt_tokens: int
    answer_tokens: int
    altered: bool = False


class TokenViewer(Protocol):
    """A `Backend` that can show what it makes of texts, for `preview`. Optional."""

    def open_view(self) -> Callable[[str, str | None], TokenView]:
        """Loads the tokenizer, and no weights.

        Returns:
            A function of a prompt and, if there is one, the answer to learn.

        Raises:
            PrerequisiteError: The tokenizer is not on this machine.
            RecipeError: The model does not exist or cannot be used.
        """


class TokenCounter(Protocol):
    """A `Backend` that can say how long a prompt is, for styles that show files. Optional."""

    tokenizer: str
    """Names what counts: in fingerprints, for what is shown depends on it."""

    def open_counter(self) -> Callable[[str], int]:
        """Loads the tokenizer, and no weights.

        Returns:
            A function of a text: its tokens as a prompt, the chat template's included.

        Raises:
            PrerequisiteError: The tokenizer is not on this machine.
            RecipeError: The model does not exist or cannot be used.
        """


@dataclass(frozen=True)
class GoldRun:
    """What the gold patch of an instance did on this machine, to compare with.

    Attributes:
        seconds: Wall time of its tests.
        failed: Tests that fail with gold too.
        skipped: Tests that are skipped, or expected to fail, with gold too.
        changed: Absolute paths of the files that its run changed outside the
            repository.
    """

    seconds: float
    failed: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GradeJob:
    """One candidate to grade.

    Attributes:
        log_dir: Where `patch.diff`, `eval.sh`, `test_output.txt` and, if the
            harness gives one, `report.json` go. Made by the grader.
        repeat: Which run of this patch it is. Each has its own place in the cache,
            so that a second run is a second opinion.
        gold: The gold run of the instance, where there was one.
    """

    instance: Instance
    candidate: Candidate
    log_dir: Path
    repeat: int = 0
    gold: GoldRun | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes:
        report: The harness's report of the instance, unmodified; empty if none.
        flags: Why a pass is not believed.
        reason: One line for people.
        seconds: Wall time by phase (`start`, `apply`, `test`).
        answered_by: `run`; or what made a run of the tests needless: an earlier run
            of the same patch (`cache`), or of another patch that leaves the same
            files (`tree`).
        explained: See `Verdict`.
    """

    status: Status
    report: dict[str, object]
    flags: tuple[str, ...] = ()
    reason: str = ""
    seconds: dict[str, float] | None = None
    answered_by: Literal["run", "cache", "tree"] = "run"
    explained: bool = False


class Grader(Protocol):
    """Runs the official eval script of an instance on a candidate's patch."""

    def check(self, instances: Sequence[Instance]) -> None:
        """Fails early, before anything is graded.

        Raises:
            PrerequisiteError: No daemon, no namespaces, no image.
        """

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """Grades the jobs, each given back as soon as it is decided, in any order.

        A fault of the machine is an outcome (`infra_error`, `oom`), not an
        exception: it must not end the other jobs.
        """

    def close(self) -> None:
        """Removes what the grader has left on the machine."""


class PairStrategy(Protocol):
    """Makes preferences from graded candidates."""

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Pairs of the given instances, the same for the same input.

        Masked verdicts (`reward is None`), untrusted passes and flaky failures must
        not be used. Answers are those of the candidates that a pair names, or gold, as
        they stand there (`Pair.restyled` apart), and a `chosen` that fails has a
        `chosen_tier`. An instance has at most `max_per_instance` of the table.
        """


class LimitTeller(Protocol):
    """A `PairStrategy` that can explain why it did not make more pairs. Optional."""

    def limits(
        self, graded: Sequence[GradedInstance]
    ) -> Bottlenecks | Mapping[str, int]:
        """Counts what kept the strategy from making more pairs.

        A plain mapping has reasons for people, each with its number of instances or
        pairs. Counts under the name of a `[pairs]` key are pairs that this key excluded.
        """


class MissingForPair(StrEnum):
    """What an instance lacks for a pair."""

    NO_CANDIDATES = auto()
    NO_DECIDED_CANDIDATE = auto()
    """Every verdict is masked."""
    NO_FAILURE = auto()
    """Every candidate passes."""
    NO_RELIABLE_FAILURE = auto()
    """Every failure is flaky or a timeout."""
    NO_EXPRESSIBLE_FAILURE = auto()
    """No failure can be written in the answer format."""
    FAILURES_REPEAT_PASSES = auto()
    FAILURES_REPEAT_GOLD = auto()
    CANDIDATES_REPEAT_GOLD = auto()
    """Every ungraded candidate is the gold patch again."""
    NO_PASS = auto()
    NO_TRUSTED_PASS = auto()
    NO_PASS_NO_GOLD = auto()
    """No candidate passes, and gold cannot be written in the answer format."""
    NO_GOLD = auto()
    """Gold cannot be written in the answer format."""
    PASS_RATE_OUT_OF_RANGE = auto()


@dataclass(frozen=True)
class Bottlenecks:
    """What kept a strategy from making more pairs.

    Attributes:
        missing: Number of instances by what they lack for a pair.
        held_back: Number of possible pairs left out by each `[pairs]` key.
        other: Counts by reasons of a strategy's own, which are only displayed.
    """

    missing: Mapping[MissingForPair, int] = field(default_factory=dict)
    held_back: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GradedInstance:
    """An admitted training instance with its candidates and their verdicts.

    Attributes:
        prompt: The text that the model reads.
        gold: The gold patch in the recipe's answer format; empty if the format cannot
            express it.
        graded: Each candidate with its verdict, by sample number; a masked verdict
            has the reward `None`.
        ungraded: Candidates without a verdict, if the recipe does not grade: any of
            them may be correct.
        forms: Digest of the repository's files after each patch, gold's included,
            without comments and layout; patches with equal digests are repeats. Patches
            that do not apply, or whose files are not available, are missing.
        rendered: Patches as answers in the recipe's format, for strategies whose table
            asks for them (`PairsTable.renders`).
    """

    instance: Instance
    prompt: str
    gold: str
    graded: tuple[tuple[Candidate, Verdict], ...]
    ungraded: tuple[Candidate, ...] = ()
    forms: Mapping[str, str] = field(default_factory=dict)
    rendered: Mapping[str, str] = field(default_factory=dict)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates, graded or not."""
        return (*(candidate for candidate, _ in self.graded), *self.ungraded)


class Publisher(Protocol):
    """Releases an adapter with its card."""

    def check(self) -> None:
        """Fails early: a missing token, a directory that cannot be written."""

    def publish(self, folder: Path) -> str:
        """Releases the files of `folder` and returns where they are now."""


Done = ItemProgress
"""Former name, for one version more; so are the next three."""
Step = StepProgress
Loaded = SourceData
Material = PromptInputs
