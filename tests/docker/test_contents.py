"""Files are read from real images, without running or leaving a container."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import BASE_IMAGE, forget_sockets

from swebench_trainer.contents.image import ImageTrees
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.docker.archives import DockerArchives
from swebench_trainer.grading.docker.containers import LABEL
from swebench_trainer.types import Instance

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
GIT, PLAIN = "swebench-trainer/contents-git", "swebench-trainer/contents-plain"
FILES = "mkdir -p src && printf 'a\\r\\n' > src/a.py && ln -s /etc/passwd out && ln src/a.py b"
HOSTILE = "[core]\\n fsmonitor = touch /mark\\n sshCommand = touch /mark\\n hooksPath = /hooks\\n"
WITH_GIT = f"""\
FROM {BASE_IMAGE}
WORKDIR /testbed
RUN {FILES} && chmod +x src/a.py && git init -q . && git add -A && \\
    git -c user.name=a -c user.email=a@localhost commit -q -m base && \\
    git rev-parse HEAD > /commit && echo changed > src/a.py && \\
    printf '{HOSTILE}' >> .git/config && \\
    printf '#!/bin/sh\\ntouch /tmp/mark-of-contents\\n' > .git/hooks/post-checkout && \\
    chmod +x .git/hooks/post-checkout && ln -s /testbed /linked
"""
WITHOUT_GIT = f"""\
FROM {BASE_IMAGE}
WORKDIR /app
RUN {FILES} && mkfifo pipe && chmod 600 b
"""


@pytest.fixture(scope="module")
def commit(docker_client: DockerClient) -> str:
    """Build both images; return the commit in the image with a repository."""
    for name, dockerfile in ((GIT, WITH_GIT), (PLAIN, WITHOUT_GIT)):
        docker_client.images.build(
            fileobj=io.BytesIO(dockerfile.encode()), tag=name, rm=True, forcerm=True
        )
    reader = docker_client.api.create_container(GIT, ["true"])["Id"]
    stream, _ = docker_client.api.get_archive(reader, "/commit")
    docker_client.api.remove_container(reader, force=True)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        content = archive.extractfile("commit")
        assert content
        return content.read().decode().strip()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "swebench-trainer" / "repositories"


@pytest.fixture
def trees() -> Iterator[ImageTrees]:
    trees = ImageTrees(DockerArchives())
    yield trees
    trees.close()


@pytest.fixture
def events(docker_client: DockerClient) -> Iterator[list[str]]:
    """Events of the containers of these images during the test, read after it.

    Other tests use the daemon at the same time.
    """
    images = [docker_client.images.get(name) for name in (GIT, PLAIN)]
    names = {GIT, PLAIN, *(image.id for image in images)}
    ours = {"ancestor": [GIT, PLAIN]}
    known = {c["Id"] for c in docker_client.api.containers(all=True, filters=ours)}
    since = int(time.time())
    seen: list[str] = []
    yield seen
    events = docker_client.api.events(
        since=since,
        until=int(time.time()) + 1,
        filters={"type": "container"},
        decode=True,
    )
    seen += [
        event["Action"]
        for event in events
        if event["Actor"]["Attributes"]["image"] in names and event["id"] not in known
    ]
    assert "create" in seen and "start" not in seen
    left = {c["Id"] for c in docker_client.api.containers(all=True, filters=ours)}
    assert left <= known


def instance(commit: str = "1" * 40, **more: str) -> Instance:
    row = {"workdir": "/testbed", "image": GIT, **more}
    return Instance("o__n-1", "owner/name", commit, "", "", **row)


@pytest.mark.parametrize("workdir", ["/testbed", "/testbed/", "/linked"])
def test_files_of_a_commit_are_read_from_an_image(
    trees, commit, events, cache, workdir
) -> None:
    tree = trees.tree(instance(commit, workdir=workdir))
    assert tree.paths() == ("b", "src/a.py")
    assert tree.read("src/a.py") == b"a\r\n"
    assert (tree.mode("src/a.py"), tree.mode("out")) == ("100755", "120000")
    assert not Path("/tmp/mark-of-contents").exists()
    assert not [
        p for p in cache.rglob("*") if p.name in ("post-checkout", "alternates")
    ]
    (place,) = cache.glob("*/")
    assert "fsmonitor" not in (place / "config").read_text()


@pytest.mark.parametrize(("image", "workdir"), [(PLAIN, "/app"), (GIT, "/testbed")])
def test_plain_files_are_read_from_an_image(
    trees, commit, events, image, workdir
) -> None:
    tree = trees.tree(instance(image=image, workdir=workdir))
    assert tree.paths() == ("b", "src/a.py")
    expected = b"a\r\n" if image == PLAIN else b"changed\n"
    assert tree.read("src/a.py") == tree.read("b") == expected
    assert (tree.mode("out"), tree.mode("pipe")) == ("120000", "")


def test_the_container_is_never_started(
    docker_client: DockerClient, commit: str
) -> None:
    archives = DockerArchives()
    with archives.unstarted_container(archives.image_id(GIT)) as take:
        assert take("/nothing") is None
        mine = [
            c
            for c in docker_client.api.containers(all=True, filters={"label": LABEL})
            if c["State"] == "created"
        ]
        assert mine
        state = docker_client.api.inspect_container(mine[0]["Id"])["State"]
        assert state["StartedAt"].startswith("0001-01-01")
    archives.close()
    gone = [c["Id"] for c in docker_client.api.containers(all=True)]
    assert mine[0]["Id"] not in gone


def test_containers_of_a_killed_process_are_removed_by_the_next(
    docker_client: DockerClient, commit: str
) -> None:
    program = (
        "import time; from swebench_trainer.grading.docker.archives import *\n"
        "archives = DockerArchives()\n"
        f"with archives.unstarted_container(archives.image_id({GIT!r})):\n"
        "    print('there', flush=True); time.sleep(60)\n"
    )
    labelled = {"label": LABEL}
    before = {c["Id"] for c in docker_client.api.containers(all=True, filters=labelled)}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as victim:
        assert victim.stdout and victim.stdout.readline() == b"there\n"
        victim.send_signal(signal.SIGKILL)
    left = {c["Id"] for c in docker_client.api.containers(all=True, filters=labelled)}
    assert len(left - before) == 1
    archives = DockerArchives()
    archives.image_id(GIT)
    archives.close()
    now = {c["Id"] for c in docker_client.api.containers(all=True, filters=labelled)}
    assert not (left - before) & now


def test_a_missing_image_is_a_reason(trees, docker_client) -> None:
    with pytest.raises(ValueError, match="no image localhost:1/nothing"):
        trees.tree(instance(image="localhost:1/nothing:here"))


def test_a_missing_directory_is_a_reason(trees, commit, events) -> None:
    with pytest.raises(ValueError, match="no directory /gone"):
        trees.tree(instance(workdir="/gone"))


def test_a_dying_daemon_is_a_reason(trees, commit, mortal_daemon, monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", mortal_daemon.url)
    mortal = ImageTrees(DockerArchives())
    assert mortal.tree(instance(image=PLAIN, workdir="/app")).read("b") == b"a\r\n"
    mortal_daemon.die()
    with pytest.raises(ValueError, match="daemon"):
        mortal.tree(instance(image=PLAIN, workdir="/"))
    mortal.close()


def test_without_docker_there_is_a_clear_error(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    trees = ImageTrees(DockerArchives())
    for _ in range(2):
        with pytest.raises(PrerequisiteError, match="Docker is unreachable"):
            trees.tree(instance())
    trees.close()
    forget_sockets()


def test_an_unreachable_registry_is_waited_for_once(
    docker_client: DockerClient,
) -> None:
    with closing(DockerArchives()) as archives:
        for name, spent in (("one", "[1-9]"), ("two", "0")):
            with pytest.raises(ValueError, match=f"no image .*{name} after {spent} s"):
                archives.image_id(f"localhost:1/{name}")
