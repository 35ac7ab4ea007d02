"""An import goes down the floors of the house, never up, and never sideways where the rule forbids it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from house import APART, FLOORS

SOURCE = Path(__file__).parents[1] / "src" / "radiffuse"
PEERS = {("system", "config"), ("config", "system")}
COMPOSED = {
    ("study", "pretrain"),
    ("study", "fit"),
    ("study", "generate"),
    ("augment", "classify"),
    ("augment", "generate"),
    ("_result", "info"),
    *(("_dry_run", name) for name in ("classify", "evaluate", "export", "generate")),
    *(("_dry_run", name) for name in ("judge", "predict", "select", "zeroshot")),
}
"""Commands that run other commands, and hand them to the study that calls them; the dry run does what they do first."""
TABLES = ("__init__", "registry", "starts", "trial")
LIGHT = ("cli", "commands/__init__", "config", "errors", "system", "__init__", "__main__")
"""What is imported before a command runs: it takes neither torch nor numpy on import."""
HEAVY = {"torch", "numpy", "pandas", "monai", "scipy", "matplotlib", "lightning_fabric"}
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix()


def imports(path: Path, *, late: bool = True) -> list[tuple[str, ...]]:
    """What a file imports, as parts; those of radiffuse begin with ``radiffuse``.

    With ``late`` also what functions import when they run; what is for type checkers alone is left out.
    """
    package = ("radiffuse", *path.relative_to(SOURCE).parts[:-1])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: list[ast.AST] = list(tree.body)
    found: list[tuple[str, ...]] = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            found += [(*module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [tuple(alias.name.split(".")) for alias in node.names]
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += ast.iter_child_nodes(node)
    return found


def rooms(path: Path) -> set[str]:
    """Rooms of radiffuse that a file imports from, its own left out."""
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    found = {parts[1] for parts in imports(path) if parts[0] == "radiffuse" and len(parts) > 1}
    return {room for room in found if (SOURCE / room).is_dir()} - {own}


def floor_of(room: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if room in floor)


def allowed(own: str, room: str) -> bool:
    """Whether files of one room may import another room."""
    if own in ("__init__", "__main__") or (own, room) in PEERS:
        return True
    if room in APART:
        return own in ("cli", "commands")
    if own in APART:
        return floor_of(room) > floor_of("commands")
    return floor_of(room) > floor_of(own)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for room in rooms(path):
        assert allowed(own, room), f"{name_of(path)} imports {room}"


@pytest.mark.parametrize("room", ["commands", "objectives"])
def test_neighbors_do_not_import_each_other(room: str) -> None:
    """But for what they share in a private module (leading underscore), and for tables of them and what reads these."""
    for path in sorted((SOURCE / room).glob("*.py")):
        for parts in imports(path):
            if parts[:2] == ("radiffuse", room) and len(parts) > 2 and path.stem not in TABLES:
                other = parts[2]
                if not other.startswith("_") and (SOURCE / room / f"{other}.py").is_file():
                    assert (path.stem, other) in COMPOSED, f"{room}/{path.stem} imports {other}"


def test_the_rule_sees_what_it_forbids() -> None:
    assert not allowed("core", "objectives")
    assert not allowed("nets", "data")
    assert not allowed("objectives", "reports")
    assert allowed("commands", "reports")
    assert "core" in rooms(SOURCE / "objectives" / "denoising.py")
    for room in (*(room for floor in FLOORS for room in floor), *APART):
        assert (SOURCE / room).is_dir(), room


def test_no_file_imports_in_a_circle() -> None:
    """Modules import each other without a circle, also through imports inside functions."""
    edges: dict[str, set[str]] = {}
    for path in FILES:
        parts_of = [p for p in imports(path) if p[0] == "radiffuse"]
        edges[name_of(path)] = {target for p in parts_of if (target := _module(p[1:]))}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for target in sorted(edges[module] - {module}):
                visit(target, (*trail, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def _module(parts: tuple[str, ...]) -> str | None:
    for end in range(len(parts), 0, -1):
        stem = "/".join(parts[:end])
        for name in (stem, f"{stem}/__init__"):
            if (SOURCE / f"{name}.py").is_file():
                return name
    return None


def test_nothing_needs_torchvision() -> None:
    for path in FILES:
        assert not {parts[0] for parts in imports(path)} & {"torchvision", "timm"}, path


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_help_needs_is_light(path: Path) -> None:
    name = name_of(path)
    if any(name == light or name.startswith(f"{light}/") for light in LIGHT):
        heavy = {parts[0] for parts in imports(path, late=False)} & HEAVY
        assert not heavy, f"{name} imports {', '.join(heavy)}"


def test_the_package_has_few_entries() -> None:
    plain = {"__init__.py", "__main__.py", "__init__.pyi", "errors.py", "py.typed", "__pycache__"}
    assert len({path.name for path in SOURCE.iterdir()} - plain) <= 18


def test_every_command_is_a_file_and_a_function() -> None:
    import importlib

    import radiffuse
    from radiffuse.commands import COMMANDS

    for name in COMMANDS:
        module = importlib.import_module(f"radiffuse.commands.{name}")
        assert callable(getattr(module, name)), name
        assert callable(getattr(radiffuse, name)), name
        assert not (SOURCE / name).exists(), f"the package {name} would hide the function"
        assert not (SOURCE / f"{name}.py").exists(), f"the module {name} would hide the function"
