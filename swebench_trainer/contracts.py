"""The protocols behind the hooks: the objects that factories of plugins return.

A factory registered with `register(name, factory, config=…)` is called with the
validated table of the recipe (an instance of its config model) and returns an
object that follows the protocol of its kind. `swebench_trainer.testing` has contract
tests and a working fake for each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

from swebench_trainer.errors import PluginError
from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.types import Candidate, Instance, Pair, SftRow, Status, Verdict

StepProgress = Callable[[int, int, str], None]
"""Progress callback: steps done, total steps, a short detail."""

ItemProgress = Callable[[str, int, int, str], None]
"""Progress callback: name of an item, items done, total items, a short detail."""


class Source(Protocol):
    """Provides the instances of a recipe."""

    def load(self) -> SourceData:
        """Read every instance.

        Raises:
            DataError: The data as a whole cannot be used.
        """

    def digest(self) -> str:
        """Digest of the content, which changes whenever the result of `load` would."""


@dataclass(frozen=True)
class SourceData:
    """The content of a source.

    Attributes:
        instances: Usable rows, in the source's order, with unique ids; a `Spool` if
            they may not fit in memory.
        dropped: `(instance id or row number, reason)` of each unusable row.
    """

    instances: Sequence[Instance]
    dropped: tuple[tuple[str, str], ...] = ()


class Tree(Protocol):
    """The files of a repository at one commit."""

    def read(self, path: str) -> bytes | None:
        """Content of the regular file at `path`, or `None` if it does not exist.

        Raises:
            ValueError: The path is unsafe: it leaves the repository, or names `.git`.
        """

    def mode(self, path: str) -> str:
        """Git mode of the entry at `path`; empty if it does not exist.

        Returns:
            `100644` or `100755` (a file), `120000` (a link), `160000` (a submodule) or
            `040000` (a directory).

        Raises:
            ValueError: The path is unsafe.
        """

    def paths(self) -> Sequence[str]:
        """Paths of all regular files, relative to the repository's root, sorted."""


@dataclass(frozen=True)
class PromptInputs:
    """Inputs of a prompt besides the instance itself.

    Attributes:
        tree: Opens the repository's files at the instance's commit, fetching them if
            necessary; raises `ValueError` if they are unavailable.
        tokens: Counts the tokens of a text as a prompt, including the chat template;
            a conservative estimate if the backend cannot count.
        seed: The recipe's seed.
    """

    tree: Callable[[], Tree]
    tokens: Callable[[str], int]
    seed: int = 0


@dataclass(frozen=True)
class Prompt:
    """The model's input.

    Attributes:
        text: The user's message.
        shown: Lines of the repository's files in the text, as ranges of 0-based
            indexes, by path; `None` for a style that shows no files. Answers that edit
            other lines are not used for training.
        facts: Additional columns of `prompts.jsonl`; JSON-able.
    """

    text: str
    shown: Mapping[str, Sequence[range]] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class PromptStyle(Protocol):
    """Turns an instance into the model's input.

    A style may have an attribute `context`, a label for the content of its prompts
    besides the issue; the default is the style's name. Results of different contexts
    are not compared, and results of `oracle`, which shows the files of the gold patch,
    are labeled as not leaderboard-valid.
    """

    def render(self, instance: Instance, material: PromptInputs) -> Prompt:
        """The user's message for `instance`.

        Raises:
            ValueError: The instance lacks something that the style needs; it is
                dropped with the message as the reason.
        """


@dataclass(frozen=True)
class TrainRequest:
    """Inputs of a training besides the rows.

    Attributes:
        out: Directory of the stage. The backend writes `adapter/` (PEFT layout)
            or `model/` (full parameters), `checkpoints/`, `metrics.jsonl` (one
            row per logged step) and `audit.json` here. For each of `milestones` it
            writes a row of `milestones.jsonl`: `step`, `seconds` of training so far,
            and, except for the last step, `weights`, a directory in `milestones/`.
        start: Weights to start from, the return value of an earlier training;
            `None` means the base model.
        max_tokens: Maximum length of prompt plus answer, in tokens.
        seed: Seed of order, initialization and dropout.
        step: Called after each optimizer step.
    """

    out: Path
    start: Path | None
    max_tokens: int
    seed: int
    step: StepProgress


@dataclass(frozen=True)
class SampleRequest:
    """A request for one answer. Equal requests get equal answers on one machine.

    Attributes:
        temperature: 0 means greedy, and the sampling options are ignored.
        top_p: Probability mass of nucleus sampling.
        seed: Seed of this answer only.
        top_k: Number of most likely tokens to sample from, before top-p; 0 means all.
        min_p: Minimum probability of a token, relative to the most likely one.
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
        text: The model's output, without special tokens.
        finish: `stop`, `length`, `too long` for a prompt that leaves no room for an
            answer, or `refused` if the writer declines; empty if not known.
        model: The writer's name, if it differs from the backend's.
        patch: The patch, for writers that return patches (recorded predictions);
            `None` means that the patch is extracted from `text`.
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
    """An opened model that writes answers; the caller closes it."""

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """Yield the answers, in any order, each as soon as it is ready."""

    def close(self) -> None:
        """Free memory and connections; may be called twice."""


class Backend(Protocol):
    """Trains and opens a model. A backend may leave out methods.

    A method that it does not offer raises `PluginError` with an alternative.
    """

    name: str
    """`model_name_or_path` of the base model, for predictions and the card."""

    def check(self) -> None:
        """Fail early, before anything is computed.

        Raises:
            PrerequisiteError: A package, a device or a key is missing.
            RecipeError: The model does not exist or is not usable.
        """

    def train_sft(
        self, rows: Sequence[SftRow], settings: SftTable, request: TrainRequest
    ) -> Path:
        """Train on prompts and completions; resume from `checkpoints/` if it exists.

        Returns:
            The directory of the trained weights.
        """

    def train_dpo(
        self, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
    ) -> Path:
        """Train on pairs, with `request.start` as initial policy and reference.

        With `settings.loss = "kto"` a pair may lack one of its answers.

        Returns:
            The directory of the trained weights.
        """

    def open_sampler(self, weights: Path | None, *, batch_size: int) -> Sampler:
        """Open the base model (`None`) or trained weights for sampling."""


class SampleOnly:
    """Base class of backends that cannot train: `train_sft` and `train_dpo` refuse."""

    use: str
    """Name of the backend in recipes."""

    def train_sft(
        self, rows: Sequence[SftRow], settings: SftTable, request: TrainRequest
    ) -> NoReturn:
        """Raise `PluginError`."""
        self.refuse("train")

    def train_dpo(
        self, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
    ) -> NoReturn:
        """Raise `PluginError`."""
        self.refuse("train")

    def refuse(self, action: str) -> NoReturn:
        """Raise `PluginError` with an alternative to an action."""
        raise PluginError(
            f"The {self.use} backend cannot {action}: it only samples.",
            hint=f'Use it in [generate], model = {{ use = "{self.use}", … }}, '
            'and [model] use = "hf" to train.',
        )


class KeepsResponses(Protocol):
    """A `Backend` that stores its answers, because they cost money. Optional."""

    def keep_responses(self, folder: Path) -> None:
        """Set the storage directory; called before `open_sampler`.

        Stored answers are reused for equal requests, so nothing is paid for twice.

        Args:
            folder: The stage's directory, or one in it; it may not exist yet.
        """

    def figures(self) -> Mapping[str, str | int | float]:
        """Usage and cost of the stored answers, for the stage's closing line."""


class TrainingChecker(Protocol):
    """A `Backend` that checks a training's settings before the run starts. Optional."""

    def check_training(self, settings: SftTable | DpoTable) -> None:
        """Fail early, before anything is computed.

        Raises:
            PrerequisiteError: A package or a device is missing.
        """


@dataclass(frozen=True)
class TokenPart:
    """Consecutive tokens of a row with the same properties, as text.

    Attributes:
        trained: Whether they contribute to the loss.
        special: Whether they are special tokens, such as the end of a turn.
    """

    text: str
    trained: bool
    special: bool


@dataclass(frozen=True)
class TokenView:
    """A row as the model sees it.

    Attributes:
        parts: The row, prompt first; joining their texts gives the whole row.
        answer_tokens: Including the token that ends the answer; 0 without an answer.
        altered: Whether the tokenizer cannot reproduce the answer exactly.
    """

    parts: tuple[TokenPart, ...]
    prompt_tokens: int
    answer_tokens: int
    altered: bool = False


class TokenViewer(Protocol):
    """A `Backend` that can show tokenized texts, for `preview`. Optional."""

    def open_view(self) -> Callable[[str, str | None], TokenView]:
        """Load the tokenizer, but no weights.

        Returns:
            A function of a prompt and the answer to learn, or `None`.

        Raises:
            PrerequisiteError: The tokenizer is not on this machine.
            RecipeError: The model does not exist or is not usable.
        """


class TokenCounter(Protocol):
    """A `Backend` that can count the tokens of a prompt, for styles that show files. Optional."""

    tokenizer: str
    """Name of the tokenizer, for fingerprints: the content of prompts depends on it."""

    def open_counter(self) -> Callable[[str], int]:
        """Load the tokenizer, but no weights.

        Returns:
            A function that counts the tokens of a prompt, including the chat template.

        Raises:
            PrerequisiteError: The tokenizer is not on this machine.
            RecipeError: The model does not exist or is not usable.
        """


@dataclass(frozen=True)
class GoldRun:
    """The run of an instance's gold patch on this machine, as a reference.

    Attributes:
        seconds: Wall time of the tests.
        failed: Tests that fail even with gold.
        skipped: Tests that are skipped, or expected to fail, even with gold.
        changed: Absolute paths of files that the run changed outside the
            repository.
        without_result: Expected tests that the log says nothing about.
        contradicted: Expected tests with lines of success and of failure.
        installed: Commands of the eval script that installed something.
        tests: Path and digest of each official test file after the run.
        rewritten: Official test files that the tests write themselves.
        running: Names of processes that the run left behind.
    """

    seconds: float
    failed: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    without_result: frozenset[str] = frozenset()
    contradicted: frozenset[str] = frozenset()
    installed: frozenset[str] = frozenset()
    tests: frozenset[tuple[str, str]] = frozenset()
    rewritten: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GradeJob:
    """One candidate to grade.

    Attributes:
        log_dir: Directory for `patch.diff`, `eval.sh`, `test_output.txt` and, if the
            harness writes one, `report.json`. Created by the grader.
        repeat: Number of the run of this patch. Each number has its own cache entry,
            so that a second run is independent of the first.
        gold: The gold run of the instance, if it has one.
    """

    instance: Instance
    candidate: Candidate
    log_dir: Path
    repeat: int = 0
    gold: GoldRun | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of one job.

    Attributes:
        report: The harness's report of the instance, unmodified; empty if none.
        flags: Reasons not to trust a pass.
        reason: One line for people.
        seconds: Wall time by phase (`start`, `apply`, `test`).
        answered_by: `run`, or the source of a reused result: an earlier run of the
            same patch (`cache`), or a run of another patch that produces the same
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
        """Fail early, before anything is graded.

        Raises:
            PrerequisiteError: No daemon, no namespaces, or no image.
        """

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """Yield each job with its outcome as soon as it is decided, in any order.

        An infrastructure error is an outcome (`infra_error`, `oom`), not an exception:
        the other jobs must continue.
        """

    def close(self) -> None:
        """Remove everything that the grader left on the machine."""


class PairStrategy(Protocol):
    """Builds preference pairs from graded candidates."""

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Pairs of the given instances; equal input gives equal pairs.

        Masked verdicts (`reward is None`), untrusted passes and flaky failures must not
        be used. Answers must be the exact texts of the candidates that a pair names, or
        of gold (except with `Pair.restyled`), and a `chosen` that fails needs a
        `chosen_tier`. The table's `max_per_instance` applies. The stage checks these
        rules, see `swebench_trainer.preferences.rules`.
        """


class LimitTeller(Protocol):
    """A `PairStrategy` that can explain why it did not make more pairs. Optional."""

    def limits(
        self, graded: Sequence[GradedInstance]
    ) -> Bottlenecks | Mapping[str, int]:
        """Count what kept the strategy from making more pairs.

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
            express it, or the prompt hides its lines.
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
    """Releases trained weights with their model card."""

    def check(self) -> None:
        """Fail early, for example for a missing token or a read-only directory."""

    def publish(self, folder: Path) -> str:
        """Release the files of `folder` and return their location."""


Done = ItemProgress
"""Former name, kept for one version, like the next three."""
Step = StepProgress
Loaded = SourceData
Material = PromptInputs
