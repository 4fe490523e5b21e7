"""Verdicts of SWE-bench Pro equal those of its own evaluation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from pro_task import (
    CALC,
    CHECKS,
    FIXED,
    RUN_SCRIPT,
    WRONG,
    LocalFactory,
    ProTask,
    job,
    official,
)

from swebench_trainer.contracts import Outcome
from swebench_trainer.grading.official import judge, test_spec
from swebench_trainer.grading.pro import (
    parser_name,
    read_tests,
    run_parser,
    script_was_changed,
    status_map,
    streams,
    without_binary_hunks,
)
from swebench_trainer.grading.rejudge import rejudge_file
from swebench_trainer.grading.run_candidate import CandidateRun
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import write_rows
from swebench_trainer.types import Instance, Status, Verdict, as_row

START, END = ">>>>> Start Test Output", ">>>>> End Test Output"


@pytest.fixture
def pro(tmp_path: Path) -> ProTask:
    (tmp_path / "task").mkdir()
    return ProTask(tmp_path / "task")


@pytest.fixture
def grade(tmp_path: Path):
    """Grades a patch with the scripts of a task, without a container."""

    def grade(task: ProTask, instance: Instance, patch: str, **keys: Any) -> Outcome:
        factory = LocalFactory(task, tmp_path / "box", keys.pop("path", ""))
        candidate = job(instance, patch, tmp_path / "logs", **keys)
        return CandidateRun(candidate, factory, 60).outcome()

    return grade


@pytest.mark.parametrize(
    ("extraction", "status"),
    [("no-op", Status.UNRESOLVED), ("ok", Status.RESOLVED)],
)
def test_judging_the_logs_again_gives_the_same_verdict(
    pro, grade, tmp_path, extraction, status
) -> None:
    instance = pro.instance()
    patch = "" if extraction == "no-op" else instance.patch
    outcome = grade(pro, instance, patch, extraction=extraction)
    assert outcome.status is status
    verdict = Verdict(
        *(instance.instance_id, 0, "model", outcome.status, dict(outcome.report)),
        flags=outcome.flags,
        reason=outcome.reason,
        log="logs",
        patch=digest(patch),
    )
    path = tmp_path / "verdicts.jsonl"
    write_rows(path, [as_row(verdict)])
    again = rejudge_file(path, {instance.instance_id: instance}, lambda _: None)
    assert again.derived == 1 and again.changes == []


def printing(text: str) -> dict[str, str]:
    """Tests that write exactly this to stdout, then `PASSED adds` if the fix is applied."""
    return {
        "tests/checks.py": "import sys\nfrom calc import add\n"
        f"sys.stdout.buffer.write({text.encode()!r})\n"
        "sys.stdout.buffer.flush()\n"
        "print(('PASSED' if add(2, 3) == 5 else 'FAILED'), 'adds')\n"
    }


def test_only_gold_passes(pro, grade) -> None:
    instance = pro.instance()
    assert grade(pro, instance, instance.patch).status is Status.RESOLVED
    wrong = grade(pro, instance, pro.patch({"calc.py": WRONG}))
    assert (wrong.status, wrong.flags) == (Status.UNRESOLVED, ())
    noop = grade(pro, instance, "", extraction="no-op")
    assert noop.status is Status.UNRESOLVED


def test_each_stream_reaches_the_parser_unchanged(pro, grade, tmp_path) -> None:
    """Test output is never mistaken for framing, and no byte of text is lost."""
    lines = [
        "E:PASSED forged",
        "O:O:E:",
        ".",
        f": '{END}'",
        f"{START}\n{END}",
        "carriage\rE:return",
        "windows\r\n",
        ">" * 41,
        "\x10.\x10r\x10\x10",
        "\\r \x1b[0m é \u2028 \x0b \x85",
        "",
    ]
    pro.tests = printing("\n".join(lines))
    pro.row = {"fail_to_pass": "['adds']", "pass_to_pass": "[]"}
    pro.parser = KEEPS_ITS_INPUT.format(folder=str(tmp_path)) + pro.parser
    instance = pro.instance()
    outcome = grade(pro, instance, instance.patch)
    assert outcome.status is Status.RESOLVED
    written = (tmp_path / "box" / "workspace" / "stdout.log").read_bytes()
    assert written == "\n".join([*lines[:-1], "PASSED adds\n"]).encode()
    assert (tmp_path / "stdout.log").read_bytes() == written
    stderr = (tmp_path / "box" / "workspace" / "stderr.log").read_bytes()
    assert (tmp_path / "stderr.log").read_bytes() == stderr
    assert b"+ read -ra files" in stderr


KEEPS_ITS_INPUT = """\
import pathlib
for name in ("stdout.log", "stderr.log"):
    pathlib.Path("{folder}", name).write_bytes(pathlib.Path(name).read_bytes())
"""


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n", ".", "a\n.", "\n\n", "a\n\n"])
def test_a_missing_final_newline_is_preserved(pro, text, tmp_path) -> None:
    script = pro.instance().eval_script
    definition = script[script.index("write_log()") : script.index("mkdir -p")]
    (tmp_path / "file").write_text(text)
    written = subprocess.run(
        ["bash", "-c", f"{definition}write_log {tmp_path}/file E:"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert streams(written.stdout) == {"stdout.log": "", "stderr.log": text}


def test_a_missing_stream_is_empty(pro, grade) -> None:
    pro.run_script = "#!/bin/bash\nrm /tmp/../workspace/stdout.log\n"
    instance = pro.instance()
    outcome = grade(pro, instance, instance.patch)
    assert outcome.status is Status.UNRESOLVED
    assert "no test results" in outcome.reason


# The rule: only PASSED, exact names, any entry.


def judged(tmp_path: Path, document: Any, f2p: list[str], p2p: list[str]) -> bool:
    """The result of `get_eval_report` for statuses found by a parser."""
    from swebench.harness.grading import get_eval_report
    from swebench.harness.log_parsers import PARSER_REGISTRY
    from swebench.types import TestSpec

    def parse(log: str, spec: TestSpec) -> dict[str, str]:
        found = read_tests(document) if START not in log else {}
        return status_map(found, [*spec.FAIL_TO_PASS, *spec.PASS_TO_PASS])

    log = tmp_path / "test_output.txt"
    if not log.exists():
        log.write_text(f": '{START}'\n: '{END}'\n>>>>> Test Exit Code: 0\n")
    PARSER_REGISTRY["of_this_test"] = parse
    spec = TestSpec("i", "", [], "", "", f2p, p2p, "of_this_test", "pass_and_fail")
    prediction = {"instance_id": "i", "model_patch": "x", "model_name_or_path": ""}
    try:
        report = get_eval_report(spec, prediction, str(log), True)
    finally:
        del PARSER_REGISTRY["of_this_test"]
    return bool(report["i"]["resolved"])


def official_rule(document: Any, f2p: list[str], p2p: list[str]) -> bool:
    """The rule of the evaluation script; unreadable output is not resolved."""
    try:
        passed = {t["name"] for t in document["tests"] if t["status"] == "PASSED"}
    except (TypeError, KeyError):
        return False
    return (set(f2p) | set(p2p)) <= passed


def entry(name: str, status: str) -> dict[str, str]:
    return {"name": name, "status": status}


@pytest.mark.parametrize(
    "status", ["SKIPPED", "XFAIL", "FAILED", "ERROR", "passed", ""]
)
@pytest.mark.parametrize("list_of", ["f2p", "p2p"])
def test_only_the_status_passed_counts_as_a_pass(tmp_path, status, list_of) -> None:
    names = {"f2p": ["a"], "p2p": ["b"]}
    document = {"tests": [entry("a", "PASSED"), entry("b", "PASSED")]}
    assert judged(tmp_path, document, **names)
    document["tests"][list_of == "p2p"]["status"] = status
    assert not judged(tmp_path, document, **names)


def test_a_name_with_an_open_bracket_is_not_a_prefix(tmp_path) -> None:
    document = {"tests": [entry("t[log(photon)]", "PASSED")]}
    assert not judged(tmp_path, document, ["t[log(photon"], [])


@pytest.mark.parametrize("statuses", ["PF", "FP", "FSPSF"])
def test_one_passed_entry_of_a_test_is_enough(tmp_path, statuses) -> None:
    words = {"P": "PASSED", "F": "FAILED", "S": "SKIPPED"}
    document = {"tests": [entry("a", words[letter]) for letter in statuses]}
    assert judged(tmp_path, document, ["a"], [])


NAMES = ["a", "a[", "a[b", "a[b]", "a[b][", " a", "a ", "a, b", "é", "$a *", "", "a\nb"]
STATUSES = [
    "PASSED",
    "FAILED",
    "SKIPPED",
    "ERROR",
    "XFAIL",
    "XPASS",
    "passed",
    "",
    None,
]
entries = st.fixed_dictionaries(
    {"name": st.sampled_from(NAMES), "status": st.sampled_from(STATUSES)}
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["tests", "name", "status"]), inner)
    ),
    max_leaves=8,
)
documents = (
    st.fixed_dictionaries({"tests": st.lists(entries, max_size=20)})
    | st.fixed_dictionaries({"tests": st.lists(entries | junk, max_size=5)})
    | junk
)
expected = st.lists(st.sampled_from(NAMES), max_size=6)


@settings(max_examples=150, deadline=None)
@given(document=documents, f2p=expected.filter(bool), p2p=expected)
def test_the_verdict_equals_the_official_rule(
    tmp_path_factory, document: Any, f2p: list[str], p2p: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert judged(folder, document, f2p, p2p) == official_rule(document, f2p, p2p)


def test_the_verdict_equals_the_official_rule_if_most_tests_pass(tmp_path) -> None:
    """Resolved and nearly resolved results, which random draws rarely give."""
    draw = random.Random(0)
    agreed = dict.fromkeys((True, False), 0)
    for _ in range(3_000):
        names = draw.sample(NAMES, 6)
        tests = [entry(name, "PASSED") for name in names]
        tests += [
            entry(draw.choice(NAMES), str(draw.choice(STATUSES))) for _ in range(4)
        ]
        draw.shuffle(tests)
        tests = tests[draw.randrange(2) :]
        f2p, p2p = names[:3], names[2:]
        verdict = official_rule({"tests": tests}, f2p, p2p)
        assert judged(tmp_path, {"tests": tests}, f2p, p2p) == verdict
        agreed[verdict] += 1
    assert min(agreed.values()) > 300


AWKWARD = [
    "with, comma",
    "$HOME `id` * 'x' \"y\" \\n ; & |",
    "  edge  ",
    "t[open",
    "t[open]",
    "t[a-b][c]",
    "é \u2028 ok",
    "\ttab",
]
"""Test names of the kinds found in the dataset."""


def test_awkward_names_get_the_official_verdict(pro, grade, tmp_path) -> None:
    """The patch makes every second test fail; each test is once the expected one."""
    checks = [
        f"check({name!r}, add({n}, 9) == {n + 9})" for n, name in enumerate(AWKWARD)
    ]
    pro.tests = {"tests/checks.py": "\n".join([CHECKS, *checks, ""])}
    instance = pro.instance()
    row = json.loads((pro.folder / "rows.jsonl").read_text())
    every_other = pro.patch({"calc.py": FIXED.replace("a + b", "a + b + a % 2")})
    grade(pro, instance, every_other)
    passed = official(pro, row, every_other, tmp_path / "official")
    assert passed >= {"with, comma", "  edge  "}
    verdicts = []
    for name in AWKWARD:
        one = dataclasses.replace(instance, FAIL_TO_PASS=(name,), PASS_TO_PASS=())
        report = judge(one, every_other, tmp_path / "logs" / "test_output.txt")
        assert report["resolved"] == (name in passed)
        verdicts.append(report["resolved"])
    assert verdicts == [True, False] * 4


def test_the_exit_status_of_the_tests_is_ignored(pro, grade) -> None:
    pro.run_script = RUN_SCRIPT + "exit 3\n"
    instance = pro.instance()
    assert grade(pro, instance, instance.patch).status is Status.RESOLVED


# The patch.


def test_tests_run_even_if_the_patch_is_refused_as_inexact(
    pro, grade, tmp_path
) -> None:
    """patch(1) would accept it, but officially only git decides."""
    body = "".join(f"# {n}\n" for n in range(9))
    pro.base = {"calc.py": CALC + body}
    pro.fix = {"calc.py": FIXED + body}
    instance = pro.instance()
    fuzzy = instance.patch.replace(" # 0\n", " # elsewhere\n")
    assert fuzzy != instance.patch
    outcome = grade(pro, instance, fuzzy)
    assert outcome.status is Status.NOT_APPLIED
    assert outcome.report["tests_status"]["FAIL_TO_PASS"]["failure"]
    assert "fuzz" not in (tmp_path / "logs" / "run_instance.log").read_text()


def test_tests_that_pass_without_the_patch_pass_if_it_is_refused(pro, grade) -> None:
    pro.base = {"calc.py": FIXED, "other.py": ""}
    pro.fix = {"other.py": "fixed = True\n"}
    instance = pro.instance()
    assert grade(pro, instance, "no patch\n").status is Status.RESOLVED


BINARY = """\
diff --git a/icon.png b/icon.png
new file mode 100644
index 0000000..5e2fbf1
GIT binary patch
literal 4
LcmZQzU|?ckU{C@8

literal 0
HcmV?d00001

"""
DIFFERS = """\
diff --git a/icon.png b/icon.png
index 1..2 100644
Binary files a/icon.png and b/icon.png differ
"""
TEXT = """\
diff --git a/x b/x
--- a/x
+++ b/x
@@ -1 +1 @@
-a
+Binary files a/icon.png and b/icon.png differ
"""


@pytest.mark.parametrize(
    ("patch", "left"),
    [
        (TEXT, TEXT),
        (BINARY, ""),
        (TEXT + BINARY + TEXT, TEXT + TEXT),
        (DIFFERS + TEXT, TEXT),
        ("From: me\n\n" + TEXT, "From: me\n\n" + TEXT),
        ("\n\n" + TEXT, TEXT),
        (TEXT.removesuffix("\n"), TEXT.removesuffix("\n")),
        ("no patch", "no patch"),
        (DIFFERS.replace("\n", "\r\n"), DIFFERS.replace("\n", "\r\n")),
    ],
)
def test_binary_hunks_are_removed(patch, left) -> None:
    assert without_binary_hunks(patch) == left


def test_a_patch_is_graded_without_its_binary_files(pro, grade, tmp_path) -> None:
    """The binary part does not apply; with it, git would refuse the whole patch."""
    instance = pro.instance()
    outcome = grade(pro, instance, DIFFERS + instance.patch + BINARY)
    assert outcome.status is Status.RESOLVED
    assert (tmp_path / "logs" / "patch.diff").read_text() == instance.patch


@pytest.mark.parametrize("extraction", ["ok", "no-op"])
def test_the_repository_is_reset_before_the_patch(pro, grade, extraction) -> None:
    instance = pro.instance()
    (pro.repository / "calc.py").write_text("def add(a, b):\n    return 5\n")
    patch = instance.patch if extraction == "ok" else ""
    outcome = grade(pro, instance, patch, extraction=extraction)
    wanted = Status.RESOLVED if extraction == "ok" else Status.UNRESOLVED
    assert outcome.status is wanted
    failing = outcome.report["tests_status"]["FAIL_TO_PASS"]["failure"]
    assert ("adds" in failing) == (extraction == "no-op")


# The eval script.


def test_the_file_list_is_interpreted_as_officially(pro, grade, tmp_path) -> None:
    """Unset variables are empty; the shell expands quotes and wildcards."""
    pro.run_script = "#!/bin/bash\nprintf '<%s>\\n' \"$@\"\nprintf 'PASSED adds\\n'\n"
    pro.row = {
        "selected_test_files_to_run": repr(
            ["a$db_key", "'two words'", "c*", '"q', 'r"', "calc.p?"]
        ),
        "fail_to_pass": "['adds']",
        "pass_to_pass": "[]",
    }
    instance = pro.instance()
    row = json.loads((pro.folder / "rows.jsonl").read_text())
    assert grade(pro, instance, instance.patch).status is Status.RESOLVED
    assert "adds" in official(pro, row, instance.patch, tmp_path / "official")
    ours, theirs = (
        (tmp_path / name / "workspace" / "stdout.log").read_text()
        for name in ("box", "official")
    )
    assert ours == theirs
    assert ours.startswith("<a,two words,c*,q,r,calc.p?>\n")


def test_a_comma_splits_a_file_name_as_officially(pro, grade, tmp_path) -> None:
    pro.run_script = (
        '#!/bin/bash\nIFS=, read -ra f <<< "$1"\nprintf "%s\\n" "${f[@]}"\n'
    )
    pro.row = {"selected_test_files_to_run": "['one,two', 'three']"}
    instance = pro.instance()
    grade(pro, instance, instance.patch)
    written = tmp_path / "box" / "workspace" / "stdout.log"
    assert written.read_text() == "one\ntwo\nthree\n"


def test_the_script_works_with_busybox_tools(pro, grade, tmp_path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("there is no busybox")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sed", "cat", "tr", "mkdir", "sha256sum", "sh", "cp", "rm", "mktemp"):
        (tools / name).symlink_to(busybox)
    pro.tests = printing("windows\r\n>>>>>\x10 \x00E:PASSED\n")
    pro.row = {"fail_to_pass": "['adds']", "pass_to_pass": "[]"}
    instance = pro.instance()
    outcome = grade(pro, instance, instance.patch, path=f"{tools}:{os.environ['PATH']}")
    assert outcome.status is Status.RESOLVED
    log = (tmp_path / "logs" / "test_output.txt").read_bytes().decode()
    assert not script_was_changed(instance.eval_script, log.replace(str(tmp_path), ""))
    assert streams(log)["stdout.log"].startswith("windows\r\n>>>>>\x10 E:PASSED\n")


# The parser, on this machine.


def results(source: str, stdout: str = "", stderr: str = "") -> dict[str, bool]:
    return run_parser(source, {"stdout.log": stdout, "stderr.log": stderr})


def writing(text: str) -> str:
    return f"import sys\nopen(sys.argv[3], 'w').write({text!r})\n"


def test_the_parser_is_called_as_officially(pro) -> None:
    found = results(
        pro.parser, "PASSED a\nFAILED b\nPASSED  c \n\nPASSED", "PASSED d\nPASSED é"
    )
    assert found == {
        **{"a": True, "b": False, " c ": True},
        **{"stderr: d": True, "stderr: é": True},
    }


def test_output_of_a_parser_that_fails_afterwards_counts() -> None:
    text = json.dumps({"tests": [entry("a", "PASSED")]})
    assert results(writing(text) + "sys.exit(1)\n") == {"a": True}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        "{}",
        '{"tests": null}',
        '{"tests": "PASSED"}',
        '{"tests": [["name", "status"]]}',
        '{"tests": [{"name": "a"}]}',
        '{"tests": [{"status": "PASSED"}]}',
        '{"tests": [{"name": ["a"], "status": "PASSED"}]}',
        '{"tests": [{"name": "a", "status": "PASSED"}, 1]}',
    ],
)
def test_output_in_another_form_has_no_results(text) -> None:
    assert results(writing(text)) == {}


# The kernel ends it, as after its own limit of two minutes.
HURRY = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 2))\n"


def test_a_parser_that_hangs_has_no_results() -> None:
    text = json.dumps({"tests": [entry("a", "PASSED")]})
    assert results(HURRY + writing(text)) == {"a": True}
    assert results(HURRY + "while True: pass\n" + writing(text)) == {}


def test_a_parser_without_processor_time_is_an_infrastructure_error(
    monkeypatch,
) -> None:
    monkeypatch.setattr("swebench_trainer.grading.pro.WALL_SECONDS", 0.5)
    with pytest.raises(OSError, match=r"0\.5 seconds"):
        results("import time; time.sleep(60)")


@pytest.mark.parametrize(
    "greed", ["bytearray(8 << 30)", "open('big', 'wb').truncate(1 << 40)"]
)
def test_a_parser_that_exceeds_its_limits_has_no_results(greed) -> None:
    text = json.dumps({"tests": [entry("a", "PASSED")]})
    assert results(f"{greed}\n" + writing(text)) == {}


def test_the_limits_apply_to_the_parser_process() -> None:
    from swebench_trainer.grading.limited_process import LIMITS

    found = results(
        "import json, resource\n"
        f"limits = [resource.getrlimit(kind) for kind in {list(LIMITS)}]\n"
        "tests = [{'name': str(soft), 'status': ''} for soft, hard in limits]\n"
        "json.dump({'tests': tests}, open('output.json', 'w'))\n"
    )
    assert set(found) == set(map(str, LIMITS.values()))


SEES = """\
import json, os, socket, sys
tests = [{"name": k, "status": ""} for k in os.environ if k != "LC_CTYPE"]
tests += [{"name": name, "status": ""} for name in sorted(os.listdir("."))]
tests += [{"name": "imports", "status": ""}] * ("site" in sys.modules)
try:
    socket.create_connection(("127.0.0.1", int(open("stdout.log").read())), 2)
    tests.append({"name": "network", "status": ""})
except OSError:
    pass
json.dump({"tests": tests}, open("output.json", "w"))
"""


def test_a_parser_sees_only_its_files(monkeypatch) -> None:
    import socket

    monkeypatch.setenv("SECRET", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = set(results(SEES, str(server.getsockname()[1])))
    files = {"parser.py", "stdout.log", "stderr.log"}
    if not has_user_namespaces():
        files.add("network")
    assert found == files


def has_user_namespaces() -> bool:
    done = subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True)
    return done.returncode == 0


def log_of(stdout: str) -> str:
    framed = "".join(f"O:{line}\n" for line in [*stdout.split("\n")])
    return f": '{START}'\n{framed.removesuffix(chr(10))}.\nE:.\n: '{END}'\n"


def test_instances_with_different_parsers_are_judged_concurrently(
    pro, tmp_path
) -> None:
    """Each log is read by the parser in its row, whatever the id."""
    instance = pro.instance()
    says = "import json, sys\njson.dump({{'tests': [{{'name': {!r}, 'status': 'PASSED'}}]}}, open(sys.argv[3], 'w'))\n"
    verdicts: dict[int, bool] = {}

    def run(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "test_output.txt").write_text(log_of("same"))
        changed = dataclasses.replace(
            instance,
            parser=says.format(f"test {number % 4}"),
            FAIL_TO_PASS=("test 0",),
            PASS_TO_PASS=(),
        )
        report = judge(changed, "patch", folder / "test_output.txt")
        verdicts[number] = report["resolved"]

    threads = [threading.Thread(target=run, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {n: n % 4 == 0 for n in range(12)}


def test_a_log_judged_twice_is_parsed_once(pro, tmp_path) -> None:
    counter = tmp_path / "runs"
    pro.parser = f"open({str(counter)!r}, 'a').write('x')\n" + pro.parser
    instance = pro.instance()
    log = tmp_path / "test_output.txt"
    log.write_text(log_of("PASSED adds\nPASSED keeps zero\nPASSED of its own\n"))
    for _ in range(3):
        assert not judge(instance, "patch", log)["resolved"]
    assert counter.read_text() == "x"
    changed = dataclasses.replace(instance, FAIL_TO_PASS=("adds",))
    assert judge(changed, "patch", log)["resolved"]
    assert counter.read_text() == "x"


def test_output_outside_the_markers_is_ignored(pro, tmp_path) -> None:
    instance = pro.instance()
    log = tmp_path / "test_output.txt"
    text = "O:PASSED adds\nO:PASSED keeps zero\nE:PASSED says so\n"
    log.write_text(f"{text}: '{START}'\nO:.\nE:.\n: '{END}'\n{text}")
    assert not judge(instance, "patch", log)["resolved"]


def test_each_program_is_a_parser_with_its_own_name(pro) -> None:
    instance = pro.instance()
    assert instance.log_parser == "swebench_pro"
    assert test_spec(instance).log_parser == parser_name(instance.parser)
    assert parser_name("a") != parser_name("b")


# Changes that tests could make to the run script.


def test_a_changed_run_script_is_detected(pro, grade, tmp_path) -> None:
    overwrite = "\nimport pathlib\nfor path in pathlib.Path('..').glob('*/run_script.sh'):\n    path.write_text('true')\n"
    pro.tests = {"tests/checks.py": CHECKS}
    instance = pro.instance()
    log = tmp_path / "logs" / "test_output.txt"
    assert grade(pro, instance, instance.patch).status is Status.RESOLVED
    assert not script_was_changed(instance.eval_script, log.read_text())
    hostile = pro.patch({"calc.py": FIXED + overwrite})
    assert grade(pro, instance, hostile).status is Status.RESOLVED
    assert script_was_changed(instance.eval_script, log.read_text())


@pytest.mark.parametrize(
    ("module", "status"), [(WRONG, Status.UNRESOLVED), (FIXED, Status.RESOLVED)]
)
def test_replaced_programs_do_not_write_the_log(
    pro, grade, tmp_path, module, status
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    code = f"""
import pathlib
for name in ("cat", "sed", "tr", "sha256sum"):
    program = pathlib.Path({str(tools)!r}, name)
    program.write_text("#!/bin/sh\\nprintf 'O:PASSED adds\\\\nO:.\\\\n'\\n")
    program.chmod(0o755)
"""
    instance = pro.instance()
    patch = pro.patch({"calc.py": module + code})
    outcome = grade(pro, instance, patch, path=f"{tools}:{os.environ['PATH']}")
    assert outcome.status is status
    assert (tools / "sed").exists()
    assert "script_changed" not in outcome.flags


@pytest.mark.parametrize("extra", ["S:\n", "S:0\n"])
def test_a_forged_digest_next_to_the_real_one_is_detected(pro, extra) -> None:
    script = pro.instance().eval_script
    lines = script.partition("RUN_SCRIPT'\n")[2].partition("END_OF")[0].splitlines(True)
    content = "".join(line.removeprefix("|") for line in lines)
    real = f"S:{hashlib.sha256(content.encode()).hexdigest()}  -\n"
    assert not script_was_changed(script, real)
    assert script_was_changed(script, extra + real)
    assert script_was_changed(script, "")
    assert not script_was_changed("an eval script of another dataset", "")
