"""Compare the graders with the official harness and with the tests' own time.

    python tests/realtasks/build.py build/realtasks
    python tests/realtasks/build.py build/slowtasks --manifest benchmarks/slowtasks.toml
    python benchmarks/grading.py [--only docker,namespace,exec,long,padded,ledger]

prints Markdown tables, in about half an hour. Everything runs on one machine, in
alternation, on the same images and patches, without the cache and shared runs. Verdicts
are compared too: a time counts only with equal verdicts.

    python benchmarks/grading.py --answers runs/realtasks

counts how the verdicts of a run were obtained.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer import builtin
from swebench_trainer.contracts import GoldRun, GradeJob, Grader
from swebench_trainer.errors import TrainerError
from swebench_trainer.grading.ledger import Ledger
from swebench_trainer.grading.official import harness_row, test_spec
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.store.jsonl import read_rows
from swebench_trainer.testing import PATCH, FakeGrader, an_instance
from swebench_trainer.types import Candidate, Instance, Status

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

ROOT = Path(__file__).parents[1]
REALTASKS, SLOWTASKS = ROOT / "build/realtasks", ROOT / "build/slowtasks"
HARNESS = Path(sys.executable).with_name("swebench")
MODEL = "benchmark"
CASES = ("docker", "namespace", "exec", "long", "padded", "ledger")

IMAGE = "namespace (image)"
NAMESPACES = {"namespace (host's programs)": "auto", IMAGE: "image"}
PER_ROUND = 2
"""Our runs per round of the harness's runs, which take much longer."""
PADDED_SECONDS = 60
LEDGER_INSTANCES, LEDGER_SAMPLES, WARM = 500, 20, 2000
KILLS = 5


@dataclass(frozen=True)
class Settings:
    """Command-line options."""

    cases: tuple[str, ...]
    rounds: int
    k: int
    workers: int
    tasks: int | None
    scratch: Path


@dataclass
class Run:
    """One measured run over a set of candidates.

    Attributes:
        seconds: Wall time, from the start to the removal of the last sandbox.
        resolved: Which candidates passed: instance id and sample.
        phases: Seconds of each candidate by phase, if the grader reports them.
    """

    seconds: float = 0.0
    resolved: set[tuple[str, int]] = field(default_factory=set)
    phases: list[Mapping[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One row of the table; `at_least` means that higher values are better."""

    case: str
    measured: str
    against: str
    ratio: float
    goal: float
    at_least: bool

    def __str__(self) -> str:
        reached = self.ratio >= self.goal if self.at_least else self.ratio <= self.goal
        goal = f"{'≥' if self.at_least else '≤'} {self.goal:g}"
        cells = (self.case, self.measured, self.against, f"{self.ratio:.2f}", goal)
        return f"| {' | '.join(cells)} | {'yes' if reached else '**no**'} |"


# --- Candidates ---------------------------------------------------------------------


@functools.cache
def plugins() -> Plugins:
    """The built-in plugins."""
    return Plugins({"builtin": builtin})


def load(folder: Path, limit: int | None) -> list[Instance]:
    """The instances of a task repo built by tests/realtasks/build.py."""
    if not folder.is_dir():
        sys.exit(
            f"There is no {folder}; the first lines of this file say how to build it."
        )
    entry = plugins().registry.get("source", "task-repo")
    source = entry.factory(entry.config(use="task-repo", path=folder))  # type: ignore[call-arg]  # a TaskRepoTable
    return list(source.load().instances[:limit])


def distinct_patches(instance: Instance, k: int) -> list[str]:
    """Gold and no fix in alternation, each with a unique file so that no run is shared."""
    added = "--- /dev/null\n+++ b/candidate.txt\n@@ -0,0 +1 @@\n+{}\n"
    gold = instance.patch
    return [("" if n % 2 else gold) + added.format(n) for n in range(k)]


def make_jobs(
    instances: Sequence[Instance], samples: Sequence[int], folder: Path
) -> list[GradeJob]:
    """A job for each instance and sample, with a separate log directory."""
    return [
        GradeJob(
            instance,
            Candidate(instance.instance_id, n, MODEL, "", patch),
            folder / str(n) / instance.instance_id,
        )
        for n in samples
        for instance in instances
        for patch in distinct_patches(instance, n + 1)[-1:]
    ]


# --- Graders ----------------------------------------------------------------------


@contextlib.contextmanager
def opened(use: str, workers: int) -> Iterator[Grader]:
    """A grader without cache and dedupe; closed at the end."""
    table: dict[str, Any] = {"use": use, "workers": workers, "timeout": 600}
    table |= {"retries": 0, "dedupe": "off", "cache": False}
    if use in NAMESPACES:
        table |= {"use": "namespace", "programs": NAMESPACES[use]}
    entry = plugins().registry.get("grader", table["use"])
    grader: Grader = entry.factory(entry.config.model_validate(table))
    try:
        yield grader
    finally:
        grader.close()


def grade(grader: Grader, jobs: Sequence[GradeJob]) -> Run:
    """Grade with an open grader."""
    run, start = Run(), time.monotonic()
    for job, outcome in grader.grade(jobs):
        if outcome.status is Status.RESOLVED:
            run.resolved.add((job.instance.instance_id, job.candidate.sample))
        elif outcome.status is not Status.UNRESOLVED:
            sys.exit(f"{job.instance.instance_id}: {outcome.status}, {outcome.reason}")
        run.phases.append(outcome.seconds or {})
    run.seconds = time.monotonic() - start
    return run


def ours(use: str, jobs: Sequence[GradeJob], workers: int) -> Run:
    """A complete run: create, check, use and close a grader."""
    start = time.monotonic()
    with opened(use, workers) as grader:
        grader.check([job.instance for job in jobs])
        run = grade(grader, jobs)
    run.seconds = time.monotonic() - start
    return run


def fit(use: str, jobs: Sequence[GradeJob], workers: int) -> list[GradeJob]:
    """The jobs of the instances that a grader admits: those whose gold passes.

    The host's programs do not do for all. It is a warm-up too: images are exported.
    """
    gold = [job for job in jobs if job.candidate.sample == 0]
    try:
        passed = ours(use, gold, workers).resolved
    except TrainerError as error:
        say(f"without {use}: {error.message}")
        passed = set()
    return [job for job in jobs if (job.instance.instance_id, 0) in passed]


def harness(jobs: Sequence[GradeJob], workers: int, folder: Path) -> Run:
    """`swebench eval` on one prediction per instance, under a separate run id."""
    folder.mkdir(parents=True)
    predictions = [
        {
            "instance_id": job.instance.instance_id,
            "model_name_or_path": MODEL,
            "model_patch": job.candidate.patch,
        }
        for job in jobs
    ]
    rows = [harness_row(job.instance) for job in jobs]
    for name, content in (("dataset", rows), ("predictions", predictions)):
        text = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(text)
    arguments = ["eval", "dataset.jsonl", "-p", "predictions.jsonl"]
    arguments += ["--run-id", "run", "-j", str(workers)]
    start = time.monotonic()
    command = [str(HARNESS), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = time.monotonic() - start
    if done.returncode:  # its report fails if other processes remove containers
        sys.exit(f"swebench eval failed; does anybody else use Docker?\n{done.stderr}")
    report = json.loads((folder / f"{MODEL}.run.json").read_text())
    samples = {job.instance.instance_id: job.candidate.sample for job in jobs}
    return Run(seconds, {(name, samples[name]) for name in report["resolved_ids"]})


def harness_per_sample(
    jobs: Sequence[GradeJob], workers: int, folder: Path
) -> Iterator[Run]:
    """Loop over samples like a user: the n-th patches of all instances per run id.

    That is all it takes: one prediction per instance and run.
    """
    for n in sorted({job.candidate.sample for job in jobs}):
        chosen = [job for job in jobs if job.candidate.sample == n]
        yield harness(chosen, workers, folder / str(n))


def bare_seconds(client: DockerClient, job: GradeJob) -> float:
    """Seconds of `docker exec` of the eval script in a running container."""
    container = client.containers.run(
        job.instance.image, "tail -f /dev/null", detach=True, cap_add=["SYS_ADMIN"]
    )
    try:
        patch, script = job.candidate.patch, test_spec(job.instance).eval_script
        _put(container, {"tmp/patch.diff": patch, "eval.sh": script})
        applied = container.exec_run("git apply /tmp/patch.diff", workdir="/testbed")
        assert applied.exit_code == 0, applied.output
        command = ["docker", "exec", str(container.id), "/bin/bash", "/eval.sh"]
        start = time.monotonic()
        subprocess.run(command, capture_output=True)
        return time.monotonic() - start
    finally:
        container.remove(force=True, v=True)


def _put(container: Container, files: Mapping[str, str]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    container.put_archive("/", buffer.getvalue())


def must_agree(
    use: str, jobs: Iterable[GradeJob], runs: Iterable[Run], official: Iterable[Run]
) -> None:
    """End the benchmark if verdicts differ."""
    graded = {(job.instance.instance_id, job.candidate.sample) for job in jobs}
    truth = set().union(*(run.resolved for run in official)) & graded
    for run in runs:
        if run.resolved != truth:
            sys.exit(f"{use} disagrees about {sorted(run.resolved ^ truth)}")


# --- Cases ---------------------------------------------------------------------------


def against_harness(settings: Settings, uses: Sequence[str]) -> Iterator[Row]:
    """Candidates per minute, on many short tests."""
    instances = load(REALTASKS, settings.tasks)
    jobs = make_jobs(instances, range(settings.k), settings.scratch / "ours")
    found = {use: fit(use, jobs, settings.workers) for use in uses}
    chosen = {use: mine for use, mine in found.items() if mine}
    runs: dict[str, list[Run]] = {use: [] for use in chosen}
    official: list[Run] = []
    every = max(1, settings.k // PER_ROUND)
    for number in range(settings.rounds):
        folder = settings.scratch / f"harness-{number}"
        loop = harness_per_sample(jobs, settings.workers, folder)
        for turn, run in enumerate(loop, start=1):
            say(f"harness, run id {turn}: {run.seconds:.1f} s")
            official.append(run)
            if turn % every == 0:
                for use, mine in chosen.items():
                    runs[use].append(ours(use, mine, settings.workers))
                    say(f"{use}: {runs[use][-1].seconds:.1f} s")
    show_profile(runs, settings.workers)
    stock = len(instances) / _median(official) * 60
    for use, mine in chosen.items():
        must_agree(use, mine, runs[use], official)
        rate = len(mine) / _median(runs[use]) * 60
        yield Row(
            f"{use}, {len(mine) // settings.k} tasks, {settings.k} patches each",
            f"{rate:.0f} a minute",
            f"{stock:.1f} a minute (`swebench eval`)",
            rate / stock,
            goal=12 if use == "docker" else 25,
            at_least=True,
        )


def against_exec(settings: Settings) -> Iterator[Row]:
    """Sequential candidates, compared with a running container.

    On the image alone: other programs would take other times for the same tests.
    """
    import docker

    instances = load(REALTASKS, settings.tasks)
    jobs = make_jobs(instances, (0, 1), settings.scratch / "exec")
    jobs = fit(IMAGE, jobs, settings.workers)
    with (
        contextlib.closing(docker.from_env()) as client,
        opened(IMAGE, 1) as grader,
    ):
        pairs = [
            (grade(grader, [job]).seconds, bare_seconds(client, job))
            for job in jobs * settings.rounds
        ]
    walls, bares = zip(*pairs, strict=True)
    yield Row(
        f"{IMAGE}, {len(pairs)} candidates in series",
        f"{statistics.mean(walls):.2f} s each",
        f"{statistics.mean(bares):.2f} s (`docker exec`)",
        sum(walls) / sum(bares),
        goal=1.2,
        at_least=False,
    )


def long_tests(settings: Settings) -> Iterator[Row]:
    """Tests of several seconds, compared with the optimum for the workers."""
    import docker

    uses = ("docker", IMAGE)
    jobs = make_jobs(load(SLOWTASKS, settings.tasks), (0, 1), settings.scratch / "long")
    ideal: list[float] = []
    runs: dict[str, list[Run]] = {use: [] for use in uses}
    official: list[list[Run]] = []
    for number in range(settings.rounds):
        with contextlib.closing(docker.from_env()) as client:
            seconds = [bare_seconds(client, job) for job in jobs]
        ideal.append(sum(seconds) / settings.workers)
        spread = ", ".join(f"{second:.1f}" for second in sorted(seconds))
        say(f"bare tests: {sum(seconds):.1f} s, one by one {spread}")
        # As after admission, which measures gold: the longest jobs come first.
        timed = [
            dataclasses.replace(job, gold=GoldRun(second))
            for job, second in zip(jobs, seconds, strict=True)
        ]
        for use in uses:
            if number == 0:
                ours(use, jobs[:1], 1)
            runs[use].append(ours(use, timed, settings.workers))
            say(f"{use}: {runs[use][-1].seconds:.1f} s")
        folder = settings.scratch / f"long-{number}"
        official.append(list(harness_per_sample(jobs, settings.workers, folder)))
        say(f"harness: {sum(run.seconds for run in official[-1]):.1f} s")
    for use, done in runs.items():
        must_agree(use, jobs, done, official[-1])
    against = statistics.median(ideal)
    loops = (sum(run.seconds for run in done) for done in official)
    stock = statistics.median(loops) / against
    for use, done in runs.items():
        yield Row(
            f"{use}, {len(jobs)} candidates with tests of seconds",
            f"{_median(done):.0f} s",
            f"{against:.0f} s (bare tests / workers; `swebench eval`: {stock:.1f} times)",
            _median(done) / against,
            goal=1.2,
            at_least=False,
        )


def padded(settings: Settings) -> Iterator[Row]:
    """Tests of a minute that mostly sleep."""
    instance = load(REALTASKS, 1)[0]
    start = ": '>>>>> Start Test Output'\n"
    script = instance.eval_script.replace(start, f"{start}sleep {PADDED_SECONDS}\n")
    instance = dataclasses.replace(instance, eval_script=script)
    jobs = make_jobs(
        [
            dataclasses.replace(instance, instance_id=f"{instance.instance_id}-{n}")
            for n in range(settings.workers)
        ],
        (0,),
        settings.scratch / "padded",
    )
    runs, official = [], []
    for number in range(settings.rounds):
        runs.append(ours("docker", jobs, settings.workers))
        folder = settings.scratch / f"padded-{number}"
        official.append(harness(jobs, settings.workers, folder))
    must_agree("docker", jobs, runs, official)
    yield Row(
        f"docker, {len(jobs)} candidates with tests of {PADDED_SECONDS} s",
        f"{_median(runs):.1f} s",
        f"{_median(official):.1f} s (`swebench eval`)",
        _median(official) / _median(runs),
        goal=1.2,
        at_least=True,
    )


def ledger(settings: Settings) -> Iterator[Row]:
    """Ten thousand candidates with a grader that returns at once."""
    folder = settings.scratch / "ledger"
    seconds, memory = decide_all(folder / "whole")
    killed = 0.0
    for number in range(KILLS):
        limit = seconds * random.Random(number).uniform(0.02, 0.3)  # noqa: S311 - not a secret
        killed += decide_all(folder / "killed", limit)[0]
    begun = len(read_rows(folder / "killed" / "verdicts.jsonl"))
    rest, _ = decide_all(folder / "killed")
    same = [
        (folder / name / "verdicts.jsonl").read_bytes() for name in ("whole", "killed")
    ]
    if same[0] != same[1]:
        sys.exit("A ledger that was killed and went on has other verdicts.")
    count = LEDGER_INSTANCES * LEDGER_SAMPLES
    say(f"the last kill left {begun} of {count} verdicts")
    name = f"{count} candidates of {LEDGER_INSTANCES} instances, answered at once"
    yield Row(name, f"{seconds:.1f} s", "60 s", seconds / 60, 1, at_least=False)
    yield Row(
        f"the same, killed {KILLS} times and gone on with; equal verdicts",
        f"{killed + rest:.1f} s",
        "60 s",
        (killed + rest) / 60,
        1,
        at_least=False,
    )
    early, late = memory
    yield Row(
        f"its memory after {WARM} and after {count}",
        f"{late:.0f} MB",
        f"{early:.0f} MB",
        late / early,
        1.2,
        at_least=False,
    )


def decide_all(
    folder: Path, kill_after: float | None = None
) -> tuple[float, list[float]]:
    """Seconds to fill a ledger in a separate process, and its early and late memory in MB."""
    context = get_context("spawn")
    results = context.Queue()
    process = context.Process(target=fill_ledger, args=(folder, results))
    process.start()
    results.get()  # started: exclude its imports
    start = time.monotonic()
    process.join(kill_after)
    process.kill()
    process.join()
    seconds = time.monotonic() - start
    return seconds, results.get() if kill_after is None else []


def fill_ledger(folder: Path, results: Any) -> None:
    """Grade every candidate without a verdict."""
    instances = [an_instance(n) for n in range(LEDGER_INSTANCES)]
    candidates = [
        Candidate(i.instance_id, n, MODEL, "", f"{PATCH}# {n}\n")
        for i in instances
        for n in range(LEDGER_SAMPLES)
    ]
    memory: list[float] = []
    results.put("up")

    def done(_: str, count: int, total: int, __: str) -> None:
        if count in (WARM, total):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    Ledger(folder, instances, run_id="run").grade(FakeGrader(), candidates, done)
    results.put(memory)


# --- Output ----------------------------------------------------------------------


def show_profile(runs: Mapping[str, Sequence[Run]], workers: int) -> None:
    """Time of a candidate by phase."""
    phases = {
        use: [p for run in done for p in run.phases] for use, done in runs.items()
    }
    names = list(
        dict.fromkeys(n for found in phases.values() for p in found for n in p)
    )
    print(f"\n| medians of a candidate, s | {' | '.join([*names, 'rest'])} |")
    print(f"| --- |{' --- |' * (len(names) + 1)}")
    for use, done in runs.items():
        found = phases[use]
        cells = [statistics.median(p.get(name, 0.0) for p in found) for name in names]
        # Workers share a run's wall time; the rest belongs to no phase.
        spent = workers * sum(run.seconds for run in done) / len(found)
        cells.append(spent - statistics.mean(sum(p.values()) for p in found))
        print(f"| {use} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    print(flush=True)


def answers(folder: Path) -> Counter[str]:
    """How the verdicts of a run directory, or of one stage, were obtained.

    Returns:
        Counts of `run`, `tree` and `cache` (see `Outcome.answered_by`), and of
        `equal patch`: verdicts that needed no job of their own, because an equal
        patch had one or because there was no patch.
    """
    found: Counter[str] = Counter()
    for timings in folder.rglob("timings.jsonl"):
        rows = read_rows(timings)
        found.update(str(row.get("answered_by", "run")) for row in rows)
        verdicts = len(read_rows(timings.with_name("verdicts.jsonl")))
        found["equal patch"] += max(0, verdicts - len(rows))
    return found


def show_answers(folder: Path) -> None:
    """Print the counts of `answers` with their shares."""
    counts = answers(folder)
    total = counts.total() or 1
    print("| answered by | verdicts | share |\n| --- | --- | --- |")
    for name, count in counts.most_common():
        print(f"| {name} | {count} | {count / total:.0%} |")


def machine() -> str:
    """The machine and the versions in one sentence."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = [
        f"{os.cpu_count()} cores of {cpu[1] if cpu else platform.machine()}",
        f"{memory:.0f} GB",
        platform.platform(),
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("swebench", "swebench-trainer")),
    ]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        form = "Docker {{.ServerVersion}} ({{.Driver}})"
        docker = ["docker", "info", "--format", form]
        facts.append(subprocess.check_output(docker, text=True).strip())
    return ", ".join(facts)


def say(text: str) -> None:
    """Print progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def _median(runs: Iterable[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def measure(settings: Settings) -> Iterator[Row]:
    """All requested rows."""
    uses = ["docker"] if "docker" in settings.cases else []
    uses += NAMESPACES if "namespace" in settings.cases else []
    if uses:
        yield from against_harness(settings, uses)
    others: dict[str, Callable[[Settings], Iterator[Row]]] = {
        "exec": against_exec,
        "long": long_tests,
        "padded": padded,
        "ledger": ledger,
    }
    for name, case in others.items():
        if name in settings.cases:
            yield from case(settings)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(CASES), help="cases, with commas")
    parser.add_argument("--rounds", type=int, default=1, help="of everything")
    parser.add_argument("--k", type=int, default=8, help="patches per task")
    parser.add_argument("--workers", type=int, default=2, help="candidates at once")
    parser.add_argument("--tasks", type=int, help="use only the first N tasks")
    parser.add_argument("--answers", type=Path, metavar="RUN", help="count, no timing")
    arguments = parser.parse_args()
    if arguments.answers:
        return show_answers(arguments.answers)
    cases = tuple(arguments.only.split(","))
    if unknown := set(cases) - set(CASES):
        parser.error(f"no such case: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(
            cases,
            arguments.rounds,
            arguments.k,
            arguments.workers,
            arguments.tasks,
            Path(scratch),
        )
        workers, rounds = settings.workers, settings.rounds
        print(f"{machine()}.\n{workers} workers, {rounds} rounds.", flush=True)
        rows: list[Row] = []
        try:
            rows.extend(measure(settings))
        finally:  # print the measurements so far even after an error
            print("| case | ours | against | ratio | goal | reached |")
            print("| --- | --- | --- | --- | --- | --- |")
            print(*rows, sep="\n")


if __name__ == "__main__":
    main()
