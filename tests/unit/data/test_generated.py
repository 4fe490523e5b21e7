"""Generated tasks are consistent, and the two sides share nothing."""

import ast
import io
import json
import re
import subprocess
import sys
import types
import unittest
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from pydantic import ValidationError

from swebench_trainer.answers.forms import extract_patch, render_answer
from swebench_trainer.contents.directory import Directory
from swebench_trainer.data.generated.functions import (
    call_all,
    draw_cases,
    draw_function,
    every_form,
    insert_bug,
    shortest_forms,
    vocabulary,
)
from swebench_trainer.data.generated.source import GeneratedSource, GeneratedTable
from swebench_trainer.data.generated.tasks import draw_tasks
from swebench_trainer.data.leakage import find_leakage
from swebench_trainer.data.metadata import InstanceSet
from swebench_trainer.data.select import split
from swebench_trainer.errors import DataError
from swebench_trainer.grading.snapshot import snapshot_repository
from swebench_trainer.store.cache import entries
from swebench_trainer.types import as_row

HELDOUT, GRADED, TRAIN = 40, 20, 80


@pytest.fixture(scope="module")
def tasks():
    return list(draw_tasks(0, HELDOUT, GRADED, TRAIN))


def source(**keys):
    sizes = {"heldout": 4, "graded": 3, "count": 8}
    return GeneratedSource(GeneratedTable(use="generated", **{**sizes, **keys}))


def functions_of(code):
    return {ast.unparse(node) for node in ast.parse(code).body[1:]}


def applied(files, patch, folder):
    """Files with a patch applied to them, by git."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        (folder / path).write_text(text)
    command = ["git", "apply", "-"]
    subprocess.run(command, input=patch, text=True, cwd=folder, check=True)
    return {path: (folder / path).read_text() for path in files}


def failing_tests(files):
    """Runs the tests of a repository in this process: all of them, those that fail."""
    module, test = (Path(path).stem for path in files)
    try:
        for name, text in zip((module, test), files.values(), strict=True):
            sys.modules[name] = types.ModuleType(name)
            exec(text, sys.modules[name].__dict__)
        suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[test])
        names = {str(case) for cases in suite for case in cases}
        result = unittest.TextTestRunner(io.StringIO()).run(suite)
        failed = {str(case) for case, _ in (*result.failures, *result.errors)}
        return names, failed
    finally:
        for name in (module, test):
            del sys.modules[name]


@pytest.mark.parametrize("form", every_form(), ids=lambda form: form.call[0])
def test_every_bug_of_every_form_can_fail_a_test(form):
    for kind, right, wrong in form.faults:
        rng = Random(0)
        functions = (draw_function(rng, form) for _ in range(20))
        assert any(
            case.fails
            for function in functions
            for case in draw_cases(rng, function, insert_bug(function, right, wrong))
        ), (kind, right, wrong)


def test_the_docs_state_the_number_of_forms_and_bugs(pytestconfig):
    kinds = Counter(kind for form in every_form() for kind, _, _ in form.faults)
    assert min(kinds.values()) >= 4
    text = " ".join((pytestconfig.rootpath / "docs/data.md").read_text().split())
    assert re.search(
        rf"\b{len(every_form())} forms of [^.]* {len(kinds)} kinds of", text
    )


def test_no_module_shadows_the_standard_library():
    parts = vocabulary()["things"].values()
    assert sys.stdlib_module_names.isdisjoint(parts)
    assert sys.stdlib_module_names.isdisjoint(f"test_{name}" for name in parts)


def test_tasks_cover_all_kinds_of_bugs(tasks):
    kinds = Counter(task.kind for task in tasks)
    assert len(kinds) == 11
    assert max(kinds.values()) < len(tasks) / 3


def test_tests_fail_before_and_pass_after(tasks, tmp_path):
    for task in tasks[: HELDOUT + GRADED]:
        instance, folder = task.instance, tmp_path / task.instance.instance_id
        tests = {*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS}
        before = applied(task.files, instance.test_patch, folder)
        assert failing_tests(before) == (tests, set(instance.FAIL_TO_PASS))
        after = applied(before, instance.patch, folder)
        assert failing_tests(after) == (tests, set())


def test_the_issue_names_a_failing_call(tasks):
    for task in tasks:
        issue = task.instance.problem_statement
        code = next(iter(task.files.values()))
        names = [node.name for node in ast.parse(code).body[1:]]
        (call,) = (text for text in issue.split("`") if text.partition("(")[0] in names)
        assert call.partition("(")[0] in issue.replace(call, "")
        (got,) = call_all(code, [call])
        assert (got.error or repr(got.value)) in issue or "nothing" in issue


@pytest.mark.parametrize("form", ["search-replace", "diff"])
def test_gold_can_be_written_and_read_as_an_answer(tasks, form, tmp_path):
    for task in tasks[:HELDOUT]:
        folder = tmp_path / task.instance.instance_id
        gold = applied(task.files, task.instance.patch, folder / "gold")
        tree = Directory(folder / "tree")
        applied(task.files, task.instance.test_patch, folder / "tree")
        extracted = extract_patch(form, render_answer(form, task.instance, tree), tree)
        assert str(extracted.extraction) == "ok"
        assert applied(task.files, extracted.patch, folder / "again") == gold


def test_training_and_heldout_tasks_share_nothing(tasks):
    back, train = tasks[:HELDOUT], tasks[HELDOUT:]
    found = find_leakage(
        *(InstanceSet([t.instance for t in side]) for side in (back, train))
    )
    assert not found.findings
    functions = [functions_of(next(iter(task.files.values()))) for task in tasks]
    for number, mine in enumerate(functions[:HELDOUT]):
        for other in functions[number + 1 :]:
            assert mine.isdisjoint(other)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_thousands_of_tasks_share_nothing_with_the_held_out_ones(seed):
    instances = [task.instance for task in draw_tasks(seed, 200, 400, 6000)]
    assert not find_leakage(
        InstanceSet(instances[:200]), InstanceSet(instances[200:])
    ).findings


def test_a_larger_count_leaves_existing_tasks_unchanged(tasks):
    instances = [task.instance for task in tasks]
    more = draw_tasks(0, HELDOUT, GRADED, TRAIN + 10)
    assert [task.instance for task in more][: len(tasks)] == instances
    fewer = [task.instance for task in draw_tasks(0, HELDOUT, 0, TRAIN)]
    assert [i.patch for i in fewer] == [i.patch for i in instances]
    other = [task.instance for task in draw_tasks(1, HELDOUT, GRADED, 0)]
    assert not {i.patch for i in other} & {i.patch for i in instances}


def test_a_limit_on_forms_selects_the_shortest():
    few = shortest_forms(4)
    longest = max(len(form.code) for form in few)
    assert all(len(form.code) >= longest for form in set(every_form()) - set(few))
    docstrings = [re.escape(form.code.split('"""')[1]) for form in few]
    known = "|".join(re.sub(r"\\\$(\\\{)?\w+(\\\})?", r"\\w+", d) for d in docstrings)
    (found, *_) = tasks = list(draw_tasks(0, 10, 0, 10, few))
    assert found.instance != next(draw_tasks(0, 10, 0, 10)).instance
    for task in tasks:
        (text,) = (text for path, text in task.files.items() if "test_" not in path)
        told = [ast.get_docstring(function) for function in ast.parse(text).body[1:]]
        assert len(told) > 1 and all(re.fullmatch(known, text) for text in told)
    assert set(shortest_forms(36)) == set(every_form())


def test_forms_with_numbers_can_be_excluded():
    forms = shortest_forms(12, numbered=False)
    names = set(re.findall(r"\w+", " ".join(form.code for form in forms)))
    assert not names & {"n", "m"}
    texts = {
        re.sub(r"[a-z_]+", "", text)
        for task in draw_tasks(0, 10, 0, 40, forms)
        for path, text in task.files.items()
        if "test_" not in path
    }
    constants = {number for form in forms for number in re.findall(r"\d+", form.code)}
    faults = {
        n
        for form in forms
        for fault in form.faults
        for n in re.findall(r"\d+", fault[2])
    }
    assert {n for text in texts for n in re.findall(r"\d+", text)} <= constants | faults
    assert set(forms) < set(shortest_forms(0, numbered=False)) < set(every_form())


def test_the_given_share_of_docstrings_has_a_ticket_number(tmp_path):
    tasks = list(draw_tasks(0, 20, 20, 100, tickets=0.25))
    texts = [next(iter(task.files.values())) for task in tasks]
    functions = [node for text in texts for node in ast.parse(text).body[1:]]
    told = [ast.get_docstring(function) for function in functions]
    signed = [text for text in told if re.search(r"\. Ticket \d{12}\.$", text)]
    assert "".join(texts).count("Ticket") == len(signed)
    assert len(set(signed)) == len(signed)
    assert 0.15 < len(signed) / len(told) < 0.35
    for task in tasks[:20]:
        folder = tmp_path / task.instance.instance_id
        before = applied(task.files, task.instance.test_patch, folder)
        assert not failing_tests(applied(before, task.instance.patch, folder))[1]


@pytest.mark.parametrize("number", [1, 2, 37])
def test_too_few_forms_for_a_module_are_rejected(number):
    with pytest.raises(ValidationError, match=r"forms must be 0 \(all\) or between 3"):
        source(forms=number)


def test_excluding_numbers_lowers_the_maximum_of_forms():
    with pytest.raises(ValidationError, match="and 29"):
        source(forms=30, numbers=False)


def test_tasks_without_tests_are_not_gradable(tasks):
    gradable = [task.instance.gradable for task in tasks]
    assert gradable == [True] * (HELDOUT + GRADED) + [False] * (TRAIN - GRADED)


def test_too_many_held_out_tasks_raise(monkeypatch):
    monkeypatch.setattr("swebench_trainer.data.generated.tasks._ATTEMPTS", 1)
    with pytest.raises(ValueError, match="exhaust the distinct tasks"):
        list(draw_tasks(0, 200, 0, 1))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/swebench-trainer/generated"


def test_tasks_are_identical_in_another_process(cache):
    loaded = source().load()
    script = (
        "import json, sys\n"
        "from swebench_trainer.data.generated.tasks import draw_tasks\n"
        "from swebench_trainer.types import as_row\n"
        "json.dump([as_row(t.instance) for t in draw_tasks(0, 4, 3, 8)], sys.stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    where = {"snapshot": "", "source": ""}
    rows = [{**as_row(instance), **where} for instance in loaded.instances]
    assert json.loads(done.stdout) == json.loads(json.dumps(rows))


def test_the_snapshot_has_the_base_commit_id(cache):
    for instance in source().load().instances:
        snapshot_repository(instance)  # raises where they are not


def test_tasks_are_generated_once(cache, monkeypatch):
    first = source().load()
    monkeypatch.delattr(GeneratedSource, "_write")
    assert source().load() == first
    (entry,) = entries(cache)
    assert entry.path.name == source().digest()
    assert {path.suffix for path in cache.iterdir()} == {"", ".lock"}


def test_an_unfinished_cache_entry_is_rebuilt(cache, monkeypatch):
    write_rows = "swebench_trainer.data.generated.source.write_rows"
    with monkeypatch.context() as patch:
        patch.setattr(write_rows, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            source().load()
    assert entries(cache) == []
    assert len(source().load().instances) == 12


def test_the_digest_depends_on_the_settings():
    others = [{"seed": 1}, {"count": 9}, {"graded": 2}, {"heldout": 3}]
    others += [{"forms": 4}, {"tickets": 0.5}, {"numbers": False}]
    digests = {source(**keys).digest() for keys in ({}, *others)}
    assert len(digests) == 1 + len(others)
    assert source(limit=3).digest() == source().digest()


def test_the_heldout_tasks_are_held_out_by_default(cache):
    table = GeneratedTable(use="generated", heldout=4, graded=3, count=8)
    instances = GeneratedSource(table).load().instances
    back = split(InstanceSet(instances).metadata, table.holdout, seed=0)
    assert back.ids == {instance.instance_id for instance in instances[:4]}
    assert back.stable


def test_more_graded_tasks_than_tasks_are_rejected():
    with pytest.raises(ValidationError, match="graded = 9 is more than count = 8"):
        source(graded=9)


def test_an_exhausted_generator_names_the_key_to_change(cache, monkeypatch):
    monkeypatch.setattr("swebench_trainer.data.generated.tasks._ATTEMPTS", 1)
    with pytest.raises(DataError, match="exhaust") as caught:
        source(heldout=200).load()
    assert "heldout" in caught.value.hint
