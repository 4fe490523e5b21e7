"""Commands that only look at recipes and plugins import nothing heavy."""

import subprocess
import sys

from swebench_trainer.testing.assertions import HEAVY

COMMANDS = (
    ["--help"],
    ["run", "--help"],
    ["check", "recipes/quickstart.toml"],
    ["plugins"],
    ["schema"],
)
PROBE = f"""
import sys
from swebench_trainer.__main__ import run_command_line
for command in {COMMANDS!r}:
    code = run_command_line(command)
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    assert code == 0 and not heavy, (command, code, heavy)
"""


def test_light_commands_import_nothing_heavy(pytestconfig):
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        cwd=pytestconfig.rootpath,
    )
    assert done.returncode == 0, done.stderr
