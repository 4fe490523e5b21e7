"""A git repository at one revision, cloned once into the user's cache."""

from __future__ import annotations

import re
from pathlib import Path

from swebench_trainer.errors import DataError
from swebench_trainer.git import GitError, git
from swebench_trainer.store.cache import cached, user_cache
from swebench_trainer.store.digest import digest

# A revision follows the last @ if no slash follows it: `ssh://git@host/x` has none.
_ADDRESS = re.compile(
    r"(?P<url>(?:https?|git)://\w[^@\s]*?"
    r"|ssh://\w\S*?|file:///\S*?|\w[\w.]*@\w[\w.-]*:\S+?)"
    r"(?:@(?P<revision>\w[\w.+-]*))?"
)


def is_address(text: str) -> bool:
    """Whether a text is the address of a repository and not a local path."""
    return _ADDRESS.fullmatch(text) is not None


def checkout(address: str) -> Path:
    """A read-only checkout of a repository at a revision.

    Cached checkouts are not fetched again, so an address without a revision stays at the
    commit of its first checkout.

    Args:
        address: `https://host/owner/name`, `ssh://…`, `git@host:owner/name` or
            `file:///path`, optionally followed by `@` and a branch, tag or full commit id.

    Raises:
        DataError: The address is invalid, or the revision cannot be fetched.
        PrerequisiteError: git is not installed.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise DataError(f"{address} is not the address of a git repository.")
    url, revision = found["url"], found["revision"] or "HEAD"
    place = user_cache("checkouts", digest([url, revision]))
    return cached(place, lambda new, lock: _clone(url, revision, new, lock))


def _clone(url: str, revision: str, place: Path, *locks: int) -> None:
    place.mkdir()
    fetch = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules")
    # A symbolic link in the repository could point to any local file.
    safe = ("-c", "core.symlinks=false", "-c", "core.autocrlf=false")
    try:
        git("-C", str(place), "init", "--quiet", "--template=")
        git("-C", str(place), *fetch, "--", url, revision, online=True, inherit=locks)
        git(
            "-C",
            str(place),
            *safe,
            "checkout",
            "--quiet",
            "--detach",
            "FETCH_HEAD",
            inherit=locks,
        )
    except GitError as error:
        raise DataError(
            f"{error}.",
            hint="Check the address and the network. A revision is a branch, a tag or a "
            "full commit id. Or clone the repository yourself and use its directory.",
        ) from error
