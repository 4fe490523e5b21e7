"""Commands that only look at recipes and plugins import nothing heavy."""

import subprocess
import sys

import pytest

from swebench_trainer.testing.assertions import HEAVY

PROBE = """
import sys
from swebench_trainer.__main__ import run_command_line
code = run_command_line(sys.argv[1:])
heavy = [name for name in {heavy!r} if name in sys.modules]
assert code == 0, code
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["check", "recipes/quickstart.toml"],
        ["plugins"],
        ["schema"],
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments, request):
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=request.config.rootpath
    )
    assert done.returncode == 0, done.stderr
