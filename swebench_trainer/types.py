"""The data types of a run: frozen values without input or output.

An instance is an issue with its tests, a candidate is a model's answer to it, a
verdict is the official harness's result for the candidate, and a pair is a training
example for DPO. Stages exchange them as rows of JSONL files; `as_row` and `from_row`
are the only conversions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

from swebench_trainer.errors import UnusableInstance

T = TypeVar("T")

Split = Literal["train", "heldout"]
ApplyMode = Literal["swebench", "pro"]
Place = Literal["task", "git", "image"]
Contents = Literal["", Place]


class Status(StrEnum):
    """How the grading of one candidate ended."""

    RESOLVED = "resolved"
    """Every FAIL_TO_PASS and PASS_TO_PASS test passes, as reported by the harness."""
    UNRESOLVED = "unresolved"
    """The patch applied and the tests ran, but not all of them pass."""
    NO_PATCH = "no_patch"
    """The answer changes no file."""
    MALFORMED = "malformed"
    """The answer is not a patch in the expected format."""
    NOT_APPLIED = "not_applied"
    """None of the harness's apply commands accepted the patch."""
    TIMEOUT = "timeout"
    """The tests ran past the deadline; masked unless `Verdict.explained`."""
    OOM = "oom"
    """The machine ran out of memory."""
    INFRA_ERROR = "infra_error"
    """The machine failed, not the patch: no image, no daemon, no disk space."""


FLAKY = "flaky"
"""Flag of a verdict (a pass or a failure) that another run of the patch contradicts."""


class Finish(StrEnum):
    """How an answer ended (`Sample.finish`); samplers may leave it empty."""

    STOP = "stop"
    """The model ended its answer."""
    LENGTH = "length"
    """The answer reached the token limit."""
    TOO_LONG = "too long"
    """The prompt leaves no room for an answer."""
    REFUSED = "refused"
    """The model or its service declined to answer."""


UNANSWERED = (Finish.TOO_LONG, Finish.REFUSED)
"""Finishes without an answer, which show nothing about the model's ability."""

REWARDS: dict[Status, int] = {
    Status.RESOLVED: 1,
    Status.UNRESOLVED: 0,
    Status.NO_PATCH: -1,
    Status.MALFORMED: -1,
    Status.NOT_APPLIED: -1,
}
"""Rewards by status; other statuses are masked (reward `None`)."""


class Strength(StrEnum):
    """How the tests of a counter-run are changed, from the strongest change down.

    A counter-run repeats a passing run with tests that must fail. See docs/grading.md.
    """

    EXPECTATION = "expectation"
    """A literal that an official test expects is another one."""
    SABOTAGE = "sabotage"
    """An official test has a statement that always fails."""
    CANARY = "canary"
    """A file of official tests has one more test, which always fails."""


class Tier(StrEnum):
    """How a rejected answer fails; first the failures closest to a success."""

    BREAKS_OTHERS = "breaks_others"
    """Every FAIL_TO_PASS test passes, and a PASS_TO_PASS test no longer does."""
    FAILS = "fails"
    """The patch applied and a FAIL_TO_PASS test, or the whole test run, failed."""
    UNGRADED = "ungraded"
    """No test was run; the patch differs from gold."""
    NOT_APPLIED = "not_applied"
    """The patch does not apply."""
    MALFORMED = "malformed"
    """The answer is not a patch in the expected format."""
    NO_PATCH = "no_patch"
    """The answer changes nothing."""


@dataclass(frozen=True)
class Instance:
    """One issue: a swebench 5 row with additional columns.

    Uppercase names are the harness's columns. `swebench eval` accepts the row.

    Attributes:
        workdir: Directory of the repository in the image.
        source: Origin of the row, for messages and the model card.
        snapshot: Absolute path of a directory with the repository's files at
            `base_commit`; empty if only the image has them.
        apply_mode: How to apply the patch: with the harness's chain of commands, or
            like SWE-bench Pro's own evaluation.
        parser: Source code of a program that parses the test output, if the row has
            one (SWE-bench Pro); empty means only `log_parser`.
        requirements: SWE-bench Pro's requirements text, else empty.
        interface: SWE-bench Pro's interface text, else empty.
        language: Language of the repository, if the row names one.
        difficulty: Difficulty as the row spells it (SWE-bench Verified: `<15 min fix`
            to `>4 hours`), else empty.
        images: Addresses of images in the issue (SWE-bench Multimodal); prompts
            contain only its text.
        test_files: Binary files that the tests need besides the patches.
        split: Side of the holdout.
        dockerfiles: Absolute paths of the Dockerfiles that build the image, base images
            first; the directory of each is its build context. Empty if the image can
            only be pulled.
        contents: Where `prepare` found the repository's files: in the task's `repo/`
            (`snapshot`), in a clone, or in the image; empty if nothing needed them.
    """

    instance_id: str
    repo: str
    base_commit: str
    problem_statement: str
    patch: str
    test_patch: str = ""
    version: str = ""
    image: str = ""
    eval_script: str = ""
    log_parser: str = ""
    eval_type: str = "pass_and_fail"
    FAIL_TO_PASS: tuple[str, ...] = ()
    PASS_TO_PASS: tuple[str, ...] = ()
    created_at: str = ""
    workdir: str = "/testbed"
    source: str = ""
    snapshot: str = ""
    apply_mode: ApplyMode = "swebench"
    parser: str = ""
    requirements: str = ""
    interface: str = ""
    language: str = ""
    difficulty: str = ""
    images: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    dockerfiles: tuple[str, ...] = ()
    split: Split = "train"
    contents: Contents = ""

    @property
    def ungradable(self) -> str:
        """Why the instance can be trained on but not graded; empty if it can."""
        needed = ("eval_script", "log_parser", "FAIL_TO_PASS")
        if missing := [name for name in needed if not getattr(self, name)]:
            return f"the row has no {', '.join(missing)}"
        if self.test_files:
            return "its tests need files that no patch carries (image_assets)"
        return ""

    @property
    def gradable(self) -> bool:
        """Whether the row has the tests and the script that grading needs."""
        return not self.ungradable


class ExtractionOutcome(StrEnum):
    """How the search for a patch in an answer ended."""

    OK = "ok"
    """The answer has a patch, taken as written."""
    REPAIRED = "repaired"
    """The answer has a patch that needed repairs."""
    NO_CHANGE = "no_change"
    """The answer has no patch, or one that changes nothing."""
    MALFORMED = "malformed"
    """The answer attempts a patch that cannot be understood, or not with certainty."""
    NO_OP = "no_op"
    """Not an answer: the tests run on the unpatched repository.

    Only the trainer itself sets this, so no predictions file can request such a run.
    """


_OLD_NO_CHANGE = ("no answer", "nothing changes", "no patch was recorded")
"""Reasons that the string form of `Extraction` used for `NO_CHANGE`."""


@dataclass(frozen=True)
class Extraction:
    """How a patch was taken from an answer.

    Attributes:
        repairs: Names of the repairs made, each once, in order of discovery.
        reason: Explanation for people if the answer has no patch; never compared.
    """

    outcome: ExtractionOutcome = ExtractionOutcome.OK
    repairs: tuple[str, ...] = ()
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether the answer has no usable patch."""
        return self.outcome in (
            ExtractionOutcome.NO_CHANGE,
            ExtractionOutcome.MALFORMED,
        )

    @classmethod
    def of(cls, value: object) -> Extraction:
        """Accept a value, its JSON row, or the string form of older files and plugins.

        The strings are `ok`, `repaired:<names joined with +>`, `failed:<reason>` and
        `no-op`. An unknown string counts as `ok`.

        Raises:
            TypeError: The value is of another type.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            outcome = ExtractionOutcome(value["outcome"])
            return cls(outcome, tuple(value["repairs"]), value["reason"])
        if not isinstance(value, str):
            raise TypeError(f"not an extraction: {value!r}")
        kind, _, rest = value.partition(":")
        match kind:
            case "repaired":
                return cls(ExtractionOutcome.REPAIRED, tuple(rest.split("+")))
            case "failed" if rest in _OLD_NO_CHANGE:
                return cls(ExtractionOutcome.NO_CHANGE, reason=rest)
            case "failed":
                return cls(ExtractionOutcome.MALFORMED, reason=rest)
            case "no-op":
                return cls(ExtractionOutcome.NO_OP)
        return cls()

    def __str__(self) -> str:
        """One line for people."""
        details = "+".join(self.repairs) or self.reason
        return f"{self.outcome}: {details}" if details else str(self.outcome)


NO_OP = Extraction(ExtractionOutcome.NO_OP)
"""Extraction of a run of the tests without a patch."""


@dataclass(frozen=True)
class StaticChecks:
    """Facts about a patch known without running it; verdicts do not depend on them.

    Attributes:
        applies: Whether a strict `git apply` accepts it (the harness is less strict);
            `None` if unknown.
        unparsable: Python files that parsed before the patch and do not after it.
    """

    applies: bool | None = None
    unparsable: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: object) -> StaticChecks:
        """Accept a value, its JSON row, or the phrases of older files and plugins.

        Raises:
            TypeError: The value is of another type.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            return cls(value["applies"], tuple(value["unparsable"]))
        if not isinstance(value, list | tuple):
            raise TypeError(f"not static checks: {value!r}")
        paths = (phrase.partition("does not parse: ")[2] for phrase in value)
        applies = False if "does not apply" in value else True if value else None
        return cls(applies, tuple(filter(None, paths)))


@dataclass(frozen=True)
class Candidate:
    """A model's answer for one instance, and the patch extracted from it.

    Attributes:
        sample: Number of the sample, from 0; gold and no-op runs also start at 0.
        model: `model_name_or_path` of the predictions format.
        text: The model's answer, verbatim.
        patch: The unified diff extracted from `text`; empty without one.
        extraction: How the patch was taken from `text`. Plugins may pass the older
            strings, see `Extraction.of`.
        prompt_tokens: Tokens of the prompt, 0 if not known.
        completion_tokens: Tokens of the answer, 0 if not known.
        finish: `stop`, `length`, `too long`, `refused`, or empty when not known; see
            `Sample`.
        checks: Facts about the patch known without running it. Plugins may pass the
            older phrases, see `StaticChecks.of`.
    """

    instance_id: str
    sample: int
    model: str
    text: str
    patch: str
    extraction: Annotated[Extraction, BeforeValidator(Extraction.of)] = Extraction()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = ""
    checks: Annotated[StaticChecks, BeforeValidator(StaticChecks.of)] = StaticChecks()

    def __post_init__(self) -> None:
        object.__setattr__(self, "extraction", Extraction.of(self.extraction))
        object.__setattr__(self, "checks", StaticChecks.of(self.checks))

    @property
    def is_no_op(self) -> bool:
        """Whether this is a run of the tests without a patch."""
        return self.extraction.outcome is ExtractionOutcome.NO_OP


@dataclass(frozen=True)
class Verdict:
    """The result of grading one candidate.

    Attributes:
        report: The harness's report of the instance, unmodified (the value under the
            instance id in `report.json`); empty if it wrote none.
        flags: Reasons not to trust a pass, and `flaky`, which also flags failures.
        reason: One line for people: the apply error, the missing image, …
        log: Directory of the logs, relative to the stage's directory.
        patch: Digest of the graded patch, so that a verdict is never used for another.
        explained: Whether the patch caused the timeout (it timed out again with many
            times the seconds that gold needs) or the infrastructure error (it lost its
            sandbox each time, and the same tests without it did not).
        strength: The counter-run in which the patch failed the changed tests, as it
            should; `None` without one.
    """

    instance_id: str
    sample: int
    model: str
    status: Status
    report: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    reason: str = ""
    log: str = ""
    patch: str = ""
    explained: bool = False
    strength: Strength | None = None

    @property
    def reward(self) -> int | None:
        """+1 resolved, 0 applied and failed, -1 no usable patch, `None` masked."""
        if self.status is Status.TIMEOUT and self.explained:
            return 0
        return REWARDS.get(self.status)

    @property
    def flaky(self) -> bool:
        """Whether another run of the same patch had a different result."""
        return FLAKY in self.flags

    @property
    def trusted_pass(self) -> bool:
        """Whether the candidate may become a `chosen`."""
        return self.status is Status.RESOLVED and not self.flags


@dataclass(frozen=True)
class DropReason:
    """Why an instance was dropped.

    Attributes:
        text: The cause, equal for all instances with this cause.
        detail: Details of this instance.
    """

    text: str
    detail: str = ""

    @classmethod
    def of(cls, error: ValueError) -> DropReason:
        """The reason that an error gives, in two parts if it is an `UnusableInstance`."""
        if isinstance(error, UnusableInstance):
            return cls(error.reason, error.detail)
        return cls(str(error))

    def __str__(self) -> str:
        return f"{self.text} ({self.detail})" if self.detail else self.text


class LeakageKind(StrEnum):
    """What a training instance and a held-out instance share."""

    INSTANCE = "the same instance"
    FILE = "the same commit and file"
    ISSUE = "the same issue text"
    PATCH = "the same gold patch"
    SIMILAR_PATCH = "nearly the same gold patch"


@dataclass(frozen=True)
class PublicTests:
    """Number of instances from public test splits, by benchmark, on each side."""

    train: Mapping[str, int] = field(default_factory=dict)
    heldout: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LeakageReport:
    """What training shares with evaluation: `leakage.json` of the prepare stage.

    Attributes:
        policy: `[data] leakage` of the recipe.
        train: Number of training instances.
        heldout: Number of held-out instances.
        findings: Number of rows in `leakage.jsonl`.
        reasons: Number of findings of each kind.
        leaking: Number of training instances that share something.
        dropped: Number of them that were dropped.
        examples: The first findings, one line each.
    """

    policy: str
    train: int
    heldout: int
    findings: int
    reasons: Mapping[LeakageKind, int]
    leaking: int
    dropped: int
    examples: Sequence[str]
    public_tests: PublicTests

    @classmethod
    def parse(cls, row: Mapping[str, Any] | None) -> LeakageReport | None:
        """The report from its JSON, in the current format or the first one."""
        if row is None:
            return None
        return from_row(cls, {"public_tests": row.get("public test"), **row})


@dataclass(frozen=True)
class SftRow:
    """One supervised example: the user's message and the answer to learn."""

    instance_id: str
    prompt: str
    completion: str


class AnswerRef(str):
    """Which answer one side of a pair has: gold, or a numbered sample.

    It is the text that rows hold (`gold`, `sample:<n>`, empty for no answer), so plugins
    may pass a plain string. Use the constructors and properties instead of the text.
    """

    __slots__ = ()

    @classmethod
    def gold(cls) -> AnswerRef:
        """The gold patch."""
        return cls("gold")

    @classmethod
    def of_sample(cls, number: int) -> AnswerRef:
        """The candidate with that sample number."""
        return cls(f"sample:{number}")

    @property
    def is_gold(self) -> bool:
        """Whether the answer is the gold patch."""
        return self == "gold"

    @property
    def sample(self) -> int | None:
        """Sample number of the candidate; `None` for gold, no answer and unknown text."""
        kind, _, number = self.partition(":")
        return int(number) if kind == "sample" and number.isdecimal() else None

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, handler(str))


@dataclass(frozen=True)
class Pair:
    """One preference: `chosen` is a better answer to `prompt` than `rejected`.

    These three texts are TRL's preference format; the other fields are provenance.
    One answer may be `None`: the other is then labeled as good (`chosen`) or bad
    (`rejected`) without a comparison, for `[dpo] loss = "kto"` only.

    Attributes:
        strategy: Name of the pair strategy in the recipe.
        chosen_source: Which answer `chosen` is; empty without one.
        rejected_source: Which answer `rejected` is; empty without one.
        tier: `Tier` of the rejected answer, or a word of the strategy's own;
            `resolved` without a rejected answer.
        chosen_model: Writer of `chosen`; empty for gold. Needed if several models
            wrote a sample with that number.
        rejected_model: Writer of `rejected`.
        chosen_log: Logs of the verdict on `chosen`, relative to the run directory;
            empty if no test was run. The stage fills in both logs.
        rejected_log: Logs of the verdict on `rejected`.
        chosen_tier: `Tier` of `chosen` if it fails, but less badly than `rejected`;
            empty for a pass and for gold.
        restyled: Whether `rejected` is the candidate's patch in the recipe's answer
            format instead of the model's text.
    """

    instance_id: str
    prompt: str
    chosen: str | None
    rejected: str | None
    strategy: str
    chosen_source: AnswerRef
    rejected_source: AnswerRef
    tier: str
    chosen_model: str = ""
    rejected_model: str = ""
    chosen_log: str = ""
    rejected_log: str = ""
    chosen_tier: str = ""
    restyled: bool = False

    def __post_init__(self) -> None:
        for name in ("chosen_source", "rejected_source"):
            value = getattr(self, name)
            if isinstance(value, str):  # else the plugin's contract check reports it
                object.__setattr__(self, name, AnswerRef(value))


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded; JSON may contain lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_row(value: Any) -> dict[str, Any]:
    """Turn a value of this module into a JSON-able row."""
    # Not asdict(): it copies each list of a report, which costs more than to write it.
    values = {
        spec.name: getattr(value, spec.name) for spec in dataclasses.fields(value)
    }
    return {
        name: as_row(item) if isinstance(item, Extraction | StaticChecks) else item
        for name, item in values.items()
    }


def from_row(kind: type[T], row: Mapping[str, Any]) -> T:
    """Build a `kind` of this module from a row; unknown columns are ignored.

    Raises:
        KeyError: A column without a default is missing.
        ValueError: A column has a value of the wrong type.
    """
    try:
        return _adapter(kind).validate_python(row)  # type: ignore[no-any-return,arg-type]  # types hash
    except ValidationError as error:
        for detail in error.errors():
            if detail["type"] == "missing" and len(detail["loc"]) == 1:
                raise KeyError(detail["loc"][0]) from error
        raise


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
