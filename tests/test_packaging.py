"""Wheel and source archive hold all that they need and no more; the wheel works where the sources are not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = (
    "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md",
    "Containerfile", "Makefile", "constraints.txt", ".dockerignore", "src", "tests", "docs", "results", "benchmarks",
)  # fmt: skip
JUNK = shutil.ignore_patterns("__pycache__", "*.egg-info", "api", ".*cache", ".hypothesis")
BUILD = (
    "import sys, setuptools.build_meta as b; o = sys.argv[1]; b.build_wheel(o); b.build_sdist(o)"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and source archive, made from a copy so that nothing is written into the clone."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in TOP:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=JUNK)
        else:
            shutil.copy(path, source / name)
    litter = source / "src" / "radiffuse" / "__pycache__"
    litter.mkdir()
    (litter / "cli.cpython-311.pyc").write_bytes(b"")
    (source / "docs" / "reference" / "api").mkdir()
    (source / "docs" / "reference" / "api" / "made.rst").write_text("generated")
    (source / "patients").mkdir()
    (source / "patients" / "a.dcm").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=source, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def package_files() -> set[str]:
    files = (p for p in (ROOT / "src" / "radiffuse").rglob("*") if p.is_file())
    return {str(p.relative_to(ROOT / "src")) for p in files if "__pycache__" not in p.parts}


def test_the_wheel_is_the_package_to_the_last_file(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {n for n in wheel.namelist() if ".dist-info/" not in n}
        text = next(n for n in wheel.namelist() if n.endswith("METADATA"))
        about = wheel.read(text).decode()
    assert names == package_files()
    for version in ("3.11", "3.12", "3.13"):
        assert f"Classifier: Programming Language :: Python :: {version}" in about
    assert "Requires-Python: >=3.11" in about
    wanted = [x for x in about.splitlines() if x.startswith("Requires-Dist")]
    assert not [x for x in wanted if "torchvision" in x or "timm" in x]
    for extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]:  # fmt: skip
        assert f"Provides-Extra: {extra}" in about


def test_the_source_archive_holds_what_building_and_testing_need_and_no_junk(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert {f"src/{name}" for name in package_files()} <= names
    for name in TOP:
        assert any(n == name or n.startswith(f"{name}/") for n in names), name
    for folder, ending in (("tests", ".py"), ("docs", ".md"), ("results", ".csv")):
        on_disk = {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob(f"*{ending}")}
        assert on_disk <= names
    junk = [n for n in names if "__pycache__" in n or n.endswith((".pyc", ".dcm")) or "/api/" in n]
    assert not junk
    first = {n.partition("/")[0] for n in names if n}
    assert first - set(TOP) <= {"PKG-INFO", "setup.cfg"}


@pytest.mark.slow
def test_the_wheel_works_in_a_fresh_environment(built: Path, tmp_path: Path) -> None:
    """Other packages are borrowed from this environment; radiffuse and its command come from the wheel alone."""
    home = tmp_path / "fresh"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    wheel = next(built.glob("*.whl"))
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    own = next((home / "lib").glob("python*/site-packages"))
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["RADIFFUSE_CACHE"] = str(tmp_path / "cache")

    def radiffuse(*words: str) -> str:
        command = [str(home / "bin" / "radiffuse"), *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "pretrain" in radiffuse("--help")
    radiffuse("anatomy", "bitewing", "--count", "8", "--size", "32,32", "--out", "films")
    assert len(list((tmp_path / "films" / "images").glob("*.png"))) == 8
    radiffuse(
        "pretrain", "films", "--config", "films-64", "--out", "run", "--size", "32,32", "--steps", "2",
        "--batch-size", "2", "--width", "8", "--multipliers", "1,2", "--attention-factors", "2", "--head-channels", "8",
    )  # fmt: skip
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_size > 0
    found = json.loads(radiffuse("doctor", "--json"))
    assert found["ok"] is True
    assert found["torchvision"]["installed"] is None
    assert found["python"]["wanted"] == ">=3.11"  # by the wheel's own metadata
    assert {p["name"] for p in found["packages"]} >= {"torch", "monai", "nibabel"}
    where = (
        "import radiffuse, sys; print(radiffuse.__file__); assert 'torchvision' not in sys.modules"
    )
    shown = subprocess.run(
        [str(python), "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    assert str(own) in shown


def test_the_container_copies_only_what_is_let_in() -> None:
    let_in = {x[1:] for x in (ROOT / ".dockerignore").read_text().splitlines() if x.startswith("!")}
    copied: set[str] = set()
    for line in (ROOT / "Containerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_what_python_has_compiled_is_kept_whatever_the_shell_asks() -> None:
    """Else every process that a test starts compiles all that it imports, which takes longer than most tests."""
    asked = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    line = "probe: ; @printenv PYTHONDONTWRITEBYTECODE || echo kept"
    said = subprocess.run(
        ["make", "-s", f"--eval={line}", "probe"], cwd=ROOT, env=asked, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert said.stdout == "kept\n"
