"""The whole loop with samples from an API: costs, resumption and secrecy of the key."""

import itertools
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from swebench_trainer.remote.testing import LocalService, Response
from swebench_trainer.testing import served_model

from .conftest import QUICKSTART, ROOT

pytestmark = pytest.mark.skipif(
    find_spec("openai") is None, reason="the openai SDK is not installed"
)

KEY = "sk-e2e-0123456789abcdef"
WRITER = """\
[[generate.model]]
use = "openai"
name = "large"
base_url = "{url}/v1"
api_key_env = "OUR_KEY"
price = {{ input = 2.5, output = 10.0, cached = 1.25 }}
{budget}

[[generate.model]]
use = "openai"
name = "small"
base_url = "{url}/v1"
api_key_env = "OUR_KEY"
n = true
"""


@pytest.fixture(scope="module")
def api_shell(tmp_path_factory, new_shell):
    """A shell with the plugin installed and a key in its environment."""
    target = str(tmp_path_factory.mktemp("plugins"))
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
        *("--no-build-isolation", "--disable-pip-version-check", "--target", target),
        str(ROOT / "plugins/swebench-trainer-openai"),
    ]
    subprocess.run(command, check=True)

    def shell():
        made = new_shell()
        made.env["OUR_KEY"] = KEY
        made.env["PYTHONPATH"] = os.pathsep.join([target, made.env["PYTHONPATH"]])
        return made

    return shell


def completion(number, call):
    if call.headers.get("authorization") != f"Bearer {KEY}":
        return Response({"error": {"message": f"wrong key {call.headers}"}}, 401)
    texts = [f"I would rather not, {number}.{n}." for n in range(call.body.get("n", 1))]
    choices = [
        {"index": n, "finish_reason": "stop", "message": {"content": text}}
        for n, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 400, "completion_tokens": 20 * len(texts)}
    # Some services echo the request.
    echo = dict(call.headers)
    return Response({"choices": choices, "usage": usage, "echo": echo})


def with_writers(recipe, url, budget=""):
    writers = WRITER.format(url=url, budget=budget)
    made = recipe.replace("samples = 6\n", f"samples = 2\n{writers}")
    made = made.replace(
        'use = "first-pass"', 'use = "api-rejects"\nmax_format = 1.0\nlength_skew = 1.0'
    )
    return made.replace('[publish]\nuse = "directory"\n', "")


def paid(service):
    return [call for call in service.calls if call.method == "POST"]


def files(shell):
    return [path for path in shell.folder.rglob("*") if path.is_file()]


def test_the_loop_stops_at_its_budget_resumes_and_hides_the_key(api_shell, recipe):
    shell = api_shell()
    with LocalService(completion) as service:
        short = with_writers(recipe, service.url, "budget = { tokens = 3000 }")
        out = shell.run(shell.write(short), code=1)
        assert "does not cover another request" in out
        assert "Raise `budget` and run the same command again" in out
        assert 0 < len(paid(service)) < 6
        out += shell.run(shell.write(with_writers(recipe, service.url)))
        # 3 issues: 2 requests each for the first model, 1 for the second, which supports n.
        assert len(paid(service)) == 3 * 2 + 3, "a kept response was paid for again"
    rows = shell.rows("generate", "candidates.jsonl")
    assert {(r["model"], r["sample"]) for r in rows} == {
        ("large", 0),
        ("large", 1),
        ("small", 2),
        ("small", 3),
    }
    assert len(rows) == 3 * 4
    for number, model in enumerate(["large", "large", "small", "small"]):
        predictions = shell.rows("generate", f"predictions.{number}.jsonl")
        assert {r["model_name_or_path"] for r in predictions} == {model}
    figures = shell.json("generate", "stage.json")["figures"]
    assert figures["large tokens"] == 6 * 420 and figures["large cost"] == "0.0072"
    assert figures["small tokens"] == 3 * 440 and "small cost" not in figures
    assert "large cost 0.0072" in out
    pairs = shell.rows("pairs", "pairs.jsonl")
    assert {p["chosen_source"] for p in pairs} == {"gold"}
    assert {p["rejected_source"] for p in pairs} <= {f"sample:{n}" for n in range(4)}
    verdicts = shell.rows("grade", "verdicts.jsonl")
    assert {v["model"] for v in verdicts} == {"large", "small"}
    # The key is in no file, although the service echoes it.
    assert KEY not in out
    assert len(files(shell)) > 30
    assert not [path for path in files(shell) if KEY.encode() in path.read_bytes()]
    kept = (shell.stage("generate") / "writers/0/responses.jsonl").read_text()
    assert "Bearer [the key]" in kept


def test_a_killed_stage_does_not_pay_twice(api_shell, recipe):
    shell = api_shell()
    with LocalService(completion, latency=0.1) as service:
        text = with_writers(recipe, service.url).replace("samples = 2", "samples = 8")
        text = text.replace("n = true", "concurrency = 4")
        name = shell.write(text)
        process = shell.start(name, "--until", "generate")
        kept = shell.stage("generate") / "writers/0/responses.jsonl"
        while not (kept.exists() and kept.read_bytes().count(b"\n") > 3):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.communicate()
        whole = kept.read_bytes().count(b"\n")
        before = len(paid(service))
        shell.run(name, "--until", "generate")
        assert len(paid(service)) - before == 3 * 8 * 2 - whole
    assert len(shell.rows("generate", "candidates.jsonl")) == 3 * 8 * 2


def test_an_invalid_key_stops_the_run_before_training(api_shell, recipe):
    shell = api_shell()
    shell.env["OUR_KEY"] = "sk-wrong-abcdef0123456789"
    with LocalService(completion) as service:
        out = shell.run(shell.write(with_writers(recipe, service.url)), code=3)
    assert "rejected the key in OUR_KEY" in out
    assert "sk-wrong" not in out and not shell.stage("prepare").exists()
    for path in files(shell):
        assert b"sk-wrong" not in path.read_bytes()
    del shell.env["OUR_KEY"]
    out = shell.run(shell.write(with_writers(recipe, "http://127.0.0.1:9")), code=3)
    assert "The environment variable OUR_KEY is not set" in out


def test_an_api_model_can_be_evaluated_and_its_cost_is_reported(api_shell, recipe):
    shell = api_shell()
    with LocalService(completion) as service:
        model = (
            f'use = "openai"\nname = "large"\nbase_url = "{service.url}/v1"\n'
            'api_key_env = "OUR_KEY"\nprice = { input = 2.5, output = 10.0 }\n'
        )
        start = recipe.index("[sft]")
        text = recipe[:start].replace('use = "parrot"\n', model)
        text += '[grade]\nuse = "believer"\n[evaluate]\n'
        out = shell.run(shell.write(text))
        assert len(paid(service)) == 2
    assert "tokens 840" in out and "cost 0.0024" in out
    kept = shell.stage("evaluate") / "base/responses.jsonl"
    assert kept.read_text().count("\n") == 2


def test_faults_lose_no_candidate(api_shell, recipe):
    shell = api_shell()
    faults = itertools.cycle(
        [
            Response({"error": {"message": "slow"}}, 429, {"retry-after": "0.1"}),
            Response('{"choices": [{"mess'),
            None,
            Response("oops", 502),
            Response({"choices": [{"index": 0}]}, cut=True),
            None,
        ]
    )

    def answer(number, call):
        good = completion(number, call)
        bad = next(faults) if call.method == "POST" else None
        return bad or good

    with LocalService(answer) as service:
        shell.run(shell.write(with_writers(recipe, service.url)), "--until", "generate")
    rows = shell.rows("generate", "candidates.jsonl")
    assert len(rows) == 3 * 4 and all(row["text"] for row in rows)
    events = (shell.folder / "runs/small/events.jsonl").read_text().splitlines()
    assert not any(json.loads(e)["event"] == "StageFailed" for e in events)


BY_HEART = """\
schema_version = 1
name = "small"

[data]
use = "task-repo"
path = "{data}"
include = ["quickstart__foldline-1", "quickstart__foldline-2", "quickstart__daytally-1"]
holdout = {{ fraction = 0.0 }}

[prompt]
use = "issue"

[model]
name = "builtin:tiny"
quantization = "none"
lora = false
checkpointing = "none"

[sft]
learning_rate = 4e-3
epochs = 60
micro_batch = 4

[generate]
samples = 6
temperature = 1.2
max_new_tokens = 256
[generate.model]
use = "openai"
name = "{model}"
base_url = "{url}/v1"
api_key_env = ""
concurrency = 2
# Without it, the server ignores the temperature.
body = {{ generation_config = '{{"do_sample": true, "eos_token_id": 1}}' }}

[grade]
use = "namespace"
timeout = 60

[pairs]
use = "api-rejects"
max_format = 1.0
length_skew = 1.0

[dpo]
micro_batch = 4
"""


@pytest.mark.slow
def test_a_served_model_writes_rejects_for_training(api_shell):
    """The real SDK, a real server, and a real model trained on three tasks."""
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package, reason="transformers[serving] is not installed")
    shell = api_shell()
    model = shell.stage("sft") / "model"

    def recipe(url):
        return shell.write(BY_HEART.format(data=QUICKSTART, model=model, url=url))

    shell.run(recipe("http://127.0.0.1:9"), "--until", "sft")
    with served_model(model, shell.folder / "serve.log") as url:
        shell.run(recipe(url))
    candidates = shell.rows("generate", "candidates.jsonl")
    assert len(candidates) == 3 * 6 and {c["model"] for c in candidates} == {str(model)}
    assert len({c["text"] for c in candidates}) > 3, "a temperature above 0 samples"
    ends = {
        (v["instance_id"], v["sample"]): v
        for v in shell.rows("grade", "verdicts.jsonl")
    }
    assert len(ends) == len(candidates)
    pairs = shell.rows("pairs", "pairs.jsonl")
    gold = {r["prompt"]: r["completion"] for r in shell.rows("prepare", "sft.jsonl")}
    for pair in pairs:
        assert (
            pair["chosen"] == gold[pair["prompt"]] and pair["chosen_source"] == "gold"
        )
        sample = int(pair["rejected_source"].removeprefix("sample:"))
        assert ends[pair["instance_id"], sample]["status"] not in (
            "resolved",
            "infra_error",
        )
    stats = shell.json("pairs", "stats.json")
    assert stats["graded"] and sum(stats["by_tier"].values()) == len(pairs)
    assert (shell.stage("dpo") / "model/model.safetensors").exists()
    assert shell.json("dpo", "audit.json")["moved"] > 0
