"""Components of transformers and diffusers by local folder or public name; only JSON and safetensors are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..system.files import read_json, write_json


def hush() -> None:
    """Keep progress bars, and advice about packages that are not needed, off the screen."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def forget_paths(folder: Path) -> None:
    """Take the path that a component was loaded from out of the JSON files that libraries wrote below a folder.

    It says where things lie on this machine, and equal models would differ by it.
    """
    for path in sorted(folder.rglob("*.json")):
        values = read_json(path)
        if isinstance(values, dict) and "_name_or_path" in values:
            write_json(path, {k: v for k, v in values.items() if k != "_name_or_path"})


def component_folder(
    name: str, files: Sequence[str], *, setting: str, default: str, extra: Sequence[str] = ()
) -> Path:
    """The folder of a component, fetched first if a public name was given.

    Args:
        name: A folder, or a name such as ``facebook/dinov2-base`` on the Hugging Face hub.
        files: What must lie in it, relative to it.
        setting: The flag that named it, for messages.
        default: What happens without the flag, for messages.
        extra: What is fetched as well where it exists.

    Raises:
        InputError: The folder lacks a file; or there is no such folder and nothing can be fetched. Says what is
            expected and that training one's own is the default.
    """
    path = Path(name).expanduser()
    expected = f"Expected is a folder with {' and '.join(files)}; or leave {setting} out: {default}"
    if path.exists():
        for file in files:
            if not (path / file).is_file():
                raise InputError(path / file, "is missing", expected)
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"{setting} {name}", "does not exist", expected)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(name, allow_patterns=[*files, *extra]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError):
        raise InputError(
            f"{setting} {name}", "is no folder here and cannot be fetched by that name", expected
        ) from None
    for file in files:
        if not (found / file).is_file():
            raise InputError(f"{setting} {name}", f"has no {file}", expected)
    return found
