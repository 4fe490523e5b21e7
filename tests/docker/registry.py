"""A local registry with small images, which refuses requests on demand."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker import DockerClient

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

CODES = {401: "UNAUTHORIZED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Registry:
    """Serves images that tests create, and counts requests."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.refusals: list[int] = []
        """Statuses of the next responses to requests for a manifest."""
        self.asked: Counter[str] = Counter()
        """Requests by repository and kind, such as `a/b blobs`."""
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), self._handler()
        )
        self.address = f"127.0.0.1:{self._server.server_port}"

    def add(self, name: str, content: str = "", *, architecture: str = "amd64") -> str:
        """Adds an image with one file; returns its reference by digest."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as layer:
            file = (content or name).encode()
            entry = tarfile.TarInfo("content")
            entry.size = len(file)
            layer.addfile(entry, io.BytesIO(file))
        diff = packed.getvalue()
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(diff)]},
            }
        ).encode()
        return self._add(name, config, [diff])

    def add_saved(self, name: str, path: Path) -> str:
        """Adds an image that `docker save` wrote; returns its reference by digest."""
        with tarfile.open(path) as saved:

            def content(member: str) -> bytes:
                file = saved.extractfile(member)
                assert file is not None
                return file.read()

            (image,) = json.loads(content("manifest.json"))
            layers = [content(member) for member in image["Layers"]]
            return self._add(name, content(image["Config"]), layers)

    def _add(self, name: str, config: bytes, layers: list[bytes]) -> str:
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor(CONFIG, config),
                "layers": [_descriptor(LAYER, layer) for layer in layers],
            }
        ).encode()
        self.blobs |= {digest_of(blob): blob for blob in (config, *layers)}
        for reference in ("latest", digest_of(manifest)):
            self.manifests[name, reference] = manifest
        return f"{self.address}/{name}@{digest_of(manifest)}"

    def name(self, name: str) -> str:
        """Reference of an image in this registry, with the tag `latest`."""
        return f"{self.address}/{name}:latest"

    @contextmanager
    def serving(self) -> Iterator[Registry]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def remove_images(self, client: DockerClient) -> None:
        """Remove the images of this registry from a daemon."""
        for image in client.api.images():
            for name in [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]:
                if name.startswith(f"{self.address}/") and "<none>" not in name:
                    with contextlib.suppress(docker.errors.ImageNotFound):
                        client.api.remove_image(name, force=True)

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/v2/":
            return 200, "application/json", b"{}"
        name, kind, reference = path.removeprefix("/v2/").rsplit("/", 2)
        self.asked[f"{name} {kind}"] += 1
        if kind == "blobs":
            return 200, "application/octet-stream", self.blobs[reference]
        if self.refusals:
            status = self.refusals.pop(0)
            return status, "application/json", _error(CODES.get(status, "UNKNOWN"))
        manifest = self.manifests.get((name, reference))
        if manifest is None:
            return 404, "application/json", _error("MANIFEST_UNKNOWN")
        return 200, MANIFEST, manifest

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, kind, content = registry._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                if kind == MANIFEST:
                    self.send_header("Docker-Content-Digest", digest_of(content))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _descriptor(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(content), "digest": digest_of(content)}


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
