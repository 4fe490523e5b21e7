"""`swebench-train images`: the images of a recipe's data on the Docker daemon."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from swebench_trainer import doctor
from swebench_trainer.commands.inputs import load_plugins, load_recipe
from swebench_trainer.commands.options import ImagesAction
from swebench_trainer.errors import PrerequisiteError, StageError
from swebench_trainer.grading.docker.builds import (
    Builder,
    BuildOrder,
    BuildPolicy,
    build_label,
)
from swebench_trainer.grading.docker.hosts import Host
from swebench_trainer.grading.docker.images import ImageError, Images, is_replaceable
from swebench_trainer.grading.namespace.image_roots import cached_roots, prune_roots
from swebench_trainer.reporting.console import open_console, print_line
from swebench_trainer.store.cache import PruneLimits
from swebench_trainer.types import Instance

LOGS = Path("logs/image_builder")
"""Where the harness's own `images build` puts its logs."""


def execute(action: ImagesAction, recipe: Path, overrides: list[str]) -> None:
    """Shows, pulls, builds, or removes the images of a recipe's data.

    Args:
        action: What to do.
        recipe: The recipe; its `[data]` names the instances.
        overrides: `table.key=value`, as given to `--set`.

    Raises:
        PrerequisiteError: The daemon does not answer.
        StageError: Some images can be neither pulled nor built.
    """
    plugins, console = load_plugins(), open_console()
    loaded, _ = load_recipe(recipe, overrides, plugins)
    data = plugins.registry.create(loaded.data).load().instances
    instances = {i.image: i for i in data if i.image}
    with _daemon() as host:
        match action:
            case ImagesAction.CHECK:
                _show(console, host, instances)
            case ImagesAction.PULL:
                _obtain(console, host, instances, "never")
            case ImagesAction.BUILD:
                buildable = {n: i for n, i in instances.items() if i.dockerfiles}
                _obtain(console, host, buildable, "always")
            case ImagesAction.PRUNE:
                _prune(console, host, instances)


@contextmanager
def _daemon() -> Iterator[Host]:
    """The default daemon.

    Raises:
        PrerequisiteError: It does not answer.
    """
    from docker.errors import DockerException

    with closing(Host("", 0)) as host:
        try:
            host.client.ping()
        except (DockerException, OSError) as error:
            raise PrerequisiteError(
                f"The Docker daemon does not answer: {error}.",
                hint="Start Docker, and check that `docker info` works for the current "
                "user.",
            ) from error
        yield host


def _found(host: Host, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The daemon's descriptions of the images that it has."""
    from docker.errors import DockerException

    api: Any = host.client.api
    found = {}
    for name in names:
        try:
            found[name] = api.inspect_image(name)
        except DockerException:  # missing, or an invalid name
            continue
    return found


def _show(console: Console, host: Host, instances: Mapping[str, Instance]) -> None:
    """Show each image, the total, and what is missing."""
    found = _found(host, list(instances))
    roots = {name for root in cached_roots() for name in root.names}
    table = Table("image", "state", "size", "id", "exported")
    for name, instance in sorted(instances.items()):
        facts = found.get(name)
        can_build = "missing; can be built" if instance.dockerfiles else "missing"
        table.add_row(
            Text(name),
            can_build if facts is None else _origin(facts),
            decimal(facts["Size"]) if facts else "",
            facts["Id"].partition(":")[2][:12] if facts else "",
            "yes" if name in roots else "",
        )
    console.print(table)
    total = decimal(sum(facts["Size"] for facts in found.values()))
    print_line(console, f"{len(found)} of {len(instances)} images present, {total}")
    _, logged_in = doctor.check_login(host.client.info())
    finding = doctor.check_images(list(instances.values()), set(found), logged_in)
    print_line(console, str(finding))


def _origin(facts: Mapping[str, Any]) -> str:
    if build_label(facts) is not None:
        return "built here"
    return "pulled" if facts.get("RepoDigests") else "local"


def _obtain(
    console: Console,
    host: Host,
    instances: Mapping[str, Instance],
    policy: BuildPolicy,
) -> None:
    """Pull or build images, and name those that failed.

    Raises:
        StageError: At least one failed.
    """
    stopped = threading.Event()
    orders = {name: BuildOrder(i, LOGS) for name, i in instances.items()}
    api = host.client.api
    builder = Builder(api, host.address, policy=policy, orders=orders, stopped=stopped)
    images = Images(api, {}, None, stopped, builder)
    failed = []
    try:
        requested = {name: images.find(name) for name in instances}
        for name, image in requested.items():
            try:
                print_line(console, f"{name} {image.result().id}")
            except ImageError as error:
                failed.append(name)
                print_line(console, f"{name} failed: {error}")
    finally:
        stopped.set()
        images.close()
    if failed:
        raise StageError(
            f"{len(failed)} of {len(instances)} images are unavailable.",
            hint="Run the same command again after fixing the cause; finished images "
            "are kept.",
        )


def _prune(console: Console, host: Host, instances: Mapping[str, Instance]) -> None:
    """Remove images that can be pulled or built again, and their exported roots."""
    from docker.errors import APIError

    removed = freed = 0
    for name, facts in _found(host, list(instances)).items():
        if not is_replaceable(name, facts, bool(instances[name].dockerfiles)):
            print_line(
                console, f"{name} kept: it can be neither pulled nor built again"
            )
            continue
        try:
            host.client.api.remove_image(name)
        except APIError as error:  # in use by a container
            print_line(console, f"{name} kept: {error.explanation}")
            continue
        removed += 1
        freed += facts["Size"]
    roots = prune_roots(PruneLimits(unused_for=-1), instances)
    print_line(
        console,
        f"removed {removed} images, {decimal(freed)} with the layers that they share, "
        f"and {roots} exported roots",
    )
