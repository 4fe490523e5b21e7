"""Whether the long form of the tests with Docker runs: `.ci/extended` asks for it."""

import os

EXTENDED = os.environ.get("SWEBENCH_TRAINER_EXTENDED") == "1"
