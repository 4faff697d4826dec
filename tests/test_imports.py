"""The layers of the package: imports point down, and each layer knows only what it may."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import punchtunnel

PACKAGE = Path(punchtunnel.__file__).parent

# Lowest first: a module imports only from the rows above its own.
LAYERS = [
    {"words.events", "words.usage", "words.protocol", "words.display"},
    {"words", "words.show"},
    {"words.doctor"},
    {"errors"},
    {"address", "clock", "hello", "schedule", "secure", "frames", "state"},
    {"election", "secret", "mux", "parting", "status", "resolve", "signals", "tcp", "notify", "interfaces", "guard"},
    {"hole", "pacing", "pipes", "plan", "poller", "tries"},
    {"display", "ends", "show"},
    {"delivery", "incoming", "outgoing", "streams", "target"},
    {"supply"},
    {"dialling", "link"},
    {"puncher"},
    {"punch"},
    {"bridge"},
    {"tunnel"},
    {"__init__"},
    {"doctor.firewall", "doctor.sntp", "doctor.stun"},
    {"doctor.rulesets", "doctor.facts"},
    {"doctor.findings", "doctor.survey"},
    {"doctor.asking"},
    {"doctor"},
    {"options"},
    {"cli"},
    {"__main__"},
]
LAYER = {module: number for number, modules in enumerate(LAYERS) for module in sorted(modules)}

PURE = ["errors", "address", "hello", "schedule", "secure", "election", "tries", "frames", "mux", "parting"]
PURE += [
    "pacing",
    "state",
    "plan",
    "words",
    "words.display",
    "words.show",
    "words.protocol",
    "words.events",
    "words.usage",
]
PURE += ["words.doctor", *(f"doctor.{name}" for name in ("firewall", "rulesets", "sntp", "stun", "facts", "findings"))]
EDGES_OF_THE_SYSTEM = {
    *("asyncio", "fcntl", "multiprocessing", "os", "random", "secrets", "select", "selectors", "signal"),
    *("socket", "ssl", "subprocess", "sys", "threading", "time", "uuid", "uvloop"),
}
# What crosses from the synchronous half to the loop is a plain value.
PUNCH_SIDE = {"hole", "punch", "puncher", "dialling", "resolve", "schedule"}
LOOP_SIDE = {
    *("bridge", "delivery", "link", "ends", "guard", "incoming", "outgoing", "pipes", "poller", "streams"),
    *("supply", "target"),
}


def name_of(path: Path) -> str:
    """Return the name by which LAYERS knows a file: words/__init__.py is `words`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


PATHS = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def tree(module: str) -> ast.Module:
    return ast.parse(PATHS[module].read_text())


# Imported when a link is being made, and not before: inside functions only.
LATE = {"secure": {"spake2", "cryptography"}, "display": {"rich"}}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Walk everything but what is there for type checkers only."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            yield from at_run_time(child)


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of every import at run time; the name is "" for a whole module."""
    for node in at_run_time(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            yield from ((str(node.module), alias.name) for alias in node.names)


def own_imports(module: str) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of the imports from this package."""
    for source, name in imports(module):
        if source == "punchtunnel":
            yield (name, "") if name in LAYER else ("__init__", name)
        elif source.startswith("punchtunnel."):
            package = source.removeprefix("punchtunnel.")
            yield (f"{package}.{name}", "") if f"{package}.{name}" in LAYER else (package, name)


def top_level(module: str) -> set[str]:
    return {source.partition(".")[0] for source, _ in imports(module)}


def test_every_module_has_its_layer() -> None:
    assert set(PATHS) == set(LAYER)


@pytest.mark.parametrize("module", LAYER)
def test_imports_point_down_only(module: str) -> None:
    for source, name in own_imports(module):
        assert LAYER[source] < LAYER[module], f"{module} imports {name or source} from {source}"


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_knows_no_socket_clock_loop_or_thread(module: str) -> None:
    allowed = {"random"} if module == "schedule" else set()
    assert top_level(module) & EDGES_OF_THE_SYSTEM <= allowed
    assert {source for source, _ in own_imports(module)} <= set(PURE)


def test_the_schedule_takes_randomness_only_as_an_argument() -> None:
    used = {
        node.attr
        for node in ast.walk(tree("schedule"))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random"
    }
    assert used <= {"Random"}
    created = [
        node for node in ast.walk(tree("schedule")) if isinstance(node, ast.Call) and "random" in ast.dump(node.func)
    ]
    assert not created


@pytest.mark.parametrize("module", ["hole", "punch", "puncher", "dialling", "resolve"])
def test_the_synchronous_half_knows_no_event_loop(module: str) -> None:
    assert not top_level(module) & {"asyncio", "uvloop"}
    assert not {source for source, _ in own_imports(module)} & LOOP_SIDE


@pytest.mark.parametrize("module", sorted(LOOP_SIDE))
def test_the_loop_half_knows_no_selectors(module: str) -> None:
    assert "selectors" not in top_level(module)


def test_the_loop_half_takes_only_the_hole_from_the_synchronous_one() -> None:
    taken = {(source, name) for module in LOOP_SIDE for source, name in own_imports(module) if source in PUNCH_SIDE}
    assert taken == {("hole", "Hole")}


@pytest.mark.parametrize("module", LAYER)
def test_the_package_needs_nothing_else_beside_python(module: str) -> None:
    foreign = top_level(module) - sys.stdlib_module_names - {"punchtunnel"}
    allowed = {"cli": {"typer"}, "bridge": {"uvloop"}, "display": {"rich"}}
    assert foreign <= allowed.get(module, set()) | LATE.get(module, set())


@pytest.mark.parametrize("module", LAYER)
def test_what_few_runs_need_is_imported_inside_functions_only(module: str) -> None:
    """The ciphers take 60 ms, which no run without an open connection pays; rich 20 ms, for terminals."""
    early = {name.partition(".")[0] for node in at_import(tree(module)) for name in imported(node)}
    assert not early & {"spake2", "cryptography", "rich"}


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs when a module is imported."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child) and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from at_import(child)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [str(node.module)] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        (
            "punchtunnel.cli",
            [
                *("asyncio", "uvloop", "rich", "cryptography", "spake2", "ssl"),
                *("punchtunnel.display", "punchtunnel.interfaces"),
            ],
        ),
        ("punchtunnel", ["asyncio", "uvloop", "rich", "cryptography", "spake2", "ssl", "typer"]),
    ],
)
def test_the_first_syn_waits_for_no_slow_import(module: str, unwanted: list[str]) -> None:
    program = f"import sys, {module}; print(*sorted({set(unwanted)!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert done.stdout == "\n"
