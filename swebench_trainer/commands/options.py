"""Options and arguments that several commands share, or that are long."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

RUNS = Path("runs")


class ImagesAction(StrEnum):
    """What `images` does."""

    CHECK = "check"
    PULL = "pull"
    BUILD = "build"
    PRUNE = "prune"


RecipeArgument = Annotated[
    Path, Argument(metavar="RECIPE", help="Recipe file.", show_default=False)
]
GradedArgument = Annotated[
    Path,
    Argument(
        metavar="DIR",
        help="Run directory, or output directory of `grade`.",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    Option("--set", metavar="TABLE.KEY=VALUE", help="Override a key; repeatable."),
]
RunsDirOption = Annotated[Path, Option(help="Directory for run directories.")]
HubSplitOption = Annotated[str, Option(help="Split of a Hugging Face dataset.")]
DryRunOption = Annotated[
    bool, Option("--dry-run", help="Show the result without writing anything.")
]

ScriptsOption = Annotated[
    str | None,
    Option(
        help="Evaluation repository of SWE-bench Pro, for its rows: a checkout, or "
        "address@commit.",
    ),
]
DigestsOption = Annotated[
    Path | None, Option(help="JSON file with the digests of SWE-bench Pro's images.")
]
PredictionsOption = Annotated[
    list[Path],
    Option(
        "--predictions",
        "-p",
        help="Predictions file, or submission directory; repeatable.",
    ),
]
WorkersOption = Annotated[
    int, Option(min=0, help="Concurrent candidates; 0: three quarters of the cores.")
]
TimeoutOption = Annotated[
    int | None,
    Option(min=1, help="Seconds per candidate; 1800, or 3600 for SWE-bench Pro."),
]
MemoryOption = Annotated[
    str | None,
    Option(help="Memory per candidate, such as 8g; 16g for SWE-bench Pro."),
]
SampleOption = Annotated[
    int,
    Option(
        min=0,
        help="Instances to try: the gold patch must pass, and an empty one must fail.",
    ),
]
InstancesOption = Annotated[
    list[str] | None, Option(metavar="ID", help="Show this instance; repeatable.")
]
DATA = Option(help="Task repo, file of rows, Hugging Face dataset, or alias.")
OlderThanOption = Annotated[
    str | None,
    Option(
        "--prune-older-than",
        metavar="AGE",
        help="Remove entries unused for this long, such as 30d or 12h.",
    ),
]
MaxSizeOption = Annotated[
    str | None,
    Option(
        metavar="SIZE",
        help="Remove the least recently used entries until each kind fits in this "
        "size, such as 2g or 500m.",
    ),
]
