"""SWE-bench Pro's rows and scripts become instances that the harness can grade."""

import csv
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from swebench_trainer.data.pro import (
    ProSource,
    ProTable,
    checkout,
    eval_script,
    image_tag,
    is_address,
)
from swebench_trainer.errors import DataError
from swebench_trainer.store.cache import PruneLimits, prune
from swebench_trainer.testing import check_source
from swebench_trainer.types import Instance, as_row, from_row

FIX = "f" * 40
NAME = f"instance_ACME__Calc-{FIX}-vnan"
ROW = {
    "repo": "ACME/Calc",
    "instance_id": NAME,
    "base_commit": "b" * 40,
    "patch": "diff --git a/x b/x\n",
    "test_patch": "diff --git a/t b/t\n--- a/t\n+++ b/t\n@@ -1 +1 @@\n-a\n+b\n",
    "problem_statement": '"It breaks.\\n\\nOften."',
    "requirements": "It should not.",
    "interface": '"None"',
    "repo_language": "python",
    "fail_to_pass": """["it doesn't", 'say "no"', '  edge  ']""",
    "pass_to_pass": '["a, b", "c[d"]',
    "issue_specificity": "[]",
    "issue_categories": "[]",
    "before_repo_set_cmd": f"git reset --hard b\ngit checkout {FIX} -- t",
    "selected_test_files_to_run": '["t", "u"]',
    "dockerhub_tag": "something.else",
}
DATA = os.environ.get("SWEBENCH_TRAINER_DATA", "")
needs_data = pytest.mark.skipif(
    not DATA, reason="SWEBENCH_TRAINER_DATA names no folder with SWE-bench data"
)


@pytest.fixture
def evaluation(tmp_path):
    folder = tmp_path / "evaluation" / "run_scripts" / NAME
    folder.mkdir(parents=True)
    (folder / "run_script.sh").write_text("#!/bin/bash\necho tests\n")
    (folder / "parser.py").write_text("print('reads')\n")
    return tmp_path / "evaluation"


@pytest.fixture
def load(tmp_path, evaluation):
    def load(*rows, **keys):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        keys = {"path": str(path), "scripts": str(evaluation), **keys}
        return ProSource(ProTable(use="swebench-pro", **keys)).load()

    return load


def test_a_row_is_converted_to_an_instance(load):
    (instance,) = load(ROW).instances
    assert instance.gradable
    assert instance.image == f"jefzda/sweap-images:acme.calc-ACME__Calc-{FIX}"
    assert (instance.workdir, instance.apply_mode) == ("/app", "pro")
    assert (instance.version, instance.log_parser) == ("pro", "swebench_pro")
    assert instance.parser == "print('reads')\n"
    assert instance.eval_type == "pass_and_fail"


def test_the_source_passes_the_contract_suite(load, tmp_path, evaluation):
    load(ROW)  # writes the rows
    rows = str(tmp_path / "rows.jsonl")
    table = ProTable(use="swebench-pro", path=rows, scripts=str(evaluation))
    check_source(lambda: ProSource(table))


def test_json_and_python_lists_are_parsed_exactly(load):
    (instance,) = load(ROW).instances
    assert instance.FAIL_TO_PASS == ("it doesn't", 'say "no"', "  edge  ")
    assert instance.PASS_TO_PASS == ("a, b", "c[d")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (["given as a list"], ("given as a list",)),
        ('["\\u00e9", "\\d"]', ("é", "\\d")),  # no JSON, for its last escape
        ("('a', 'b')", ("a", "b")),
        ("[]", None),
        ("", None),
        (None, None),
        ("['a'", None),
        ("[f()]", None),
        ("__import__('os').system('true')", None),
        ("{'a': 1}", None),
        ("['a', 1]", None),
        ('["\\ud800"]', None),
        ("[" * 100_000, None),
    ],
)
def test_lists_are_never_evaluated_and_invalid_ones_drop_the_row(load, text, names):
    loaded = load({**ROW, "fail_to_pass": text}, {**ROW, "instance_id": NAME})
    if names:
        assert names == loaded.instances[0].FAIL_TO_PASS
    else:
        ((name, reason),) = loaded.dropped
        assert name == NAME
        assert "fail_to_pass" in reason.lower()


def test_the_harness_accepts_the_row(load):
    from swebench.harness.utils import make_test_spec

    from swebench_trainer.grading.official import harness_row

    assert not {"version", "image", "eval_script", "log_parser"} & set(ROW)
    (instance,) = load(ROW).instances
    spec = make_test_spec(harness_row(instance))
    assert list(instance.FAIL_TO_PASS) == spec.FAIL_TO_PASS
    assert "SWEBENCH_TEST_EXIT_CODE=$?" in spec.eval_script_list


def test_test_columns_may_be_upper_case(load):
    lower = {"fail_to_pass", "pass_to_pass"}
    row = {key.upper() if key in lower else key: value for key, value in ROW.items()}
    (instance,) = load(row).instances
    assert instance.FAIL_TO_PASS == ("it doesn't", 'say "no"', "  edge  ")
    assert instance.PASS_TO_PASS == ("a, b", "c[d")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('"It breaks.\\n\\nOften."', "It breaks.\n\nOften."),
        ("plain\\n text", "plain\\n text"),
        ('"Quoted" is only the first word', '"Quoted" is only the first word'),
        ('"lone surrogate \\ud800"', '"lone surrogate \\ud800"'),
    ],
)
def test_json_strings_in_text_columns_are_decoded(load, text, read):
    (instance,) = load({**ROW, "problem_statement": text, "interface": text}).instances
    assert (instance.problem_statement, instance.interface) == (read, read)


def test_the_prompt_has_the_official_headings(load):
    from swebench_trainer.prompts.styles import ask

    (instance,) = load(ROW).instances
    prompt = ask(instance)
    assert (
        "It breaks.\n\nOften.\n\nRequirements:\nIt should not.\n\n"
        "New interfaces introduced:\nNone\n\n" in prompt
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"instance_id": "instance_../../x"}, "instance_id has characters"),
        ({"instance_id": "instance_other"}, "no run_scripts/instance_other"),
        ({"base_commit": "--help"}, "base_commit"),
        ({"repo": "calc"}, "owner/name"),
        ({"repo": "../a/b"}, "owner/name"),
        ({"patch": ""}, "'patch' is missing"),
        ({"selected_test_files_to_run": "oops"}, "selected_test_files_to_run"),
        ({"before_repo_set_cmd": "", "test_patch": ""}, "before_repo_set_cmd"),
        ({"before_repo_set_cmd": "echo '>>>>> End Test Output'"}, "marker"),
        ({}, "duplicates"),
    ],
)
def test_an_unusable_row_is_dropped_with_the_reason(load, change, reason):
    loaded = load(ROW, {**ROW, **change})
    assert len(loaded.instances) == 1
    ((_, why),) = loaded.dropped
    assert reason in why


def test_the_last_setup_command_checks_out_the_tests(load):
    (instance,) = load(ROW).instances
    assert f"\ngit checkout {FIX} -- t\n" in instance.eval_script
    assert "reset --hard" not in instance.eval_script


def test_the_command_is_derived_for_when_it_is_missing(load):
    test_patch = (
        "diff --git a/t/one b/t/one\n--- a/t/one\n+++ b/t/one\n@@ -1 +1 @@\n-a\n+b\n"
        "diff --git a/gone b/gone\ndeleted file mode 100644\n--- a/gone\n+++ /dev/null\n"
        "@@ -1 +0,0 @@\n-+++ b/no file\n"
        "diff --git a/two words b/two words\nnew file mode 100644\n--- /dev/null\n"
        "+++ b/two words\t\n@@ -0,0 +1 @@\n+a\n"
        "diff --git a/old b/moved\nsimilarity index 100%\nrename from old\nrename to moved\n"
        "diff --git a/empty b/empty\nnew file mode 100644\nindex 0000..e69d\n"
    )
    row = {**ROW, "before_repo_set_cmd": None, "test_patch": test_patch}
    (instance,) = load(row).instances
    command = f"git checkout {FIX} -- t/one 'two words' moved empty"
    assert f"\n{command}\n" in instance.eval_script


def test_the_file_list_matches_the_official_evaluation(load):
    files = ["a b", "it's $HOME", "c, d", "*"]
    row = {**ROW, "selected_test_files_to_run": repr(files)}
    (instance,) = load(row).instances
    command = "bash /workspace/run_script.sh a b,it's $HOME,c, d,* > "
    assert f"\n{command}" in instance.eval_script


def test_the_harness_keeps_every_line_of_a_run_script(load, evaluation):
    from swebench_trainer.grading.official import test_spec

    script = "#!/bin/bash\nset -uxo pipefail\n\n|x\nEND_OF_RUN_SCRIPT\nlast\\"
    (evaluation / "run_scripts" / NAME / "run_script.sh").write_text(script)
    (instance,) = load(ROW).instances
    lines = test_spec(instance).eval_script.split("\n")
    begin = next(n for n, line in enumerate(lines) if line.endswith("RUN_SCRIPT'"))
    end = lines.index("END_OF_RUN_SCRIPT")
    assert [line[1:] for line in lines[begin + 1 : end]] == script.split("\n")
    assert all(line[0] == "|" for line in lines[begin + 1 : end])


def test_test_names_keep_surrounding_spaces(load):
    (instance,) = load({**ROW, "pass_to_pass": '[" a", "a", "b "]'}).instances
    assert instance.PASS_TO_PASS == (" a", "a", "b ")


def test_the_image_need_not_follow_the_task_repo_naming(load):
    from swebench.task.checks import expected_image

    from swebench_trainer.grading.official import harness_row

    (instance,) = load(ROW).instances
    assert expected_image(harness_row(instance)["instance_id"]) != instance.image


@pytest.mark.parametrize(
    ("instance_id", "repo", "tag"),
    [
        ("instance_A__B-1-vnan", "A/B", "a.b-A__B-1"),
        ("instance_A__B-1-v2", "A/B", "a.b-A__B-1-v2"),
        ("instance_a__b-" + "1" * 200, "a/b", "a.b-a__b-" + "1" * 119),
        (
            "instance_element-hq__element-web-1-vnan",
            "element-hq/element-web",
            "element-hq.element-element-hq__element-web-1",
        ),
        (
            "instance_element-hq__element-web-ec0f940ef0e8e3b61078f145f34dc40d1938e6c5-vnan",
            "element-hq/element-web",
            "element-hq.element-web-element-hq__element-web-"
            "ec0f940ef0e8e3b61078f145f34dc40d1938e6c5-vnan",
        ),
    ],
)
def test_image_tags_follow_the_official_rule(instance_id, repo, tag):
    assert image_tag(instance_id, repo) == tag


@needs_data
def test_the_tag_rule_matches_all_731_public_rows():
    """An id is its tag without the first part; of a tag that was cut, any longer one."""
    tags = json.loads(Path(DATA, "SWE-bench_Pro_image_digests.json").read_text())
    pattern = r"([^.]+)\..+?-(((?i:\1))__(.+?)-[0-9a-f]{40}.*)"
    ids = set()
    for tag in tags:
        unique, owner, name = re.fullmatch(pattern, tag).groups()[1:]
        cut = len(tag) == 128
        endings = ["0", "-vnan"] if cut else ["", "-vnan"]
        if unique.endswith("-vnan"):
            endings = [""]
        for ending in endings:
            if "-v" in unique and ending == "-vnan" and not cut:
                continue  # an id has one version
            assert image_tag(f"instance_{unique}{ending}", f"{owner}/{name}") == tag
        ids.add(unique)
    assert len(ids) == 731


@needs_data
def test_real_rows_are_readable(evaluation, tmp_path):
    rows = Path(DATA, "SWE-bench_Pro_5rows.jsonl")
    listed = [json.loads(line) for line in rows.read_text().splitlines()]
    for row in listed:
        folder = evaluation / "run_scripts" / row["instance_id"]
        folder.mkdir()
        (folder / "run_script.sh").write_text("true\n")
        (folder / "parser.py").write_text("\n")
    table = ProTable(
        use="swebench-pro",
        path=str(rows),
        scripts=str(evaluation),
        digests=Path(DATA, "SWE-bench_Pro_image_digests.json"),
    )
    loaded = ProSource(table).load()
    assert len(loaded.instances) == 5
    for row, instance in zip(listed, loaded.instances, strict=True):
        assert re.fullmatch(
            r"jefzda/sweap-images@sha256:[0-9a-f]{64}", instance.image
        ), "all five digests are known"
        assert image_tag(row["instance_id"], row["repo"]) == row["dockerhub_tag"]
        assert instance.FAIL_TO_PASS
        assert not instance.problem_statement.startswith('"')
        assert "\\n" not in instance.requirements
        command = row["before_repo_set_cmd"].split("\n")[-1]
        assert f"\n{command}\n" in instance.eval_script
        checked = subprocess.run(
            ["bash", "-n"], input=instance.eval_script, text=True, capture_output=True
        )
        assert checked.returncode == 0, checked.stderr


@needs_data
def test_the_command_that_is_derived_is_the_one_of_the_real_rows(evaluation, tmp_path):
    rows = Path(DATA, "SWE-bench_Pro_5rows.jsonl")
    for line in rows.read_text().splitlines():
        row = json.loads(line)
        folder = evaluation / "run_scripts" / row["instance_id"]
        folder.mkdir()
        (folder / "run_script.sh").write_text("true\n")
        (folder / "parser.py").write_text("\n")
        path = tmp_path / "row.jsonl"
        path.write_text(json.dumps({**row, "before_repo_set_cmd": ""}))
        table = ProTable(use="swebench-pro", path=str(path), scripts=str(evaluation))
        (instance,) = ProSource(table).load().instances
        command = row["before_repo_set_cmd"].split("\n")[-1]
        derived = re.search(r"^git checkout .*$", instance.eval_script, re.MULTILINE)[0]
        assert sorted(derived.split()) == sorted(command.split())


def test_images_with_known_digests_are_pinned(load, tmp_path):
    tag, pin = f"acme.calc-ACME__Calc-{FIX}", "sha256:" + "0" * 64
    path = tmp_path / "digests.json"
    path.write_text(json.dumps({tag: pin, "another": pin}))
    assert load(ROW, digests=path).instances[0].image == f"jefzda/sweap-images@{pin}"
    path.write_text(json.dumps({"another": pin}))
    assert load(ROW, digests=path).instances[0].image == f"jefzda/sweap-images:{tag}"


@pytest.mark.parametrize("text", ["{", "[]", '{"tag": "latest"}', '{"tag": 1}'])
def test_an_invalid_digests_file_raises(load, tmp_path, text):
    path = tmp_path / "digests.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"digests\.json"):
        load(ROW, digests=path)


def test_csv_rows_equal_json_rows(load, tmp_path):
    path = tmp_path / "rows.csv"
    long = {**ROW, "patch": ROW["patch"] + "+\n" * 100_000}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["", *long])  # pandas numbers the rows
        writer.writeheader()
        writer.writerow({"": "0", **long})
    assert load(path=str(path)).instances[0].patch == long["patch"]
    with path.open("a") as file:
        file.write("too,few\n")
    with pytest.raises(DataError, match=r"rows\.csv, line \d+: the number of columns"):
        load(path=str(path))


def test_the_digest_depends_on_rows_scripts_and_image_digests(
    tmp_path, evaluation, load
):
    load(ROW)  # writes the rows
    rows, pins = tmp_path / "rows.jsonl", tmp_path / "digests.json"
    pins.write_text("{}")
    table = ProTable(
        use="swebench-pro", path=str(rows), scripts=str(evaluation), digests=pins
    )
    digests = [ProSource(table).digest()]
    assert ProSource(table).digest() == digests[0]
    scripts = evaluation / "run_scripts" / NAME
    for path, text in [
        (rows, json.dumps({**ROW, "patch": "other"})),
        (scripts / "run_script.sh", "echo other\n"),
        (scripts / "parser.py", "other\n"),
        (pins, json.dumps({"tag": "sha256:" + "1" * 64})),
    ]:
        path.write_text(text)
        digests.append(ProSource(table).digest())
    assert len(set(digests)) == 5
    (evaluation / "README.md").write_text("not a script")
    assert ProSource(table).digest() == digests[-1]


def test_missing_run_scripts_raise_with_a_hint(load, tmp_path):
    with pytest.raises(DataError, match="evaluation repository SWE-bench_Pro-os"):
        load(ROW, scripts=str(tmp_path))


def test_paths_are_relative_to_the_recipe(tmp_path):
    values = {"use": "swebench-pro", "scripts": "pro", "path": "rows.csv"}
    table = ProTable.model_validate(values, context={"folder": tmp_path})
    assert table.scripts == str(tmp_path / "pro")
    assert table.path == str(tmp_path / "rows.csv")
    default = ProTable.model_validate({"use": "swebench-pro", "scripts": "x"})
    assert (default.path, default.split) == ("ScaleAI/SWE-bench_Pro", "test")


def test_the_documented_recipe_has_the_official_timeout(
    pytestconfig,
):
    text = (pytestconfig.rootpath / "docs/swebench-pro.md").read_text()
    recipe = tomllib.loads(re.search(r"^```toml\n(.*?)^```", text, re.M | re.S)[1])
    assert recipe["grade"]["timeout"] == 3600
    assert recipe["data"]["use"] == "swebench-pro"
    assert is_address(recipe["data"]["scripts"])


def test_a_stored_instance_needs_no_evaluation_repository(load, evaluation):
    """Its script and its parser are stored with it."""
    (instance,) = load(ROW).instances
    shutil.rmtree(evaluation)
    stored = from_row(Instance, json.loads(json.dumps(as_row(instance))))
    assert stored == instance
    assert stored.gradable


def test_a_harness_marker_in_a_script_is_rejected():
    with pytest.raises(ValueError, match="marker"):
        eval_script("true", [], ": '>>>>> Start Test Output'\n")


# The evaluation repository as a git address.


@pytest.fixture
def remote(evaluation):
    """The evaluation checkout as a repository with a branch and a tag."""

    def git(*arguments):
        settings = ("-c", "user.name=a", "-c", "user.email=a@localhost")
        done = subprocess.run(
            ["git", "-c", "init.defaultBranch=main", *settings, *arguments],
            cwd=evaluation,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    script = evaluation / "run_scripts" / NAME / "run_script.sh"
    git("init", "-q", ".")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    script.write_text("echo second\n")
    (script.parent / "link").symlink_to("/etc/passwd")
    git("add", "-A")
    git("commit", "-q", "-m", "second")
    first = git("rev-parse", "v1")
    return f"file://{evaluation}", first


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_scripts_are_read_from_a_git_address_at_a_revision(load, remote, own_cache):
    address, first = remote
    newest = load(ROW, scripts=address).instances[0]
    assert "|echo second\n" in newest.eval_script
    for revision in ("v1", first):
        old = load(ROW, scripts=f"{address}@{revision}").instances[0]
        assert "|echo tests\n" in old.eval_script


def test_an_address_is_cloned_once(load, remote, own_cache, evaluation):
    address, _ = remote
    table = ProTable(
        use="swebench-pro", path=str(evaluation.parent / "rows.jsonl"), scripts=address
    )
    load(ROW, scripts=address)
    before = ProSource(table).digest()
    evaluation.rename(evaluation.with_name("gone"))
    assert ProSource(table).digest() == before
    assert [p.name for p in (own_cache / "swebench-trainer").iterdir()] == ["checkouts"]


def test_pruned_scripts_are_fetched_again(remote, own_cache):
    place = checkout(remote[0])
    os.utime(place.with_suffix(".lock"), (0, 0))
    assert checkout(remote[0]) == place
    assert prune(place.parent, PruneLimits(unused_for=3600)) == 0
    assert prune(place.parent, PruneLimits(unused_for=-1)) == 1
    assert not place.exists() and (checkout(remote[0]) / "run_scripts").is_dir()


def test_symbolic_links_in_the_repository_are_plain_files(remote, own_cache):
    link = checkout(remote[0]) / "run_scripts" / NAME / "link"
    assert not link.is_symlink()
    assert link.read_text() == "/etc/passwd"


def test_a_missing_revision_raises_and_leaves_no_files(remote, own_cache):
    with pytest.raises(DataError, match="git fetch failed"):
        checkout(f"{remote[0]}@v2")
    assert not list((own_cache / "swebench-trainer" / "checkouts").iterdir())


@pytest.mark.parametrize(
    "address",
    [
        "https://host/owner/name",
        "https://host/owner/name.git@v1.0",
        "https://host:8443/owner/name@" + "a" * 40,
        "ssh://git@host/owner/name@main",
        "git@host:owner/name",
        "file:///srv/pro.git@main",
    ],
)
def test_git_addresses_are_recognized(address):
    assert is_address(address)


@pytest.mark.parametrize(
    "text",
    [
        "ext::sh -c true",
        "--upload-pack=true",
        "-x@host:path",
        "a@-oProxyCommand=true:path",
        "ssh://-oProxyCommand=true/path",
        "https://token@host/owner/name",
        "https://user:password@host/owner/name",
        "https://host/owner/name@--option",
        "file:///srv/pro --option",
        "../SWE-bench_Pro-os",
        "/srv/a@b",
    ],
)
def test_an_invalid_address_never_reaches_git(text, own_cache):
    assert not is_address(text)
    with pytest.raises(DataError, match="not the address"):
        checkout(text)
    assert not own_cache.exists()


def test_git_never_runs_a_program_named_by_the_address(tmp_path, monkeypatch):
    """Even if the pattern and the user's settings allowed it, git refuses."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.ext.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
    from swebench_trainer.data.pro import _clone

    with pytest.raises(DataError, match="transport 'ext' not allowed"):
        _clone(f"ext::touch {tmp_path}/run", "HEAD", tmp_path / "clone")
    assert not (tmp_path / "run").exists()
