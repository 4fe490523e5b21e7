"""Pulls from a registry on this machine, and images that make room for others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from registry import Registry

from swebench_trainer.grading.docker import images
from swebench_trainer.grading.docker.images import ImageError, Images

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.docker


@pytest.fixture
def registry(docker_client: DockerClient) -> Iterator[Registry]:
    with Registry().serving() as registry:
        yield registry
    registry.remove_images(docker_client)


@pytest.fixture
def open_images(
    docker_client: DockerClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Images]]:
    monkeypatch.setattr(images, "FIRST_PAUSE", 0.05)
    opened: list[Images] = []

    def make(
        needed: dict[str, int] | None = None, limit_gb: float | None = None
    ) -> Images:
        api = docker_client.api
        opened.append(Images(api, needed or {}, limit_gb, threading.Event()))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_concurrent_requests_pull_an_image_once(
    registry: Registry, open_images: Callable[..., Images]
) -> None:
    registry.add("once")
    found = open_images()
    with ThreadPoolExecutor(8) as workers:
        ids = set(workers.map(found.get, [registry.name("once")] * 8))
    assert len(ids) == 1
    assert registry.asked["once blobs"] == 2  # the config and the layer


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_is_retried(
    registry: Registry, open_images: Callable[..., Images], status: int
) -> None:
    registry.add("busy")
    registry.refusals += [status] * 2
    assert open_images().get(registry.name("busy")).platform == "linux/amd64"
    assert registry.refusals == []


def test_retries_end_eventually(
    registry: Registry,
    open_images: Callable[..., Images],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "BUSY_SECONDS", 0.5)
    registry.add("busy")
    registry.refusals += [429] * 10_000
    with pytest.raises(ImageError, match="toomanyrequests"):
        open_images().get(registry.name("busy"))


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "(not found|unknown)"), (401, "unauthorized")]
)
def test_a_refusal_is_final(
    registry: Registry, open_images: Callable[..., Images], status: int, reason: str
) -> None:
    name = registry.name("secret")
    registry.refusals += [status] * 10_000
    found = open_images()
    with pytest.raises(ImageError, match=f"no image {name} .*{reason}"):
        found.get(name)
    asked = registry.asked["secret manifests"]
    assert asked <= 2  # HEAD and GET
    with pytest.raises(ImageError):
        found.get(name)
    assert registry.asked["secret manifests"] == asked
    registry.refusals.clear()
    registry.add("secret")
    found.retry()
    assert found.get(name).id


def test_an_image_pinned_by_digest_is_pulled(
    registry: Registry, open_images: Callable[..., Images]
) -> None:
    pinned = registry.add("pinned", "the old content")
    registry.add("pinned", "the new content")
    found = open_images()
    assert found.get(pinned) != found.get(registry.name("pinned"))


def test_an_image_for_another_platform_is_pulled(
    registry: Registry, open_images: Callable[..., Images]
) -> None:
    registry.add("other", architecture="arm64")
    assert open_images().get(registry.name("other")).platform == "linux/arm64"


def test_unneeded_images_are_removed_above_the_limit(
    registry: Registry, open_images: Callable[..., Images], docker_client: DockerClient
) -> None:
    for name in ("done", "queued", "stranger", "next"):
        registry.add(name)
    done, queued, stranger, following = map(
        registry.name, ("done", "queued", "stranger", "next")
    )
    docker_client.images.pull(stranger)

    needed = {done: 1, queued: 1, following: 1}
    found = open_images(needed, limit_gb=1e-9)
    first = found.get(done)
    assert docker_client.images.get(done)
    found.get(queued)
    needed[done] = 0
    found.get(following)
    here = {tag for image in docker_client.images.list() for tag in image.tags}
    assert done not in here
    assert {queued, stranger, following} <= here
    assert found.get(done) == first  # pulled again


def test_images_without_a_registry_are_never_removed(
    registry: Registry, open_images: Callable[..., Images], docker_client: DockerClient
) -> None:
    registry.add("pulled")
    local = "swebench-trainer/only-here:latest"
    docker_client.images.pull(registry.name("pulled")).tag(local)
    docker_client.images.remove(registry.name("pulled"))
    try:
        found = open_images({local: 0}, limit_gb=1e-9)
        found.get(registry.name("pulled"))
        assert docker_client.images.get(local)
    finally:
        docker_client.images.remove(local, force=True)
