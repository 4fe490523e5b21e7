"""What every test has: a cache of its own, never the user's."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory):
    """Processes that a test starts inherit it; tests that compare runs take their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rewrite-golden` writes the golden files instead of comparing with them."""
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the prompts of tests/golden anew",
    )
