"""What a person types to install an extra, from wherever this radiffuse came."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit


def install(extra: str) -> str:
    """The command of pip for an extra: from the folder or the repository of this installation, else from an index.

    Args:
        extra: As in ``pyproject.toml``.
    """
    source, editable = _source()
    if source.startswith("git+"):
        return f'pip install "radiffuse[{extra}] @ {source}"'
    return f'pip install {"-e " * editable}"{source}[{extra}]"'


def _source() -> tuple[str, bool]:
    """A folder, a repository or a name, and whether its files are used in place; by PEP 610."""
    clone = Path(__file__).parents[3]
    if (clone / "pyproject.toml").is_file() and (clone / "src/radiffuse").is_dir():
        return str(clone), True
    try:
        text = metadata.distribution("radiffuse").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        text = None
    origin = json.loads(text or "{}")
    if "vcs_info" in origin:
        return f"git+{origin['url']}", False
    folder = unquote(urlsplit(origin.get("url", "")).path)
    return (
        (folder, False) if "dir_info" in origin and Path(folder).is_dir() else ("radiffuse", False)
    )
