"""The recipe: one strict model per table, with the help text under each field.

A table that names a plugin with `use` is validated by that plugin's own model,
which extends the base table given here, so a recipe stays two levels deep. Keys
marked `VOLATILE` change how a stage runs but not what it makes; they are left
out of fingerprints.
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
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.types import NonNegativeFloat, NonNegativeInt

from swebench_trainer.store.digest import digest_path
from swebench_trainer.store.draw import draw_index
from swebench_trainer.types import Place, Split

VOLATILE = "volatile"
"""Marks a key that does not change a stage's result (see `semantic_settings`)."""

ONLY = "only"
"""Names the one stage whose result a key changes, where several read its table."""

Size = Annotated[str, Field(pattern=r"^[0-9]+[bkmg]$")]
"""Bytes, or kilo-, mega- or gigabytes, as Docker writes them."""
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _beside_recipe(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path())
    # Not resolve(): caches keep files under names without their suffix.
    return Path(folder, path.expanduser()).absolute()


RecipePath = Annotated[Path, AfterValidator(_beside_recipe)]
"""A path in a recipe; a relative one starts at the recipe's own directory.

In fingerprints a file counts by its content, not by its name.
"""

PlacePath = Annotated[RecipePath, Field(json_schema_extra={VOLATILE: True})]
"""A `RecipePath` that does not count in fingerprints: a place, not an input."""


class Table(BaseModel):
    """Base of every table: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @property
    def binding(self) -> frozenset[str]:
        """Volatile keys that do change the result, as the other keys are set."""
        return frozenset()


class PluginTable(Table):
    """Base of the tables in which `use` names a plugin."""

    use: str
    """Name of the plugin, as `swebench-train plugins` lists it."""


class Holdout(Table):
    """Which instances are kept back from training, to be evaluated on.

    By `repo` and `instance` each name has a place of its own between 0 and 1, drawn
    from the seed; those below `fraction` are kept back. So what was kept back stays
    so when rows are added, and the share is near `fraction`, not exactly it.
    """

    by: Literal["repo", "instance", "time", "list"] = "repo"
    """`repo` keeps whole repositories back, `instance` single instances, `time` those created last, `list` those that are named."""
    fraction: Fraction = 0.2
    """About which share to keep back; 0 keeps none. By time the newest, which is another set when newer rows are added: see `after`."""
    stratify: Literal["repo", "language", "difficulty"] | None = None
    """By instance: keeps some of each repository, language or difficulty on both sides, wherever it has two instances or more."""
    after: date | None = None
    """By time, instead of `fraction`: keeps back what was created on this day (UTC) or later."""
    ids: tuple[str, ...] = ()
    """By list: the instance ids."""
    file: RecipePath | None = None
    """By list: a file with the ids, one a line, or rows with `instance_id` (`.jsonl`, `.json`, `.csv`, `.parquet`); `stages/prepare/heldout.txt` of another run is one."""

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
    """Instances by what they are. With several keys, all must hold to be included; any is enough to be excluded."""

    ids: tuple[str, ...] = ()
    """Instance ids."""
    repos: tuple[str, ...] = ()
    """Repositories, as `owner/name`."""
    languages: tuple[str, ...] = ()
    """Languages such as `python`: the row's own, else that of most lines of the gold patch."""
    difficulties: tuple[str, ...] = ()
    """Difficulties in the data's own words, such as `<15 min fix` of SWE-bench Verified."""


class DataTable(PluginTable):
    """Which instances to learn from, and which to keep back."""

    limit: PositiveInt | None = None
    """Use at most so many instances, drawn with the recipe's seed."""
    include: tuple[str, ...] | Selection = ()
    """Use only these: a list of instance ids, or `{ ids, repos, languages, difficulties }`."""
    exclude: tuple[str, ...] | Selection = ()
    """Leave these out: a list of instance ids, or `{ ids, repos, languages, difficulties }`."""
    max_patch_lines: PositiveInt | None = None
    """Leave out instances whose gold patch removes and adds more lines than this."""
    max_patch_files: PositiveInt | None = None
    """Leave out instances whose gold patch touches more files than this."""
    holdout: Holdout = Holdout()
    """Which instances are kept back: `{ by = "repo", fraction = 0.2 }`; its keys are under `[data]` `holdout` below."""
    leakage: Literal["refuse", "drop", "allow"] = "refuse"
    """What to do when training and held-out instances share an issue, a commit with a file, or a gold patch: stop, drop those training instances, or go on and say so in the model card."""


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
"""What may be wrong with an answer and still be understood in one way only."""

Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]
"""Who can be told of a training beside the run directory."""

REPAIRS: frozenset[Repair] = frozenset(get_args(Repair))


class ContentsTable(Table):
    """Where the files of the repositories are, for prompts that show them and for search-replace answers."""

    places: Annotated[tuple[Place, ...], Field(min_length=1)] = get_args(Place)
    """Where to look, in this order: the `repo/` of a task, a clone of the repository, the instance's image (a container is created and never started)."""
    repositories: Annotated[str, Field(json_schema_extra={VOLATILE: True})] = (
        "https://github.com/{repo}"
    )
    """Where repositories are cloned from, once each: an address with `{repo}` for `owner/name`. A directory of this machine is read in place."""

    always: bool = False
    """Whether to look them up where they could be done without too: for search-replace answers that are only learned, so that each search is known to be unique, and for repairs of diffs."""

    missing: Literal["refuse", "drop"] = "refuse"
    """What to do when files that are needed cannot be had though the row is in order (no clone, no image, no room on the disk): stop, to be called again, or drop those instances."""

    @field_validator("repositories")
    @classmethod
    def _has_a_place_for_the_name(cls, value: str, info: ValidationInfo) -> str:
        if "{repo}" not in value:
            raise ValueError("{repo} is missing, which stands for owner/name")
        is_address = "://" in value or ":" in value.partition("/")[0]
        return value if is_address else str(_beside_recipe(Path(value), info))


class PromptTable(PluginTable):
    """What the model reads and in which form it answers."""

    use: str = "issue"
    """Prompt style: `issue`, `oracle`, `bm25`, `files`, or a plugin's."""
    answer: Literal["search-replace", "diff"] = "search-replace"
    """Form of the answer that the model learns to write."""
    search_context: (
        NonNegativeInt
        | Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
        | None
    ) = None
    """At most so many unchanged lines before and after a change in the search-replace answers to learn, more only where a search would not be unique; as many as the gold patch has if left out. Fewer lines are fewer that a prompt must show and a model must copy. Of a list such as `[0, 2]` each instance has one: the model learns several ways to write, and preferences tell it which of them come out right."""
    repairs: tuple[Repair, ...] = get_args(Repair)
    """Which repairs of a model's answer may be made, each only where it leaves no doubt; `[]` takes answers as they are."""
    max_tokens: Annotated[PositiveInt, Field(json_schema_extra={VOLATILE: True})] = 8192
    """Longest prompt plus answer, in the model's own tokens; longer rows are dropped and counted, never cut."""

    def context_of(self, instance_id: str) -> int | None:
        """The `search_context` of an instance, the same every time."""
        if not isinstance(self.search_context, tuple):
            return self.search_context
        count = len(self.search_context)
        return self.search_context[draw_index(count, "search_context", instance_id)]


class ContextTable(PromptTable):
    """Base of the styles that show files of the repository, as many as there is room for."""

    context_tokens: PositiveInt = 6144
    """Longest prompt, in the model's own tokens (a third of its bytes where no model counts). The issue is never cut: where it alone is longer, the instance is dropped."""
    instructions: bool = True
    """Whether a prompt ends with how to answer; a model that learns the form from `[sft]` can do without."""

    @model_validator(mode="after")
    def _an_answer_has_room(self) -> Self:
        if self.context_tokens >= self.max_tokens:
            raise ValueError(
                f"context_tokens = {self.context_tokens} leaves no room for an answer "
                f"in max_tokens = {self.max_tokens}"
            )
        return self


class ModelTable(PluginTable):
    """The model that is trained, or that writes the candidates."""

    use: str = "hf"
    """Backend: `hf`, or a plugin's."""


class TrainTable(Table):
    """Keys that SFT and DPO share."""

    batch_size: PositiveInt = 4
    """Rows (pairs in DPO) per optimizer step."""
    micro_batch: Annotated[PositiveInt, Field(json_schema_extra={VOLATILE: True})] = 1
    """Rows that are on a device at once; times `processes` it must divide `batch_size`."""
    micro_tokens: Annotated[
        PositiveInt | None, Field(json_schema_extra={VOLATILE: True})
    ] = None
    """Instead of `micro_batch`: as many rows of a step at once as fill so many tokens, padding included (both answers of a pair count). A longer row comes alone."""
    group_by_length: bool = False
    """Put rows of like length into one step, so that less is padding; the batches are less mixed. Packed rows have no padding anyway."""
    processes: Annotated[PositiveInt, Field(json_schema_extra={VOLATILE: True})] = 1
    """Processes that train together, one per GPU; they share each batch, so `batch_size` and the result stay."""
    sharding: Annotated[
        Literal["none", "fsdp"], Field(json_schema_extra={VOLATILE: True})
    ] = "none"
    """What each of several processes holds: the whole model (`none`), or a part of its weights (`fsdp`), for models that one GPU has no room for."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps during which the learning rate rises."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """What turns gradients into steps. With `muon` the linear layers are for Muon, whose steps are of AdamW's size, and AdamW has the rest: for `lora = false`, where a model that begins as random numbers learns in fewer steps."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of the optimizer."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    save_every: Annotated[NonNegativeInt, Field(json_schema_extra={VOLATILE: True})] = (
        50
    )
    """Optimizer steps between checkpoints to resume from; 0 writes none."""
    validation: Fraction = 0.0
    """About which share of the training instances to hold back for a held-out loss, measured every `save_every` steps and every epoch; the weights of the lowest one are released. 0 trains on all and releases the last."""
    patience: NonNegativeInt = 0
    """With `validation`: stop after so many evaluations in a row without a lower loss; 0 takes every step."""
    milestones: NonNegativeInt = 0
    """Keep the weights of so many evenly spread moments, the end among them, for `[evaluate]` to grade how far the training was by then; 0 keeps the end alone."""
    trackers: Annotated[
        tuple[Tracker, ...], Field(json_schema_extra={VOLATILE: True})
    ] = ()
    """Who is told of losses and margins beside `metrics.jsonl`; their files stay in the run directory unless their own environment variables say otherwise."""
    max_dropped: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Stop when a larger share of the rows than this is too long to train on."""

    @model_validator(mode="after")
    def _micro_batches_fill_a_batch(self) -> Self:
        if self.batch_size % (self.micro_batch * self.processes):
            times = f" times processes = {self.processes}" if self.processes > 1 else ""
            raise ValueError(
                f"micro_batch = {self.micro_batch}{times} does not divide "
                f"batch_size = {self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _patience_waits_for_a_loss(self) -> Self:
        if self.patience and not self.validation:
            raise ValueError(
                "patience counts evaluations: set validation, such as 0.1, too"
            )
        return self

    @model_validator(mode="after")
    def _milestones_are_whole_and_end_with_the_last_step(self) -> Self:
        if self.milestones and (self.validation or self.sharding != "none"):
            raise ValueError(
                "milestones go without validation, which may release an earlier step "
                "than the last, and without sharding"
            )
        return self

    @property
    def binding(self) -> frozenset[str]:
        """With a held-out loss, how often it is measured decides what is kept."""
        return frozenset({"save_every"} if self.validation else ())

    @model_validator(mode="after")
    def _one_process_holds_all(self) -> Self:
        if self.sharding != "none" and self.processes == 1:
            raise ValueError(f'sharding = "{self.sharding}" needs processes above 1')
        if self.sharding != "none" and self.validation:
            raise ValueError(
                "validation keeps whole weights, and goes without sharding"
            )
        return self


class SftTable(TrainTable):
    """Supervised fine-tuning on the gold patches."""

    learning_rate: PositiveFloat = 2e-4
    """Highest learning rate."""
    epochs: PositiveInt = 3
    """Passes over the training rows."""
    prompt_loss: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learn to write the prompts too, each token for so much of one of an answer: a model that begins as random numbers learns to copy from them far sooner. A pretrained one can do without; 0 leaves them out."""
    packing: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = True
    """Put the rows of a step behind one another without padding, up to `micro_tokens`, or the tokens of `micro_batch` times the longest row: the same losses and gradients in less time. Rows do not see each other, and a step is still `batch_size` of them. Models that this is not checked for are padded, and the stage says so."""


class DpoTable(TrainTable):
    """Direct preference optimisation; the reference is the SFT model."""

    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    learning_rate: PositiveFloat = 5e-7
    """Highest learning rate."""
    epochs: PositiveInt = 1
    """Passes over the pairs."""
    loss: Literal["sigmoid", "ipo", "hinge", "robust", "kto"] = "sigmoid"
    """Preference loss: `sigmoid` is DPO's own, `ipo` aims at a margin instead of the largest one (per token, so try other values of `beta`), `hinge` stops at a margin, `robust` expects wrong labels. `kto` takes each answer by itself, as good or as bad, so that issues which all candidates pass or fail count too (`[pairs] use = "unpaired"`)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """For `robust`: the share of pairs in which `rejected` may be the better one."""
    sft_weight: NonNegativeFloat = 0.0
    """Weight of an SFT term on `chosen` beside the preference loss (RPO style)."""
    shared_prefix: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = True
    """Read a prompt once for all answers to it in a micro-batch: the same losses and gradients in less time and memory. Models that this is not checked for read it once per answer, and the stage says so."""
    group_by_prompt: bool = False
    """Take the pairs of one prompt one after another, so that a `micro_batch` above 1 shares it among them; the batches are less mixed."""

    @model_validator(mode="after")
    def _smoothing_is_robust(self) -> Self:
        if (self.loss == "robust") != (self.label_smoothing > 0):
            raise ValueError('loss = "robust" and label_smoothing above 0 go together')
        return self

    @model_validator(mode="after")
    def _one_order(self) -> Self:
        if self.group_by_prompt and self.group_by_length:
            raise ValueError("group_by_prompt and group_by_length exclude each other")
        return self

    @model_validator(mode="after")
    def _kto_takes_answers_one_by_one(self) -> Self:
        if self.loss != "kto":
            return self
        if self.micro_batch < 2:
            raise ValueError(
                'loss = "kto" estimates how far the policy has gone from the other '
                "answers of a micro-batch: set micro_batch to 2 or more"
            )
        if self.sft_weight or self.group_by_prompt:
            raise ValueError(
                "sft_weight and group_by_prompt are for pairs, which "
                'loss = "kto" does not have'
            )
        if self.micro_tokens or self.group_by_length or self.processes > 1:
            raise ValueError(
                'loss = "kto" compares the answers of a micro-batch: it goes without '
                "micro_tokens, group_by_length and further processes"
            )
        return self

    @property
    def binding(self) -> frozenset[str]:
        """For `kto`, the micro-batch decides what is compared; TRL's SFT term is a mean over its tokens."""
        if self.sft_weight:
            return super().binding | {"micro_batch", "micro_tokens", "processes"}
        return super().binding | ({"micro_batch"} if self.loss == "kto" else set())


class SamplingTable(Table):
    """Keys that generation and evaluation share."""

    max_new_tokens: PositiveInt = 1024
    """Longest answer, in tokens."""
    batch_size: Annotated[PositiveInt, Field(json_schema_extra={VOLATILE: True})] = 16
    """Answers written at once."""


class GenerateTable(SamplingTable):
    """How candidates for grading are drawn."""

    model: (
        SerializeAsAny[ModelTable] | tuple[SerializeAsAny[ModelTable], ...] | None
    ) = None
    """Who writes: a `[model]` table such as `{ use = "replay", path = "preds.jsonl" }`, or a list of them, of which each writes `samples`. Default: the model under training, after SFT."""
    samples: PositiveInt = 8
    """Candidates per training instance, of each writer."""
    temperature: PositiveFloat = 0.8
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Nucleus: the smallest set of tokens with this probability."""
    top_k: NonNegativeInt = 0
    """Draw from so many of the most likely tokens; 0 means all of them. `top_p` is a part of what this leaves."""
    min_p: Fraction = 0.0
    """Leave out tokens that are less likely than this, relative to the most likely one."""
    greedy: bool = False
    """Whether sample 0 takes the most likely token each time, as `[evaluate]` does; the others are drawn."""

    @property
    def writers(self) -> tuple[ModelTable, ...]:
        """Who writes, where it is not the model under training."""
        if self.model is None:
            return ()
        return self.model if isinstance(self.model, tuple) else (self.model,)


class GradeTable(PluginTable):
    """Who runs the tests, and how."""

    use: str = "docker"
    """Grader: `docker`, `stock`, `namespace`, or a plugin's."""
    workers: Annotated[NonNegativeInt, Field(json_schema_extra={VOLATILE: True})] = 0
    """Candidates graded at once; 0 means three quarters of the cores."""
    timeout: PositiveInt = 1800
    """Seconds that one candidate's tests may take; SWE-bench Pro's own evaluation gives an hour, 3600."""
    timeout_factor: NonNegativeFloat = 0.0
    """Where it is above 0 and gold's time is known, a candidate may take so many times that, but no more than `timeout`."""
    timeout_floor: PositiveInt = 60
    """The least that `timeout_factor` leaves, in seconds."""
    retries: Annotated[NonNegativeInt, Field(json_schema_extra={VOLATILE: True})] = 1
    """How often a candidate is graded again after a fault of the machine."""
    max_faults: Annotated[NonNegativeInt, Field(json_schema_extra={VOLATILE: True})] = 0
    """So many candidates of a stage may stay ungraded for the machine's faults; with more it stops, to be called again."""
    admission_runs: Annotated[
        NonNegativeInt, Field(json_schema_extra={ONLY: "admit"})
    ] = 1
    """How often gold must pass (and no-op fail once) before an instance gives labels; 0 trusts every instance."""
    confirmations: Annotated[
        NonNegativeInt, Field(json_schema_extra={ONLY: "grade"})
    ] = 1
    """How often a trusted pass must pass again before it may be chosen; 0 believes the first run."""
    retest: Annotated[Fraction, Field(json_schema_extra={ONLY: "grade"})] = 0.05
    """Share of the failing candidates that run a second time, to measure how flaky the tests are."""
    dedupe: Annotated[
        Literal["tree", "patch", "off"], Field(json_schema_extra={VOLATILE: True})
    ] = "tree"
    """What shares one run: patches that leave the same files (`tree`), equal patches (`patch`), or nothing (`off`)."""
    cache: Annotated[bool, Field(json_schema_extra={VOLATILE: True})] = True
    """Whether test runs are kept for, and taken from, other recipes of this user (`swebench-train cache`)."""

    @model_validator(mode="after")
    def _the_cache_shares_runs(self) -> Self:
        if self.dedupe == "off" and self.cache:
            raise ValueError(
                'dedupe = "off" makes every run, and cache = true would answer '
                "some of them; add cache = false"
            )
        return self


class PairsTable(PluginTable):
    """How graded candidates become preferences."""

    one_sided: ClassVar[bool] = False
    """Whether the strategy gives answers that stand alone, for `[dpo] loss = "kto"`."""

    use: str = "self-generated"
    """Strategy: `self-generated`, `api-rejects`, `tiered`, `unpaired`, or a plugin's."""
    max_per_instance: PositiveInt = 4
    """At most so many pairs from one instance."""

    @property
    def needs_grades(self) -> bool:
        """Whether the candidates must be graded before there can be pairs."""
        return True

    @property
    def renders(self) -> bool:
        """Whether the strategy wants patches as answers (`GradedInstance.rendered`)."""
        return False


class EvaluateTable(SamplingTable):
    """Base, SFT and DPO model on the same prompts, one greedy answer each."""

    splits: Annotated[tuple[Split, ...], Field(min_length=1)] = ("heldout",)
    """Which splits to answer and grade."""


class PublishTable(PluginTable):
    """Where the adapter goes."""

    use: str = "directory"
    """Publisher: `directory`, `hub`, or a plugin's."""


class Recipe(Table):
    """A whole recipe. An absent table means that its stage does not run."""

    schema_version: Literal[1]
    """Version of the recipe format."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run directory under `--runs-dir`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything that is drawn."""
    data: DataTable
    """Where the instances come from."""
    contents: ContentsTable = ContentsTable()
    """Where the repositories' files come from."""
    prompt: PromptTable = PromptTable()
    """What the model reads and writes."""
    model: ModelTable | None = None
    """The model under training."""
    sft: SftTable | None = None
    """Supervised fine-tuning on the gold patches of the training split."""
    generate: GenerateTable | None = None
    """Candidates for the training split."""
    grade: GradeTable | None = None
    """Tests of the candidates; needed by `[evaluate]` too."""
    pairs: PairsTable | None = None
    """Preferences from graded candidates."""
    dpo: DpoTable | None = None
    """Preference optimisation."""
    evaluate: EvaluateTable | None = None
    """Comparison of base, SFT and DPO."""
    publish: PublishTable | None = None
    """Release of the last adapter."""


TABLES: dict[str, type[Table]] = {
    "data": DataTable,
    "contents": ContentsTable,
    "prompt": PromptTable,
    "model": ModelTable,
    "sft": SftTable,
    "generate": GenerateTable,
    "grade": GradeTable,
    "pairs": PairsTable,
    "dpo": DpoTable,
    "evaluate": EvaluateTable,
    "publish": PublishTable,
}
"""Base model of each table, by name, in the order in which a recipe has them."""


def resolved_settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting of a recipe as JSON-able values, plugins' own keys included."""
    settings: dict[str, Any] = {}
    for name in Recipe.model_fields:
        value = getattr(recipe, name)
        settings[name] = (
            value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        )
    return settings


def semantic_settings(table: BaseModel, stage: str = "") -> dict[str, Any]:
    """Settings of a table that decide a stage's result, for fingerprints."""
    kept = {}
    binding = table.binding if isinstance(table, Table) else ()
    for name, spec in type(table).model_fields.items():
        marks = spec.json_schema_extra
        if not isinstance(marks, dict):
            marks = {}
        volatile = marks.get(VOLATILE) and name not in binding
        if not volatile and marks.get(ONLY, stage) == stage:
            kept[name] = _semantic(getattr(table, name))
    return kept


def _semantic(value: Any) -> Any:
    """A value as fingerprints compare it: JSON-able, files by their content."""
    if isinstance(value, BaseModel):
        return semantic_settings(value)
    if isinstance(value, tuple):
        return [_semantic(item) for item in value]
    if isinstance(value, Path):
        return digest_path(value) if value.is_file() else str(value)
    if isinstance(value, date):
        return value.isoformat()
    return value
