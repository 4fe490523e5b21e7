"""Runs Python outside the checkout, with plugins that pip has installed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


class Elsewhere:
    """A directory of a plugin's author, and where its distributions are installed."""

    def __init__(self, folder):
        self.folder = folder
        self.site = folder / "site"

    def python(self, *arguments, cwd=None, code=0):
        """Runs Python in a directory; returns what it printed."""
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd or self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def environment(self):
        paths = [str(self.site), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }

    def install(self, distribution):
        """Installs a distribution as pip does for anybody, but for the network."""
        self.python(
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--disable-pip-version-check",
            "--target",
            self.site,
            distribution,
        )

    def passes(self, distribution):
        """Runs the tests of a distribution, with no configuration of ours."""
        out = self.python(
            "-m", "pytest", "-q", "-p", "no:xdist", "-W", "error", cwd=distribution
        )
        assert " passed" in out and "failed" not in out, out


@pytest.fixture
def elsewhere(tmp_path):
    return Elsewhere(tmp_path)
