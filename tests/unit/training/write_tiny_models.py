"""Writes the built-in models: `python -m write_tiny_models FOLDER`."""

import sys
from pathlib import Path

from swebench_trainer.training.models import tiny

for name in tiny.MODELS:
    tiny.write_tiny(Path(sys.argv[1], name), name)
