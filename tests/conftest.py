"""What every test has: a cache of its own, never the user's."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory):
    """Processes that a test starts inherit it; tests that compare runs take their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n`: a file's fixtures are made by one worker, the daemon is used by one."""
    for item in items:
        group = "docker" if item.get_closest_marker("docker") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rewrite-golden` writes the golden files instead of comparing with them."""
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the prompts of tests/golden anew",
    )
