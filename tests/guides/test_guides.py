"""What the how-to guides build is built, tested and run as it stands there."""

import re
import runpy
import threading
from http.server import ThreadingHTTPServer

import pytest

FILES = re.compile(r"^```\w+ ([\w./-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GUIDES = ("write-a-backend", "write-a-pair-strategy")


@pytest.fixture(scope="module")
def built(elsewhere, pytestconfig):
    """The directories with the files of each guide, by guide; installed."""
    folders = {}
    for guide in GUIDES:
        text = (pytestconfig.rootpath / f"docs/how-to/{guide}.md").read_text()
        folder = elsewhere.folder / guide
        for name, content in FILES.findall(text):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        folders[guide] = folder
    elsewhere.install(*folders.values())
    return folders


@pytest.mark.parametrize("guide", GUIDES)
def test_its_plugin_passes_its_tests_and_its_recipe_is_valid(guide, built, elsewhere):
    folder = built[guide]
    elsewhere.passes(folder)
    out = elsewhere.python("swebench_trainer", "check", "recipe.toml", cwd=folder)
    assert "valid. Stages: prepare, admit," in out


def test_the_recipe_of_the_backend_runs(built, elsewhere):
    folder = built["write-a-backend"]
    handler = runpy.run_path(str(folder / "tests/conftest.py"))["Llama"]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.faults = set()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        out = elsewhere.python(
            "swebench_trainer",
            "recipe.toml",
            "--until=generate",
            f'--set=generate.model.url="http://127.0.0.1:{server.server_port}"',
            "--set=grade.admission_runs=0",  # needs no sandbox of this machine
            cwd=folder,
        )
        server.shutdown()
    assert re.search(r"generate .* candidates 12", out), out


def test_a_guide_tells_of_every_suite_for_its_kind(pytestconfig):
    text = (pytestconfig.rootpath / "docs/how-to/write-a-backend.md").read_text()
    import swebench_trainer.testing.backends as suites

    names = [name for name in vars(suites) if name.startswith("check_")]
    for name in {*names} - {"check_view"}:
        assert f"`{name}`" in text
