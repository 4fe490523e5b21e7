"""A sequence on disk is a sequence."""

import pytest

from swebench_trainer.store import spool
from swebench_trainer.store.spool import Spool
from swebench_trainer.types import Instance


@pytest.mark.parametrize("in_memory", [1, 100, 1 << 20])
def test_what_goes_in_comes_out_in_memory_and_on_disk(monkeypatch, in_memory):
    monkeypatch.setattr(spool, "_IN_MEMORY", in_memory)
    values = [Instance(f"i-{n}", "r", "c", "p" * n, "\ud800") for n in range(50)]
    spooled = Spool(values)
    assert spooled == values and len(spooled) == 50
    assert spooled[-1] == values[-1] and spooled[10:13] == values[10:13]
    with pytest.raises(IndexError):
        spooled[50]


def test_readers_do_not_disturb_each_other():
    numbers = Spool(range(5))
    assert list(zip(numbers, numbers, strict=True)) == [(n, n) for n in range(5)]
    seen = []
    for number in numbers:
        seen.append(number)
        if number == 2:
            numbers.append(99)
    assert seen == [0, 1, 2, 3, 4] and numbers[5] == 99


def test_a_part_reads_the_same_file():
    even = Spool(range(10)).where(lambda place: place % 2 == 0)
    assert list(even) == [0, 2, 4, 6, 8]
    assert list(even.where(lambda place: place > 2)) == [6, 8]
    assert even != Spool([0, 2]) and even != 5
