"""Publishers: a directory, or the Hugging Face Hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import Field

from swebench_trainer.errors import PrerequisiteError, StageError
from swebench_trainer.recipe.models import PlacePath, PublishTable


class DirectoryTable(PublishTable):
    """Keys of `[publish] use = "directory"`."""

    path: PlacePath | None = None
    """Where to copy the release; without it the release stays in the run directory."""


class DirectoryPublisher:
    """Copies the release to a directory."""

    def __init__(self, table: DirectoryTable) -> None:
        self._path = table.path

    def check(self) -> None:
        """See `Publisher.check`."""
        if self._path and self._path.exists() and not _is_release(self._path):
            raise PrerequisiteError(
                f"{self._path} is there and is not a release; nothing of it is overwritten.",
                hint="Name another directory under [publish] path.",
            )

    def publish(self, folder: Path) -> str:
        """Copies the folder; a release that is there already is replaced."""
        if self._path is None:
            return str(folder)
        if self._path.exists():
            shutil.rmtree(self._path)
        shutil.copytree(folder, self._path)
        return str(self._path)


def _is_release(path: Path) -> bool:
    card = path / "README.md"
    return path.is_dir() and card.is_file() and "swebench-trainer" in card.read_text()


class HubTable(PublishTable):
    """Keys of `[publish] use = "hub"`."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Model repository: `owner/name`."""
    private: bool = True
    """Whether a repository that is made is private."""
    token_env: str = "HF_TOKEN"  # noqa: S105 - a variable's name, not its content
    """Environment variable that holds the token; the token itself is never written."""


class HubPublisher:
    """Uploads the release to a model repository of the Hugging Face Hub."""

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
        """Makes the repository if need be and uploads the folder as one commit.

        Raises:
            StageError: The Hub refuses or cannot be reached.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=os.environ[self._table.token_env])
        try:
            api.create_repo(
                self._table.repo, private=self._table.private, exist_ok=True
            )
            commit = api.upload_folder(repo_id=self._table.repo, folder_path=folder)
        except Exception as error:  # besides its own errors, those of its transport
            raise StageError(
                f"The Hub did not take {self._table.repo}: {error}",
                hint="The release is in the run directory; run the same command again.",
            ) from error
        return str(commit.commit_url)
