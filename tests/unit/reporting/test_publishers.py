"""Publishing never overwrites other data, and keeps earlier releases."""

import pytest

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.reporting.publishers import (
    DirectoryPublisher,
    DirectoryTable,
    HubPublisher,
    HubTable,
)


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "README.md").write_text("swebench-trainer one")
    return folder


def to(path):
    return DirectoryPublisher(DirectoryTable(use="directory", path=path))


def test_a_second_release_moves_the_first_one_aside(release, tmp_path):
    target = tmp_path / "out"
    assert to(target).publish(release) == str(target)
    (release / "README.md").write_text("two")
    publisher = to(target)
    publisher.check()
    publisher.publish(release)
    assert (target / "README.md").read_text() == "two"
    assert (tmp_path / "out.1" / "README.md").read_text() == "swebench-trainer one"


def test_a_directory_that_is_not_a_release_is_not_overwritten(tmp_path):
    other = tmp_path / "checkout"
    other.mkdir()
    (other / "README.md").write_text("I write about swebench-trainer too.")
    with pytest.raises(PrerequisiteError, match="not overwritten"):
        to(other).check()


def test_the_hub_needs_a_token_and_does_not_show_it(monkeypatch):
    publisher = HubPublisher(HubTable(use="hub", repo="me/model", token_env="MY_TOKEN"))
    monkeypatch.delenv("MY_TOKEN", raising=False)
    with pytest.raises(PrerequisiteError, match=r"\$MY_TOKEN"):
        publisher.check()
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    publisher.check()
