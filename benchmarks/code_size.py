"""Size and shape of the package: code lines, functions, and modules with one importer.

    python benchmarks/code_size.py CHECKOUT
    python benchmarks/code_size.py BEFORE AFTER

prints Markdown tables for one checkout, or for two side by side.

What counts:

- A code line holds at least one token of code. Blank lines, comments, and strings that
  stand alone as a statement (docstrings, and descriptions of attributes) do not count;
  lines within any other string do, and so do closing brackets.
- A function's length is its code lines, with the signature and without decorators.
- Parameters count without `self` and `cls`; `*args` and `**kwargs` count as one each.
- A single-importer module is imported by exactly one other module of the package,
  anywhere in that module. `__init__.py` and `__main__.py` are left out.
"""

from __future__ import annotations

import ast
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "swebench_trainer"

MANY_PARAMETERS = 6
"""More parameters than this are worth a second look."""

SMALL_MODULE = 50
"""Code lines below which a module with a single importer may belong in that importer."""

NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """A function or method.

    Attributes:
        place: Module and name.
        lines: Code lines.
        parameters: Without `self` and `cls`.
        is_command: Whether it declares a command, whose parameters are its options.
    """

    place: str
    lines: int
    parameters: int
    is_command: bool


@dataclass
class Module:
    """A source file.

    Attributes:
        name: Dotted name without the package.
        lines: Code lines.
        functions: Functions and methods, nested ones too.
        imports: Dotted names that it imports, with the package.
    """

    name: str
    lines: int
    functions: list[Function]
    imports: set[str]

    @property
    def package(self) -> str:
        """The subpackage that holds the module."""
        first, dot, _ = self.name.partition(".")
        return first if dot else "(top level)"


@dataclass
class Measured:
    """A checkout.

    Attributes:
        modules: By dotted name with the package.
        importers: Modules that import a module, by its name.
    """

    modules: dict[str, Module] = field(default_factory=dict)
    importers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def functions(self) -> list[Function]:
        """All functions, longest first."""
        functions = [f for module in self.modules.values() for f in module.functions]
        return sorted(functions, key=lambda f: (-f.lines, f.place))

    @property
    def single_importer(self) -> list[Module]:
        """Modules with exactly one importer, smallest first."""
        single = [
            module
            for name, module in self.modules.items()
            if len(self.importers[name]) == 1
            and name.rpartition(".")[2] not in ("__init__", "__main__")
        ]
        return sorted(single, key=lambda module: (module.lines, module.name))


def code_lines(source: str, tree: ast.Module) -> set[int]:
    """Numbers of the lines that hold code."""
    with_tokens: set[int] = set()
    reader = iter(source.splitlines(keepends=True))
    for token in tokenize.generate_tokens(lambda: next(reader, "")):
        if token.type not in NO_CODE:
            with_tokens.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and _is_string(node.value):
            with_tokens.difference_update(_span(node))
    return with_tokens


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _span(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def functions_of(tree: ast.Module, name: str, lines: set[int]) -> Iterator[Function]:
    """Every function of a module, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode):
            yield Function(
                f"{name}.{node.name}",
                len(lines.intersection(_span(node))),
                _parameter_count(node),
                any(_is_command_decorator(d) for d in node.decorator_list),
            )


def _parameter_count(node: FunctionNode) -> int:
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    own = names[1:] if names[:1] in (["self"], ["cls"]) else names
    stars = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return len(own) + len(arguments.kwonlyargs) + len(stars)


def _is_command_decorator(node: ast.expr) -> bool:
    return ast.unparse(node).startswith("app.command(")


def imports_of(tree: ast.Module) -> set[str]:
    """Dotted names that a module imports; each may name a module or something in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def measure(checkout: Path) -> Measured:
    """Reads every source file of the package in a checkout."""
    measured = Measured()
    root = checkout / PACKAGE
    for path in sorted(root.rglob("*.py")):
        source = path.read_text()
        tree = ast.parse(source)
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        lines = code_lines(source, tree)
        functions = list(functions_of(tree, name, lines))
        measured.modules[f"{PACKAGE}.{name}"] = Module(
            name, len(lines), functions, imports_of(tree)
        )
    for name, module in measured.modules.items():
        for imported in module.imports:
            for target in (imported, imported.rpartition(".")[0]):
                if target in measured.modules and target != name:
                    measured.importers[target].add(name)
                    break
    return measured


def package_rows(checkouts: list[Measured]) -> Iterator[list[str]]:
    """Code lines and files of each package, and in all."""
    lines, files = (
        [Counter[str]() for _ in checkouts],
        [Counter[str]() for _ in checkouts],
    )
    for number, checkout in enumerate(checkouts):
        for module in checkout.modules.values():
            for package in (module.package, "**all**"):
                lines[number][package] += module.lines
                files[number][package] += 1
    for package in sorted(set().union(*lines), key=lambda p: (p == "**all**", p)):
        yield [
            package,
            *(f"{count[package]:,}" for count in lines),
            *(str(count[package]) for count in files),
        ]


def figure_rows(checkouts: list[Measured]) -> Iterator[list[str]]:
    """Figures about functions and modules."""
    per_checkout = [_figures(checkout) for checkout in checkouts]
    for name in per_checkout[0]:
        yield [name, *(figures[name] for figures in per_checkout)]


def _figures(checkout: Measured) -> dict[str, str]:
    functions, single = checkout.functions, checkout.single_importer
    many = [f for f in functions if f.parameters > MANY_PARAMETERS]
    lengths = [function.lines for function in functions]
    return {
        "functions": f"{len(functions):,}",
        "median function, lines": f"{statistics.median(lengths):g}",
        "longest function, lines": f"{lengths[0]} (`{functions[0].place}`)",
        f"functions with more than {MANY_PARAMETERS} parameters": str(len(many)),
        "- without the declarations of commands": str(
            sum(not function.is_command for function in many)
        ),
        "single-importer modules": str(len(single)),
        f"- below {SMALL_MODULE} code lines": str(
            sum(module.lines < SMALL_MODULE for module in single)
        ),
    }


def table(head: list[str], rows: Iterator[list[str]]) -> str:
    """A Markdown table; every column but the first is aligned right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def print_details(checkout: Measured) -> None:
    """Lists the functions and modules behind the figures."""
    print(f"\nFunctions with more than {MANY_PARAMETERS} parameters:\n")
    for function in checkout.functions:
        if function.parameters > MANY_PARAMETERS and not function.is_command:
            print(f"- `{function.place}`: {function.parameters}")
    print(f"\nSingle-importer modules below {SMALL_MODULE} code lines:\n")
    for module in checkout.single_importer:
        if module.lines < SMALL_MODULE:
            (importer,) = checkout.importers[f"{PACKAGE}.{module.name}"]
            print(f"- `{module.name}`: {module.lines}, imported by `{importer}`")


def main() -> None:
    """Measures the checkouts named on the command line and prints the tables."""
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) not in (1, 2):
        sys.exit("usage: code_size.py CHECKOUT | code_size.py BEFORE AFTER")
    checkouts = [measure(path) for path in paths]
    labels = ["before", "after"] if len(paths) == 2 else ["now"]
    head = ["package", *(f"lines {x}" for x in labels), *(f"files {x}" for x in labels)]
    print(table(head, package_rows(checkouts)), end="\n\n")
    print(table(["figure", *labels], figure_rows(checkouts)))
    print_details(checkouts[-1])


if __name__ == "__main__":
    main()
