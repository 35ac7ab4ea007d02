"""An import goes down the floors, never up and never sideways between methods."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "radiffuse"
FLOORS = [
    {"errors", "config"},
    {"distributed"},
    {"files", "commands", "settings", "ranges", "requirements"},
    {"core"},
    {"nets", "data"},
    {"engine", "evaluation"},
    {"inference", "reports"},
    {"release"},
    {"methods"},
    {"study_sources"},
    {"study_runs"},
    {"studies", "augmenting", "acts", "dry_run", "diagnosing", "comparing", "completing", "nnunet"},
    {"viewer"},
    {"cli", "demo", "__main__", "__init__"},
]
LATE = {("commands", "settings"), ("methods", "settings")}
"""``settings`` is light; ``commands`` hands over to it when a command is called."""
TASKS = {
    ("pretrain", "denoising"),
    ("pretrain", "restorative"),
    ("pretrain", "contrastive"),
    ("finetune", "segmentation"),
    ("diffseg", "segmentation"),
    ("diffseg", "mask_diffusion"),
    ("mask_diffusion", "segmentation"),
    ("probe", "segmentation"),
    ("synthesize", "dino"),
    ("synthesize", "autoencoding"),
    ("synthesize", "latent_denoising"),
    ("generate", "drawing"),
    ("fidelity", "judging"),
    ("memorization", "judging"),
    ("classify", "classification"),
}
"""What an act trains, draws or judges by, where that fills a file of its own."""


def floor_of(module: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if module in names)


def imports(path: Path) -> list[tuple[str, ...]]:
    """Modules of radiffuse that a file imports, as parts below the package."""
    package = ("radiffuse", *path.relative_to(SOURCE).parts[:-1])
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            if module[:1] == ("radiffuse",):
                rest = module[1:]
                found += [rest or (alias.name,) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            found += [tuple(name[1:]) for name in names if name[0] == "radiffuse" and name[1:]]
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    relative = path.relative_to(SOURCE)
    own = relative.parts[0].removesuffix(".py")
    for target in imports(path):
        if target[0] == "__version__" or target[0] == own:
            continue
        if own == "__init__" or (own, target[0]) in LATE:
            continue
        assert floor_of(target[0]) <= floor_of(own), f"{relative} imports {'.'.join(target)}"
        same = floor_of(target[0]) == floor_of(own) and {own, target[0]} <= {"nets", "data"}
        assert not same, f"{relative} imports sideways from {target[0]}"


@pytest.mark.parametrize("path", sorted((SOURCE / "methods").glob("*.py")), ids=lambda p: p.stem)
def test_methods_do_not_import_each_other(path: Path) -> None:
    for target in imports(path):
        if target[0] == "methods" and len(target) > 1 and target[1] != "common":
            assert (path.stem, target[1]) in TASKS, f"{path.stem} imports {target[1]}"


def test_the_rule_sees_an_upward_import(tmp_path: Path) -> None:
    assert floor_of("core") < floor_of("methods")
    assert ("core", "diffusion") in imports(SOURCE / "methods" / "denoising.py")


def test_nothing_needs_torchvision_and_settings_are_light() -> None:
    heavy = {"torch", "numpy", "pandas", "monai"}
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {
            (node.module or "").split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and not node.level
        }
        assert not names & {"torchvision", "timm"}, path
        if path.stem in ("config", "commands", "settings", "cli", "errors", "files"):
            assert not names & heavy, path


def test_every_command_is_a_function_even_after_its_module_was_imported() -> None:
    import importlib

    import radiffuse
    from radiffuse.commands import COMMANDS

    for name, command in COMMANDS.items():
        importlib.import_module(command.target.partition(":")[0])
        assert callable(getattr(radiffuse, name)), name
        assert not (SOURCE / name).exists(), f"the package {name} would hide the function"
        assert not (SOURCE / f"{name}.py").exists(), f"the module {name} would hide the function"
