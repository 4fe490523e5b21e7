"""Missing prerequisites: a paragraph and a next step, and no lost work."""

import json
import shutil
import subprocess
import sys

import pytest


def without_namespaces():
    """A command prefix under which user namespaces cannot be created."""
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True).returncode
    ):
        pytest.skip("this machine has no user namespaces to forbid")
    return prefix


def test_missing_namespaces_name_another_grader(shell, recipe):
    name = shell.write(recipe.replace("believer", "namespace"))
    done = subprocess.run(
        [*without_namespaces(), sys.executable, "-m", "swebench_trainer", name],
        cwd=shell.folder,
        env=shell.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert 'Grade with Docker instead: [grade] use = "docker"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_daemon_names_the_next_step(shell, recipe):
    shell.env["DOCKER_HOST"] = f"unix://{shell.folder}/missing.sock"
    for grader in ("docker", "stock"):
        name = shell.write(recipe.replace("believer", grader))
        out = shell.run(name, "--name", grader, code=3)
        assert "docker info" in out and "namespace" in out


@pytest.mark.parametrize(
    ("name", "message", "code"),
    [
        ("example/no-such-model", "example/no-such-model", 3),
        ("bert", "is not a causal language model", 2),
        ("empty", "config.json", 2),
    ],
)
def test_an_unusable_model_is_an_error(shell, recipe, name, message, code):
    bert = shell.folder / "bert"
    bert.mkdir()
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (bert / "config.json").write_text(json.dumps(config))
    (shell.folder / "empty").mkdir()
    model = f'use = "hf"\nname = "{name}"\nquantization = "none"'
    shell.write(recipe.replace('use = "parrot"', model))
    assert message in shell.run("recipe.toml", code=code)


@pytest.fixture
def small_disk(shell):
    """Mounts the runs directory as a 100 KiB file system; yields a function that grows it."""
    disk = shell.folder / "runs"
    disk.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    done = subprocess.run(options, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield lambda: subprocess.run(
        ["mount", "-o", "remount,size=50m", str(disk)], check=True
    )
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_stops_the_run_and_loses_nothing(
    shell, new_shell, recipe, small_disk
):
    name = shell.write(recipe)
    out = shell.run(name, code=1)
    assert "No space left on the disk" in out
    assert "run the same command again" in out
    small_disk()
    shell.run(name)
    other = new_shell()
    other.run(other.write(recipe))
    assert shell.results() == other.results()
