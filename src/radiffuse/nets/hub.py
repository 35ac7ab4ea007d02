"""Components of transformers and diffusers by local folder or public name; only JSON and safetensors are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.finite import not_finite
from ..errors import InputError, first_line
from ..system.files import read_json, write_json

OWN = "radiffuse then trains its own on the images"
"""What happens if no component is named."""
WEIGHTS = "diffusion_pytorch_model.safetensors"


def hush() -> None:
    """Silence progress bars and advice about optional packages."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def forget_paths(folder: Path) -> None:
    """Remove the path that a component was loaded from, as libraries write it, from the JSON files below a folder.

    It names folders of this machine, and equal models would differ by it.
    """
    for path in sorted(folder.rglob("*.json")):
        values = read_json(path)
        if isinstance(values, dict) and "_name_or_path" in values:
            write_json(path, {k: v for k, v in values.items() if k != "_name_or_path"})


def component_folder(
    name: str, files: Sequence[str], setting: str, otherwise: str, optional: Sequence[str] = ()
) -> Path:
    """The folder of a component, downloaded first if a public name was given.

    Args:
        name: A folder, or a name such as ``facebook/dinov2-base`` on the Hugging Face hub.
        files: What must lie in it, relative to it.
        setting: The flag that named it, for messages.
        otherwise: What else can be done, for messages.
        optional: What is downloaded as well if it exists.

    Raises:
        InputError: The folder lacks a file; or there is no such folder and nothing can be downloaded.
    """
    path = Path(name).expanduser()
    expected = f"Expected is a folder with {' and '.join(files)}; or {otherwise}"
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
        fetched = Path(snapshot_download(name, allow_patterns=[*files, *optional]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError):
        problem = "is no folder here and cannot be fetched by that name"
        remedy = f"Where the hub can be reached, hf download {name} --local-dir FOLDER; give FOLDER"
        raise InputError(f"{setting} {name}", problem, f"{remedy}. {expected}") from None
    for file in files:
        if not (fetched / file).is_file():
            raise InputError(f"{setting} {name}", f"has no {file}", expected)
    return fetched


def verified(model: Any, folder: Path) -> Any:
    """The model, whose weights must be finite.

    Raises:
        InputError: One is NaN or infinite.
    """
    if name := not_finite(model.state_dict()):
        problem = f"holds weights that are not finite ({name})"
        raise InputError(folder, problem, "Restore the folder, or train again")
    return model


def load_diffusers(kind: str, name: str, parts: tuple[str, ...], setting: str, default: str) -> Any:
    """A model of diffusers by folder or public name, in float32 on the CPU.

    Args:
        kind: Its class, such as ``AutoencoderKL``.
        name: Folder or public name.
        parts: Folders below the named one that may hold it ('' is itself); the first that does is taken.
        setting: The flag that named it, for messages.
        default: What happens without the flag, for messages.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    root = Path(name).expanduser()
    if root.is_dir():
        parts = tuple(p for p in parts if (root / p / WEIGHTS).is_file())[:1] or parts[:1]
    for part in parts:
        files = [str(Path(part) / file) for file in ("config.json", WEIGHTS)]
        try:
            otherwise = f"leave {setting} out: {default}"
            folder = component_folder(name, files, setting, otherwise) / part
            break
        except InputError:
            if part == parts[-1]:
                raise
    try:
        return read_diffusers(kind, folder)
    except InputError:
        raise
    except Exception as error:  # diffusers raises many types, all about the folder
        raise InputError(
            folder, f"holds no {kind} that can be read ({first_line(error)})", "Restore the folder"
        ) from None


def read_diffusers(kind: str, folder: Path) -> Any:
    """A model of diffusers from a folder on this machine, in float32 on the CPU.

    Raises:
        InputError: A weight is NaN or infinite.
        Exception: Of many types, where the folder cannot be read or lacks a weight.
    """
    import diffusers

    hush()
    model, found = getattr(diffusers, kind).from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        low_cpu_mem_usage=False,
        output_loading_info=True,
    )
    if missing := found["missing_keys"]:  # they would be whatever lay in memory
        raise ValueError(f"{WEIGHTS} lacks {min(missing)}")
    return verified(model.float(), folder)


def most_groups(channels: Sequence[int]) -> int:
    """Groups of a normalization: the largest number up to 32 that divides the channels of every level."""
    return next(n for n in range(32, 0, -1) if all(c % n == 0 for c in channels))
