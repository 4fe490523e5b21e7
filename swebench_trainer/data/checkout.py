"""A git repository at one revision, cloned once into the user's cache."""

from __future__ import annotations

import re
from pathlib import Path

from swebench_trainer.errors import DataError
from swebench_trainer.git import GitError, git
from swebench_trainer.store.cache import cached, user_cache
from swebench_trainer.store.digest import digest

# A revision follows the last @, if no slash comes behind it: `ssh://git@host/x` has none.
_ADDRESS = re.compile(
    r"(?P<url>(?:https?|git)://\w[^@\s]*?"
    r"|ssh://\w\S*?|file:///\S*?|\w[\w.]*@\w[\w.-]*:\S+?)"
    r"(?:@(?P<revision>\w[\w.+-]*))?"
)


def is_address(text: str) -> bool:
    """Whether a text is the address of a repository, not a path of this machine."""
    return _ADDRESS.fullmatch(text) is not None


def checkout(address: str) -> Path:
    """The files of a repository at a revision; nobody may write to them.

    What is in the cache is not fetched again: an address without a revision keeps
    what its branch was the first time.

    Args:
        address: `https://host/owner/name`, `ssh://…`, `git@host:owner/name` or
            `file:///path`, with `@` and a branch, a tag or a full commit id behind it.

    Raises:
        DataError: It is no address, or the revision cannot be had.
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
    # A link of the repository could lead to any file of this machine.
    plain = ("-c", "core.symlinks=false", "-c", "core.autocrlf=false")
    try:
        git("-C", str(place), "init", "--quiet", "--template=")
        git("-C", str(place), *fetch, "--", url, revision, online=True, inherit=locks)
        git(
            "-C",
            str(place),
            *plain,
            "checkout",
            "--quiet",
            "--detach",
            "FETCH_HEAD",
            inherit=locks,
        )
    except GitError as error:
        raise DataError(
            f"{error}.",
            hint="Check the address and the network. A revision is a branch, a tag or "
            "a full commit id; or clone it by yourself and give the directory.",
        ) from error
