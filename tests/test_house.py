"""The rules of the house: which folder may know which, and what each may ask of the system."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import punchtunnel

PACKAGE = Path(punchtunnel.__file__).parent

# A room is a folder, or a module at the top.  Lowest first: what each may import besides itself.
GROUND = {"errors", "words", "address"}
ROOMS = {
    "errors": set[str](),
    "words": {"errors"},
    "address": {"errors", "words"},
    "protocol": {"errors", "words"},
    "system": GROUND,
    "reporting": GROUND | {"system"},
    "punching": GROUND | {"protocol", "system", "reporting"},
    "reach": GROUND | {"protocol", "system", "reporting", "punching"},
    "ends": GROUND | {"system"},
    "link": GROUND | {"protocol", "system", "ends"},
    "session": GROUND | {"protocol", "system", "reporting", "punching", "reach", "ends", "link"},
    "library": GROUND | {"protocol", "system", "reporting", "punching", "reach", "ends", "session"},
    "__init__": {"errors", "punching", "library"},
    "doctor": GROUND | {"protocol", "system", "punching", "reach"},
    "cli": GROUND
    | {"__init__", "protocol", "system", "reporting", "punching", "reach", "ends", "session", "library", "doctor"},
    "__main__": {"cli"},
}

LOOP = {"asyncio", "uvloop"}
WAITING = {"select", "selectors"}
EDGES = LOOP | WAITING | {"fcntl", "multiprocessing", "os", "random", "secrets", "signal", "socket", "ssl"}
EDGES |= {"subprocess", "sys", "threading", "time", "uuid"}
# What a room must not import from outside, at run time or for its annotations.
FORBIDDEN = {
    "errors": EDGES,
    "words": EDGES,
    "address": EDGES,
    "protocol": EDGES,
    "punching": LOOP,
    "reach": LOOP,
    "link": {"selectors"},
    "ends": {"selectors"},
    "session": {"selectors"},
}
FOREIGN = {
    "cli": {"typer", "segno"},
    "session": {"uvloop"},
    "protocol": {"spake2", "cryptography"},
    "reporting": {"rich"},
    "reach": {"miniupnpc"},
}
# Imported when a link is being made, a line drawn or a router asked, and not before: inside functions only.
LATE = {"spake2", "cryptography", "rich", "miniupnpc", "segno"}


def name_of(path: Path) -> str:
    """Return a file's dotted name below the package; words/__init__.py is `words`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


TREES = {name_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports(node: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything that is imported below a node, for type checkers too."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, "imports are absolute"
            yield from (f"{part.module}.{alias.name}" for alias in part.names)


def own_imports(module: str) -> set[str]:
    """Return the modules of this package that a module imports."""
    found = set[str]()
    for name in imports(TREES[module]):
        if name.partition(".")[0] == "punchtunnel":
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in TREES:
                parts.pop()
            found.add(".".join(parts) or "__init__")
    return found


def outside(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(TREES[module])} - {"punchtunnel"}


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in TREES} == set(ROOMS)


def modules_of(room: str) -> list[str]:
    return [module for module in TREES if room_of(module) == room]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_what_it_may(room: str) -> None:
    known = {(module, room_of(other)) for module in modules_of(room) for other in own_imports(module)}
    assert {(module, other) for module, other in known if other not in {room, *ROOMS[room]}} == set()


def test_no_import_goes_in_a_circle() -> None:
    """Annotations included."""
    graphlib.TopologicalSorter({module: own_imports(module) - {module} for module in TREES}).prepare()


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_asks_the_system_only_what_it_may(room: str) -> None:
    assert {(module, name) for module in modules_of(room) for name in outside(module) & FORBIDDEN[room]} == set()


@pytest.mark.parametrize("room", ROOMS)
def test_the_package_needs_nothing_else_beside_python(room: str) -> None:
    foreign = {name for module in modules_of(room) for name in outside(module)} - sys.stdlib_module_names
    assert foreign == FOREIGN.get(room, set())


def test_what_few_runs_need_is_imported_inside_functions_only() -> None:
    """The ciphers take 60 ms, which no run without an open connection pays; rich 20 ms, for terminals."""
    early = {
        (module, name.partition(".")[0])
        for module, tree in TREES.items()
        for node in at_import(tree)
        for name in imported(node)
    }
    assert {(module, name) for module, name in early if name in LATE} == set()


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs when a module is imported."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child) and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from at_import(child)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [str(node.module)] if isinstance(node, ast.ImportFrom) else []


def test_a_strategy_is_pure() -> None:
    """What it has of sockets and randomness are types: it takes randomness as an argument and makes none."""
    early = {name for node in at_import(TREES["punching.strategy"]) for name in imported(node)}
    assert not early & EDGES


@pytest.mark.parametrize("module", ["link.flight", "link.pacing", "link.tempo"])
def test_what_decides_how_fast_to_send_is_pure(module: str) -> None:
    assert outside(module) & EDGES == set()


def test_the_top_is_a_short_list() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 10


def test_a_file_is_read_in_one_sitting_and_a_function_at_one_look() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}
    functions = {
        f"{module}.{node.name}": 1 + (node.end_lineno or 0) - node.lineno
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in functions.items() if lines > 60} == {}


SLOW = ["asyncio", "uvloop", "rich", "cryptography", "spake2", "ssl"]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("punchtunnel.cli.run", [*SLOW, "punchtunnel.reporting.display", "punchtunnel.system.proc"]),
        ("punchtunnel.cli.command", [*SLOW, "punchtunnel.punching", "punchtunnel.session"]),
        ("punchtunnel", [*SLOW, "typer", "typing", "enum"]),
    ],
)
def test_the_first_syn_waits_for_no_slow_import(module: str, unwanted: list[str]) -> None:
    program = f"import sys, {module}; print(*sorted({set(unwanted)!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert done.stdout == "\n"
