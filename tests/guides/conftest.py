"""Runs Python outside the checkout, with plugins that pip has installed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


class Elsewhere:
    """A directory of a plugin's author, and where its distributions are installed."""

    def __init__(self, folder, server):
        self.folder = folder
        self.site = folder / "site"
        self._server = server

    def python(self, *command, cwd=None):
        """Runs `python -m` with a command in a directory; returns its output."""
        process = self._server.start(command, cwd or self.folder, self.environment())
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        return out + err

    def environment(self):
        paths = [str(self.site), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "COLUMNS": "200",
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }

    def install(self, *distributions):
        """Installs distributions with pip, without the network."""
        options = "--quiet --no-deps --no-build-isolation --disable-pip-version-check"
        command = [sys.executable, "-m", "pip", "install", *options.split()]
        subprocess.run([*command, "--target", self.site, *distributions], check=True)

    def passes(self, distribution):
        """Runs the tests of a distribution, with no configuration of ours."""
        out = self.python("pytest", "-q", "-W", "error", cwd=distribution)
        assert " passed" in out and "failed" not in out, out


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, warm_server):
    return Elsewhere(tmp_path_factory.mktemp("elsewhere"), warm_server)
