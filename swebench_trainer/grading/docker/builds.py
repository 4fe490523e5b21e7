"""Images built from Dockerfiles, by the harness's image builder.

The harness calls `docker buildx`. Where that plugin is missing, the daemon's classic
builder gets the same Dockerfile, name, and context. A label with the digest of both
decides whether an image must be built again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from swebench_trainer.store.digest import digest, digest_path
from swebench_trainer.types import Instance

LABEL = "swebench-trainer.build"
"""Label of an image that we built; its value is the digest of Dockerfile and context."""

BuildPolicy = Literal["missing", "never", "always"]

POLL_SECONDS = 0.5
"""How often a running build checks whether it should stop."""

_BUILDKIT = re.compile(
    r"^[ \t]*(?:(?:RUN|COPY|ADD)\b.*<<-?[ \t]*[\"']?\w"
    r"|RUN[ \t]+--\w"
    r"|(?:COPY|ADD)[ \t]+(?:--[\w=:,./-]+[ \t]+)*"
    r"--(?:chmod|link|parents|exclude|checksum|keep-git-dir)\b).*",
    re.MULTILINE | re.IGNORECASE,
)
"""Instructions that the classic builder does not know."""

_COPIES_ALL = re.compile(
    r"^[ \t]*(?:COPY|ADD)\b[^\n]*?(?:[ \t\"](?:\./?|/)[ \t\",]|\*)",
    re.MULTILINE | re.IGNORECASE,
)
_FROM = re.compile(r"^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*(\S+)", re.MULTILINE | re.I)

log = logging.getLogger(__name__)


class BuildError(Exception):
    """An image cannot be built; the message explains why, and names the build log."""


@dataclass(frozen=True)
class ImageBuild:
    """How to build one image.

    Attributes:
        instance_id: The first instance that needs it.
        name: Name of the image, with its tag.
        dockerfile: The Dockerfile; its directory is the build context.
    """

    instance_id: str
    name: str
    dockerfile: Path

    @cached_property
    def text(self) -> str:
        """Content of the Dockerfile.

        Raises:
            BuildError: It cannot be read.
        """
        try:
            return self.dockerfile.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BuildError(f"cannot read {self.dockerfile}: {error}") from error

    @cached_property
    def digest(self) -> str:
        """Digest of the Dockerfile and of the context that it can copy."""
        try:
            files = sorted(self.dockerfile.parent.iterdir())
            return digest(
                [self.text, *([f.name, digest_path(f)] for f in files if self._uses(f))]
            )
        except OSError as error:
            raise BuildError(f"cannot read the build context: {error}") from error

    def _uses(self, file: Path) -> bool:
        """Whether the build may read a file: a task's own files are rarely copied."""
        if file.name not in _task_files():
            return True
        return file.name in self.text or bool(_COPIES_ALL.search(self.text))

    @property
    def labeled_text(self) -> str:
        """The Dockerfile with our label."""
        return f'{self.text.rstrip()}\nLABEL {LABEL}="{self.digest}"\n'

    @property
    def request(self) -> dict[str, str]:
        """Arguments of the harness's specification, as JSON values."""
        return {
            "name": self.name,
            "instance_id": self.instance_id,
            "dockerfile": self.labeled_text,
            "context": str(self.dockerfile.parent),
        }


@cache
def _task_files() -> frozenset[str]:
    """Files of a task directory that the harness reads, besides the build context."""
    from swebench.task.checks import REQUIRED_FILES

    return frozenset(REQUIRED_FILES)


def builds_of(instance: Instance) -> list[ImageBuild]:
    """The builds that produce an instance's image, base images first."""
    files = [Path(name) for name in instance.dockerfiles]
    builds = []
    for file, user in zip(files, [*files[1:], None], strict=True):
        name = instance.image if user is None else base_image(user)
        builds.append(ImageBuild(instance.instance_id, name, file))
    return builds


def base_image(dockerfile: Path) -> str:
    """The image that a Dockerfile starts from.

    Raises:
        BuildError: The Dockerfile cannot be read, or does not name one.
    """
    try:
        found = _FROM.search(dockerfile.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"cannot read {dockerfile}: {error}") from error
    if found is None:
        raise BuildError(f"{dockerfile} has no FROM")
    return found[1]


def build_label(facts: Mapping[str, Any]) -> str | None:
    """Our label of an image, from the daemon's description of it."""
    labels: Mapping[str, str] = (facts.get("Config") or {}).get("Labels") or {}
    return labels.get(LABEL)


@dataclass(frozen=True)
class BuildOrder:
    """An image that a grading needs and may have to build.

    Attributes:
        instance: The first instance that needs it.
        log_dir: Directory of the build log.
    """

    instance: Instance
    log_dir: Path


class Builder:
    """Builds images on one daemon.

    Args:
        api: The SDK's `APIClient`.
        address: The daemon's address; empty for the default one.
        policy: `[grade] build` of the recipe.
        orders: The images, by name; more may be added later.
        stopped: Ends running builds.
    """

    def __init__(
        self,
        api: Any,
        address: str,
        *,
        policy: BuildPolicy,
        orders: Mapping[str, BuildOrder],
        stopped: threading.Event,
    ) -> None:
        self._api = api
        self._address = address
        self._policy = policy
        self._orders = orders
        self._stopped = stopped

    def can_build(self, name: str) -> bool:
        """Whether a missing image may be built."""
        order = self._orders.get(name)
        return bool(order and order.instance.dockerfiles) and self._policy != "never"

    def should_build(self, name: str, facts: Mapping[str, Any] | None) -> bool:
        """Whether an image is built without asking a registry.

        An image that somebody else built under this name is used, except with `always`.

        Args:
            name: The image.
            facts: The daemon's description of it; `None` if it is missing.

        Raises:
            BuildError: The Dockerfile cannot be read.
        """
        if not self.can_build(name):
            return False
        if facts is None:
            return self._policy == "always"
        label = build_label(facts)
        if label is None:
            return self._policy == "always"
        return label != builds_of(self._orders[name].instance)[-1].digest

    def build(self, name: str) -> None:
        """Build an image, and the base images that are missing or outdated.

        Raises:
            BuildError: A build failed or was stopped.
        """
        order = self._orders[name]
        *bases, last = builds_of(order.instance)
        for base in bases:
            if not self._is_current(base):
                self._build(base, order.log_dir)
        self._build(last, order.log_dir)

    def _build(self, build: ImageBuild, log_dir: Path) -> None:
        build_image(self._api, build, log_dir, self._stopped, self._address)

    def _is_current(self, build: ImageBuild) -> bool:
        from docker.errors import ImageNotFound

        try:
            label = build_label(self._api.inspect_image(build.name))
        except ImageNotFound:
            return False
        return label in (None, build.digest)


def build_image(
    api: Any,
    build: ImageBuild,
    log_dir: Path,
    stopped: threading.Event,
    address: str = "",
) -> None:
    """Build an image, replacing one with the same name.

    Args:
        api: The SDK's `APIClient`.
        build: What to build.
        log_dir: Directory of the build log.
        stopped: Ends a running build.
        address: The daemon's address; empty for the default one.

    Raises:
        BuildError: The build failed or was stopped.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    path = log_dir / f"build.{re.sub(r'[^A-Za-z0-9._-]', '_', build.name)}.log"
    if has_buildx():
        _build_with_harness(build, path, stopped, address)
        return
    if feature := _BUILDKIT.search(build.text):
        raise BuildError(
            f"{build.dockerfile} needs BuildKit ({feature[0].strip()[:60]}), and "
            "docker buildx is not installed"
        )
    _say_classic_once()
    _build_classically(api, build, path, stopped)


def _build_with_harness(
    build: ImageBuild, path: Path, stopped: threading.Event, address: str
) -> None:
    """Call the harness in a process that can be stopped.

    It writes its logs below the current directory.
    """
    environment = dict(os.environ)
    if address:
        environment["DOCKER_HOST"] = address
    # The current directory changes, which relative search paths do not survive.
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output = _wait(process, stopped, json.dumps(build.request).encode())
        logs = sorted(Path(folder).rglob("build_image.log"))
        path.write_bytes(b"".join(log.read_bytes() for log in logs) + output)
    if process.returncode:
        raise BuildError(f"the build of {build.name} failed; see {path}")


def _wait(
    process: subprocess.Popen[bytes], stopped: threading.Event, request: bytes
) -> bytes:
    """Output of a process, which is killed with its children when builds stop."""
    pending: bytes | None = request
    while True:
        try:
            return process.communicate(pending, timeout=POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            pending = None
            if stopped.is_set():
                os.killpg(process.pid, signal.SIGKILL)


def _build_classically(
    api: Any, build: ImageBuild, path: Path, stopped: threading.Event
) -> None:
    from docker.errors import DockerException

    with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as folder:
        dockerfile = Path(folder, "Dockerfile")
        dockerfile.write_text(build.labeled_text, encoding="utf-8")
        try:
            events = api.build(
                path=str(build.dockerfile.parent),
                dockerfile=str(dockerfile),
                tag=build.name,
                platform=_spec(**build.request).platform,
                rm=True,
                forcerm=True,
                decode=True,
            )
            problem = _write_log(events, path, stopped)
        except (DockerException, OSError) as error:
            problem = str(error)
    if problem:
        raise BuildError(f"the build of {build.name} failed: {problem}; see {path}")


def _write_log(
    events: Iterator[dict[str, Any]], path: Path, stopped: threading.Event
) -> str:
    """Write the output of a build to its log; returns the error, or nothing."""
    with path.open("w", encoding="utf-8") as file:
        file.write("docker buildx is not installed: classic builder\n")
        for event in events:
            file.write(event.get("stream", ""))
            if "error" in event:
                file.write(event["error"] + "\n")
                return str(event["error"]).strip()
            if stopped.is_set():
                return "it was stopped"
    return ""


@cache
def has_buildx() -> bool:
    """Whether `docker buildx`, which the harness calls, is installed."""
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(
        ["docker", "buildx", "version"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return done.returncode == 0


@cache
def _say_classic_once() -> None:
    log.warning("docker buildx is not installed: building with the classic builder")


def _spec(name: str, instance_id: str, dockerfile: str, context: str) -> Any:
    """The harness's `ImageSpec` of an image, under the name that the instance gives."""
    from swebench.image_builder import ImageSpec

    named = type("Named", (ImageSpec,), {"name": name})
    return named(
        instance_id=instance_id,
        dockerfile=dockerfile,
        namespace=None,
        context_dir=context,
    )


def _build_here() -> None:
    """Build the image that stdin describes with the harness, in this process."""
    import docker
    from swebench.image_builder import build_instance_image, remove_image

    spec = _spec(**json.load(sys.stdin))
    client = docker.from_env()
    # The harness skips a name that exists, even if it was built from other files.
    remove_image(client, spec.name, logging.getLogger("swebench-trainer"))
    build_instance_image(spec, client, None, nocache=False)


if __name__ == "__main__":
    _build_here()
