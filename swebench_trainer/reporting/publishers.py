"""Publishers: a directory, or the Hugging Face Hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import Field

from swebench_trainer.errors import PrerequisiteError, StageError
from swebench_trainer.recipe.models import PlacePath, PublishTable
from swebench_trainer.store.rundir import move_aside

_MARK = ".swebench-trainer-release"
"""Name of a file that marks a directory as a release of this program."""


class DirectoryTable(PublishTable):
    """Keys of `[publish] use = "directory"`."""

    path: PlacePath | None = None
    """Directory to copy the release to; without it the release stays in the run directory."""


class DirectoryPublisher:
    """A directory on this machine."""

    def __init__(self, table: DirectoryTable) -> None:
        self._path = table.path

    def check(self) -> None:
        """See `Publisher.check`."""
        if self._path and self._path.exists() and not (self._path / _MARK).exists():
            raise PrerequisiteError(
                f"{self._path} exists and is not a release of swebench-trainer, so it is "
                "not overwritten.",
                hint="Set [publish] path to another directory.",
            )

    def publish(self, folder: Path) -> str:
        """Copies the folder and moves an earlier release aside."""
        if self._path is None:
            return str(folder)
        partial = self._path.with_name(f".{self._path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder, partial)
        (partial / _MARK).touch()
        if self._path.exists():
            move_aside(self._path, self._path.parent)
        partial.rename(self._path)
        return str(self._path)


class HubTable(PublishTable):
    """Keys of `[publish] use = "hub"`."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Model repository, `owner/name`."""
    private: bool = True
    """Whether a newly created repository is private."""
    token_env: str = "HF_TOKEN"  # noqa: S105 - a variable's name, not its content
    """Environment variable with the token. The token itself is never written to disk."""


class HubPublisher:
    """A model repository on the Hugging Face Hub."""

    def __init__(self, table: HubTable) -> None:
        self._table = table

    def check(self) -> None:
        """See `Publisher.check`."""
        if not os.environ.get(self._table.token_env):
            raise PrerequisiteError(
                f"Publishing to the Hub needs a token in ${self._table.token_env}.",
                hint=f"export {self._table.token_env}=… and run the same command again.",
            )

    def publish(self, folder: Path) -> str:
        """Creates the repository if needed and uploads the folder as one commit.

        Raises:
            StageError: The upload failed.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=os.environ[self._table.token_env])
        try:
            api.create_repo(
                self._table.repo, private=self._table.private, exist_ok=True
            )
            commit = api.upload_folder(repo_id=self._table.repo, folder_path=folder)
        except Exception as error:  # includes errors of its HTTP client
            raise StageError(
                f"Uploading to {self._table.repo} failed: {error}",
                hint="The release is in the run directory; run the same command again.",
            ) from error
        return str(commit.commit_url)
