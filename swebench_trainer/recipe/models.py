"""The recipe: one strict model per table, with the help text under each field.

A table that names a plugin with `use` is validated by that plugin's own model,
which extends the base table given here, so a recipe stays two levels deep. Keys
marked `VOLATILE` change how a stage runs but not its result; they are not part
of fingerprints.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from swebench_trainer.store.digest import digest_path
from swebench_trainer.store.draw import draw_index
from swebench_trainer.types import Place, Split

VOLATILE = "volatile"
"""Marks a key that does not change a stage's result (see `semantic_settings`)."""

ONLY = "only"
"""Names the stages whose results a key changes, if other stages read its table too."""

Volatile = Field(json_schema_extra={VOLATILE: True})
OnlyAdmit = Field(json_schema_extra={ONLY: ["admit"]})
OnlyGrade = Field(json_schema_extra={ONLY: ["grade"]})
NotAdmit = Field(json_schema_extra={ONLY: ["grade", "evaluate"]})

Size = Annotated[str, Field(pattern=r"^[0-9]+[bkmg]$")]
"""A size with Docker's suffixes `b`, `k`, `m` and `g`."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
Trust = Literal["expectation", "sabotage", "canary", "any"]
"""Names of `Strength`, and `any` for passes without a counter-run."""


def from_recipe_folder(path: str | Path, info: ValidationInfo) -> Path:
    """The absolute path; a relative one starts at the directory of the recipe file."""
    folder = (info.context or {}).get("folder", Path())
    # Not resolve(): caches keep files under names without their suffix.
    return Path(folder, Path(path).expanduser()).absolute()


RecipePath = Annotated[Path, AfterValidator(from_recipe_folder)]
"""A path in a recipe; a relative one starts at the directory of the recipe file.

Fingerprints use the content of a file, not its name.
"""

PlacePath = Annotated[RecipePath, Volatile]
"""A `RecipePath` that fingerprints leave out: a location, not an input."""


class Table(BaseModel):
    """Base of every table: unknown keys are errors, and values are immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @property
    def binding(self) -> frozenset[str]:
        """Volatile keys that do change the result, given the values of the other keys."""
        return frozenset()


class PluginTable(Table):
    """Base of the tables in which `use` names a plugin."""

    use: str
    """Name of the plugin, as listed by `swebench-train plugins`."""


class Holdout(Table):
    """Instances to hold out from training, for evaluation.

    By `repo` and `instance`, each name gets a number between 0 and 1, drawn from the
    seed; those below `fraction` are held out. The held-out set is therefore stable when
    rows are added, and its share is close to `fraction`, not exact.
    """

    by: Literal["repo", "instance", "time", "list"] = "repo"
    """Unit to hold out: `repo` holds out whole repositories, `instance` single instances, `time` the newest instances, `list` named instances."""
    fraction: Fraction = 0.2
    """Approximate share to hold out; 0 holds out none. By time the set changes when newer rows are added; `after` avoids that."""
    stratify: Literal["repo", "language", "difficulty"] | None = None
    """By instance: property to balance, so that each repository, language or difficulty with at least two instances is on both sides."""
    after: date | None = None
    """By time, instead of `fraction`: first day (UTC) of the held-out instances."""
    ids: tuple[str, ...] = ()
    """By list: instance ids to hold out."""
    file: RecipePath | None = None
    """By list: file with the ids, one per line, or with rows that have `instance_id` (`.jsonl`, `.json`, `.csv`, `.parquet`), such as `stages/prepare/heldout.txt` of another run."""

    @model_validator(mode="after")
    def _keys_go_with_by(self) -> Self:
        needs = {"stratify": "instance", "after": "time", "ids": "list", "file": "list"}
        for key, by in needs.items():
            if key in self.model_fields_set and self.by != by:
                raise ValueError(f'{key} goes with by = "{by}", not "{self.by}"')
        if "fraction" in self.model_fields_set and (self.after or self.by == "list"):
            other = "after" if self.after else 'by = "list"'
            raise ValueError(f"fraction and {other} exclude each other")
        if self.by == "list" and not (self.ids or self.file):
            raise ValueError('by = "list" needs ids or file')
        return self


class Selection(Table):
    """Instances by their properties. With several keys, an instance must match all of them to be included, or any of them to be excluded."""

    ids: tuple[str, ...] = ()
    """Instance ids."""
    repos: tuple[str, ...] = ()
    """Repositories, written `owner/name`."""
    languages: tuple[str, ...] = ()
    """Languages such as `python`, from the row or else from most lines of the gold patch."""
    difficulties: tuple[str, ...] = ()
    """Difficulties as the data spells them, such as `<15 min fix` in SWE-bench Verified."""


class DataTable(PluginTable):
    """The instances to train on, and those to hold out."""

    limit: PositiveInt | None = None
    """Maximum number of instances, drawn with the recipe's seed."""
    include: tuple[str, ...] | Selection = ()
    """Instances to use, instead of all: a list of instance ids, or `{ ids, repos, languages, difficulties }`."""
    exclude: tuple[str, ...] | Selection = ()
    """Instances to leave out: a list of instance ids, or `{ ids, repos, languages, difficulties }`."""
    max_patch_lines: PositiveInt | None = None
    """Maximum number of lines that the gold patch removes and adds; longer instances are left out."""
    max_patch_files: PositiveInt | None = None
    """Maximum number of files that the gold patch touches; larger instances are left out."""
    holdout: Holdout = Holdout()
    """Instances to hold out: `{ by = "repo", fraction = 0.2 }`; its keys are listed under `[data]` `holdout` below."""
    leakage: Literal["refuse", "drop", "allow"] = "refuse"
    """Action when training and held-out instances share an issue, a commit with a file, or a gold patch: stop, drop those training instances, or continue and report it in the model card."""


Repair = Literal[
    "fences",
    "tags",
    "thoughts",
    "prose",
    "path",
    "repeats",
    "crlf",
    "final-newline",
    "hunk-counts",
    "line-numbers",
    "context",
    "end-of-file",
    "headers",
    "dev-null",
    "prefixes",
    "paths",
    "tabs",
]
"""Defects of an answer that can be repaired without ambiguity."""

Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]
"""Experiment trackers that a training can report to."""

REPAIRS: frozenset[Repair] = frozenset(get_args(Repair))


class ContentsTable(Table):
    """Sources of the repositories' files, for prompts that show them and for search-replace answers."""

    places: Annotated[tuple[Place, ...], Field(min_length=1)] = get_args(Place)
    """Places to look, in order: the `repo/` of a task, a clone of the repository, the instance's image (through a container that is created but never started)."""
    repositories: Annotated[str, Volatile] = "https://github.com/{repo}"
    """Address to clone repositories from, once each, with `{repo}` for `owner/name`. A local directory is read in place."""

    always: bool = False
    """Whether to find the files even where they are optional: to verify that each search of a search-replace training answer is unique, and to repair diffs."""

    missing: Literal["refuse", "drop"] = "refuse"
    """Action when required files are unavailable although the row is valid (no clone, no image, no disk space): stop, so that the run can be resumed, or drop those instances."""

    @field_validator("repositories")
    @classmethod
    def _has_a_place_for_the_name(cls, value: str, info: ValidationInfo) -> str:
        if "{repo}" not in value:
            raise ValueError("{repo}, the placeholder for owner/name, is missing")
        is_address = "://" in value or ":" in value.partition("/")[0]
        return value if is_address else str(from_recipe_folder(value, info))


class PromptTable(PluginTable):
    """The model's input, and the format of its answers."""

    use: str = "issue"
    """Prompt style: `issue`, `oracle`, `bm25`, `files`, or one from a plugin."""
    answer: Literal["search-replace", "diff"] = "search-replace"
    """Format of the answers."""
    search_context: (
        NonNegativeInt
        | Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
        | None
    ) = None
    """Maximum number of unchanged lines before and after each change in search-replace training answers, exceeded only where a search would not be unique. Default: the context of the gold patch. Fewer lines mean less for a prompt to show and for the model to copy. From a list such as `[0, 2]` each instance gets one value: the model learns several styles, and preferences teach it which of them work."""
    repairs: tuple[Repair, ...] = get_args(Repair)
    """Repairs of a model's answer to allow, each applied only where it is unambiguous; `[]` allows none."""
    max_tokens: Annotated[PositiveInt, Volatile] = 8192
    """Maximum length of prompt plus answer, in the model's tokens; longer rows are dropped and counted, never truncated."""

    def context_of(self, instance_id: str) -> int | None:
        """The `search_context` of an instance, the same on every call."""
        if not isinstance(self.search_context, tuple):
            return self.search_context
        count = len(self.search_context)
        return self.search_context[draw_index(count, "search_context", instance_id)]


class ContextTable(PromptTable):
    """Base of the styles that show files of the repository, within a token budget."""

    context_tokens: PositiveInt = 6144
    """Maximum prompt length, in the model's tokens (without a model, a third of the bytes). The issue is never truncated; an instance whose issue alone is longer is dropped."""
    instructions: bool = True
    """Whether a prompt ends with instructions for the answer; a model that learns the format in `[sft]` does not need them."""

    @model_validator(mode="after")
    def _an_answer_has_room(self) -> Self:
        if self.context_tokens >= self.max_tokens:
            raise ValueError(
                f"context_tokens = {self.context_tokens} leaves no room for an answer "
                f"in max_tokens = {self.max_tokens}"
            )
        return self


class ModelTable(PluginTable):
    """The model to train, or the writer of the candidates."""

    use: str = "hf"
    """Backend: `hf`, `replay`, or one from a plugin."""


class TrainTable(Table):
    """Keys that SFT and DPO share."""

    batch_size: PositiveInt = 4
    """Rows (pairs in DPO) per optimizer step."""
    micro_batch: Annotated[PositiveInt, Volatile] = 1
    """Rows per device at once; times `processes` it must divide `batch_size`."""
    micro_tokens: Annotated[PositiveInt | None, Volatile] = None
    """Alternative to `micro_batch`: tokens per device at once, padding included (both answers of a pair count). A longer row is processed alone."""
    group_by_length: bool = False
    """Whether to batch rows of similar length, for less padding but less random batches. Packed rows have no padding anyway."""
    processes: Annotated[PositiveInt, Volatile] = 1
    """Number of training processes, one per GPU; they share each batch, so `batch_size` and the result stay the same."""
    sharding: Annotated[Literal["none", "fsdp"], Volatile] = "none"
    """Distribution of the weights over processes: each has the whole model (`none`), or a shard (`fsdp`), for models that do not fit on one GPU."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps used for learning rate warmup."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate schedule after the warmup."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Optimizer. `muon` uses Muon, scaled to AdamW's step size, for linear layers and AdamW for the rest; it needs `lora = false`, and a model with random initial weights learns in fewer steps."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of the optimizer."""
    max_grad_norm: PositiveFloat = 1.0
    """Maximum gradient norm; larger gradients are clipped."""
    save_every: Annotated[NonNegativeInt, Volatile] = 50
    """Optimizer steps between checkpoints to resume from; 0 writes none."""
    validation: Fraction = 0.0
    """Approximate share of the training instances to reserve for a validation loss, measured every `save_every` steps and every epoch; the weights with the lowest loss are kept. 0 trains on all instances and keeps the last weights."""
    patience: NonNegativeInt = 0
    """With `validation`: number of consecutive measurements without a lower loss after which training stops; 0 never stops early."""
    milestones: NonNegativeInt = 0
    """Number of evenly spaced steps, including the last, whose weights `[evaluate]` also grades, for a curve over training time; 0 grades only the last."""
    trackers: Annotated[tuple[Tracker, ...], Volatile] = ()
    """Experiment trackers that also receive losses and margins; their files stay in the run directory unless their environment variables point elsewhere."""
    max_dropped: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Maximum share of rows that may be dropped as too long before training stops with an error."""

    @model_validator(mode="after")
    def _train_keys_go_together(self) -> Self:
        if self.batch_size % (self.micro_batch * self.processes):
            times = f" times processes = {self.processes}" if self.processes > 1 else ""
            raise ValueError(
                f"micro_batch = {self.micro_batch}{times} does not divide "
                f"batch_size = {self.batch_size}"
            )
        if self.patience and not self.validation:
            raise ValueError(
                "patience counts validation measurements: also set validation, such as 0.1"
            )
        sharded = self.sharding != "none"
        if self.milestones and (self.validation or sharded):
            raise ValueError(
                "milestones cannot be combined with validation, which may keep an earlier "
                "step than the last, or with sharding"
            )
        if sharded and self.processes == 1:
            raise ValueError(f'sharding = "{self.sharding}" needs processes above 1')
        if sharded and self.validation:
            raise ValueError(
                "validation keeps whole weights, so it cannot be combined with sharding"
            )
        return self

    @property
    def binding(self) -> frozenset[str]:
        """With `validation`, the steps at which the loss is measured decide which weights are kept."""
        return frozenset({"save_every"} if self.validation else ())


class SftTable(TrainTable):
    """Supervised fine-tuning on the gold patches."""

    learning_rate: PositiveFloat = 2e-4
    """Maximum learning rate."""
    epochs: PositiveInt = 3
    """Number of passes over the training rows."""
    prompt_loss: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Loss weight of prompt tokens relative to answer tokens. A model with random initial weights learns to copy from prompts much sooner with it; a pretrained one does not need it. 0 masks prompts."""
    packing: Annotated[bool, Volatile] = True
    """Whether to concatenate the rows of a step without padding, up to `micro_tokens`, or `micro_batch` times the longest row: the same losses and gradients in less time. Rows do not attend to each other, and a step still has `batch_size` rows. Rows of models that are not verified for this are padded, and the stage reports it."""


class DpoTable(TrainTable):
    """Direct preference optimization; the reference is the SFT model."""

    beta: PositiveFloat = 0.1
    """Strength of the penalty for diverging from the reference."""
    learning_rate: PositiveFloat = 5e-7
    """Maximum learning rate."""
    epochs: PositiveInt = 1
    """Number of passes over the pairs."""
    loss: Literal["sigmoid", "ipo", "hinge", "robust", "kto"] = "sigmoid"
    """Preference loss: `sigmoid` is the original DPO, `ipo` targets a fixed margin (per token, so tune `beta`), `hinge` stops at a margin, `robust` expects noisy labels. `kto` labels single answers as good or bad, so issues that all candidates pass or fail also count (with `[pairs] use = "unpaired"`)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """For `robust`: expected share of pairs in which `rejected` is actually better."""
    sft_weight: NonNegativeFloat = 0.0
    """Weight of an additional SFT loss on `chosen` (as in RPO)."""
    shared_prefix: Annotated[bool, Volatile] = True
    """Whether to compute a prompt once for all its answers in a micro-batch: the same losses and gradients in less time and memory. Models that are not verified for this compute it once per answer, and the stage reports it."""
    group_by_prompt: bool = False
    """Whether to keep the pairs of one prompt together, so that a `micro_batch` above 1 shares it; the batches are less random."""

    @model_validator(mode="after")
    def _dpo_keys_go_together(self) -> Self:
        if (self.loss == "robust") != (self.label_smoothing > 0):
            raise ValueError('loss = "robust" and label_smoothing above 0 go together')
        if self.group_by_prompt and self.group_by_length:
            raise ValueError("group_by_prompt and group_by_length exclude each other")
        return self

    @model_validator(mode="after")
    def _kto_takes_answers_one_by_one(self) -> Self:
        if self.loss != "kto":
            return self
        if self.micro_batch < 2:
            raise ValueError(
                'loss = "kto" estimates the divergence of the policy from the other '
                "answers in a micro-batch: set micro_batch to 2 or more"
            )
        if self.sft_weight or self.group_by_prompt:
            raise ValueError(
                'sft_weight and group_by_prompt need pairs, and loss = "kto" has none'
            )
        if self.micro_tokens or self.group_by_length or self.processes > 1:
            raise ValueError(
                'loss = "kto" compares the answers of a micro-batch: it cannot be '
                "combined with micro_tokens, group_by_length or several processes"
            )
        return self

    @property
    def binding(self) -> frozenset[str]:
        """With `kto`, answers of one micro-batch are compared; TRL averages its SFT term over one."""
        if self.sft_weight:
            return super().binding | {"micro_batch", "micro_tokens", "processes"}
        return super().binding | ({"micro_batch"} if self.loss == "kto" else set())


class SamplingTable(Table):
    """Keys that generation and evaluation share."""

    max_new_tokens: PositiveInt = 1024
    """Maximum answer length, in tokens."""
    batch_size: Annotated[PositiveInt, Volatile] = 16
    """Number of answers generated at once."""


class GenerateTable(SamplingTable):
    """Sampling of the candidates."""

    model: (
        SerializeAsAny[ModelTable] | tuple[SerializeAsAny[ModelTable], ...] | None
    ) = None
    """Writer of the candidates: a `[model]` table such as `{ use = "replay", path = "preds.jsonl" }`, or a list of them, each of which writes `samples`. Default: the model under training, after SFT."""
    samples: PositiveInt = 8
    """Number of candidates per training instance and writer."""
    temperature: PositiveFloat = 0.8
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Probability mass of nucleus sampling."""
    top_k: NonNegativeInt = 0
    """Number of most likely tokens to sample from, before `top_p` applies; 0 means all."""
    min_p: Fraction = 0.0
    """Minimum probability of a token, relative to the most likely one."""
    greedy: bool = False
    """Whether sample 0 is decoded greedily, as in `[evaluate]`; the others are sampled."""

    @property
    def writers(self) -> tuple[ModelTable, ...]:
        """The `[generate] model` tables; empty for the model under training."""
        if self.model is None:
            return ()
        return self.model if isinstance(self.model, tuple) else (self.model,)


class GradeTable(PluginTable):
    """Grader, and limits of a run."""

    use: str = "docker"
    """Grader: `docker`, `stock`, `namespace`, or one from a plugin."""
    workers: Annotated[NonNegativeInt, Volatile] = 0
    """Number of candidates to grade at once; 0 means three quarters of the cores."""
    timeout: PositiveInt = 1800
    """Time limit for one candidate's tests, in seconds; SWE-bench Pro's own evaluation uses 3600."""
    timeout_factor: NonNegativeFloat = 0.0
    """If above 0 and the time of the gold patch is known: time limit as a multiple of it, at most `timeout`."""
    timeout_floor: PositiveInt = 60
    """Minimum time limit that `timeout_factor` sets, in seconds."""
    retries: Annotated[NonNegativeInt, Volatile] = 1
    """Number of retries after an infrastructure error."""
    max_faults: Annotated[NonNegativeInt, Volatile] = 0
    """Maximum number of candidates per stage that may stay ungraded because of infrastructure errors; with more the stage fails and can be resumed."""
    admission_runs: Annotated[NonNegativeInt, OnlyAdmit] = 1
    """Number of times that the gold patch must pass (and no patch must fail once) before an instance is admitted; 0 admits every instance."""
    confirmations: Annotated[NonNegativeInt, OnlyGrade] = 1
    """Number of additional passes before a candidate may be chosen; 0 trusts the first run."""
    retest: Annotated[Fraction, OnlyGrade] = 0.05
    """Share of failing candidates to run a second time, to measure how flaky the tests are."""
    counter_runs: Annotated[bool, NotAdmit] = True
    """Whether a pass is trusted only if the same patch fails official tests that were changed so that they must fail (see `[pairs] trust`): one more run for each distinct passing patch."""
    dedupe: Annotated[Literal["tree", "patch", "off"], Volatile] = "tree"
    """Candidates that share one run: patches that produce the same files (`tree`), identical patches (`patch`), or none (`off`)."""
    cache: Annotated[bool, Volatile] = True
    """Whether test runs are cached for, and reused from, this user's other recipes (`swebench-train cache`)."""

    @model_validator(mode="after")
    def _the_cache_shares_runs(self) -> Self:
        if self.dedupe == "off" and self.cache:
            raise ValueError(
                'dedupe = "off" runs every candidate, and cache = true would reuse '
                "earlier runs; add cache = false"
            )
        return self


class PairsTable(PluginTable):
    """Construction of preferences from graded candidates."""

    one_sided: ClassVar[bool] = False
    """Whether pairs may have only one answer, for `[dpo] loss = "kto"`."""

    use: str = "self-generated"
    """Pair strategy: `self-generated`, `api-rejects`, `tiered`, `unpaired`, or one from a plugin."""
    max_per_instance: PositiveInt = 4
    """Maximum number of pairs per instance."""
    trust: Trust = "sabotage"
    """Weakest counter-run that a pass must have failed before it may be chosen: `expectation` (an expected value was changed), `sabotage` (a test always fails), `canary` (a new test always fails), or `any` (none needed). Stronger ones always count. Gold needs none."""

    @property
    def needs_grades(self) -> bool:
        """Whether the strategy needs graded candidates."""
        return True

    @property
    def renders(self) -> bool:
        """Whether the strategy uses `GradedInstance.rendered`, patches in the answer format."""
        return False


class EvaluateTable(SamplingTable):
    """Comparison of the base, SFT, and DPO models on the same prompts, with one greedy answer each."""

    splits: Annotated[tuple[Split, ...], Field(min_length=1)] = ("heldout",)
    """Splits to answer and grade."""


class PublishTable(PluginTable):
    """Release of the trained weights."""

    use: str = "directory"
    """Publisher: `directory`, `hub`, or one from a plugin."""


class Recipe(Table):
    """A recipe. Stages whose table is absent are skipped."""

    schema_version: Literal[1]
    """Version of the recipe format."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run directory under `--runs-dir`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Random seed."""
    data: DataTable
    """Source of the instances."""
    contents: ContentsTable = ContentsTable()
    """Source of the repositories' files."""
    prompt: PromptTable = PromptTable()
    """Format of prompts and answers."""
    model: ModelTable | None = None
    """Model to train."""
    sft: SftTable | None = None
    """Supervised fine-tuning on the gold patches of the training split."""
    generate: GenerateTable | None = None
    """Sampling of candidates for the training split."""
    grade: GradeTable | None = None
    """Grading of candidates; also needed by `[evaluate]`."""
    pairs: PairsTable | None = None
    """Preference pairs from graded candidates."""
    dpo: DpoTable | None = None
    """Preference optimization."""
    evaluate: EvaluateTable | None = None
    """Comparison of the base, SFT, and DPO models."""
    publish: PublishTable | None = None
    """Release of the last trained weights."""


TABLES: dict[str, type[Table]] = {
    name: kind
    for name, spec in Recipe.model_fields.items()
    for kind in (spec.annotation, *get_args(spec.annotation))
    if isinstance(kind, type) and issubclass(kind, Table)
}
"""Base model of each table, by name, in recipe order."""


def resolved_settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting of a recipe as JSON-able values, including keys of plugins."""
    return recipe.model_dump(mode="json", serialize_as_any=True)


def semantic_settings(table: BaseModel, stage: str = "") -> dict[str, Any]:
    """The settings of a table that decide a stage's result, for fingerprints."""
    kept = {}
    binding = table.binding if isinstance(table, Table) else ()
    for name, spec in type(table).model_fields.items():
        marks = spec.json_schema_extra
        marks = marks if isinstance(marks, dict) else {}
        volatile = marks.get(VOLATILE) and name not in binding
        only = marks.get(ONLY)
        if not volatile and (not isinstance(only, list) or stage in only):
            kept[name] = _semantic(getattr(table, name))
    return kept


def _semantic(value: Any) -> Any:
    """A value for fingerprints: JSON-able, with files replaced by digests of their content."""
    if isinstance(value, BaseModel):
        return semantic_settings(value)
    if isinstance(value, tuple):
        return [_semantic(item) for item in value]
    if isinstance(value, Path):
        return digest_path(value) if value.is_file() else str(value)
    if isinstance(value, date):
        return value.isoformat()
    return value
