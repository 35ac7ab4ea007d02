"""Published folders: a run without its log, its state and the names of its cases, with a model card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, RunError
from ..nets.registry import load_network, save_network
from ..system.files import read_json, seal, write_atomic, write_json
from ..train.members import MEMBERS, members_of
from ..train.mirrors import PATHS
from ..train.run import Run
from .card import Licences, card
from .program import Write

FILES = (
    "README.md", "config.yaml", "plan.json", "data.json", "model/config.json",
    "model/model.safetensors", "model/SHA256SUMS", f"{MEMBERS}/*",
)  # fmt: skip
"""What a published folder holds. It is a run: every command takes it, also as ``--from``."""
KEPT_OF_DATA = (
    "cases", "patients", "classes", "licence", "layout",
    "with", "with_cases", "unlabelled", "unlabelled_cases",
)  # fmt: skip
"""What stays of the description of the data, for the cards of runs that start here; names of cases and files do not."""


def save_pretrained(
    run: Run,
    out: Path,
    licences: Licences = Licences(),  # noqa: B008 (frozen)
    name: str | None = None,
) -> Path:
    """Write a published folder.

    Args:
        run: A finished run that trained a network of this package.
        out: The folder; files of the same names in it are replaced.
        licences: What the card says.
        name: Of the model; None: of the folder.

    Returns:
        ``out``.

    Raises:
        RunError: The run has not finished, or is damaged.
        InputError: ``out`` is the run itself, or cannot be written.
    """
    if out.resolve() == run.folder.resolve():
        raise InputError(out, "is the run itself", "Choose another folder")
    publication(run, licences, name or out.resolve().name)(out)
    return out


def publication(run: Run, licences: Licences, name: str) -> Write:
    """What writes a published folder, see ``save_pretrained``; everything of the run is read.

    Raises:
        RunError: The run has not finished, or is damaged.
    """
    if not run.finished:
        raise RunError(run.folder, "has not finished training, or is no network", "Finish it first")
    text, parts = card(run, licences, name), members_of(run)
    alone = parts[0] is run
    network = load_network(run.model) if alone else None
    kind = None if alone else read_json(run.model / "config.json")
    members = {
        part.folder.name: publication(part, licences, part.folder.name)
        for part in (() if alone else parts)
    }
    data = run.data
    kept: dict[str, Any] = {"root": Path(str(data.get("root") or "data")).name}
    kept |= {key: data[key] for key in KEPT_OF_DATA if key in data}
    if licences.data:
        kept["licence"] = licences.data
    plan = run.plan.to_json()
    described = yaml.safe_dump(_without_folders(run.config), sort_keys=False, allow_unicode=True)

    def write(out: Path) -> None:
        write_atomic(out / "plan.json", plan)
        write_json(out / "data.json", kept)
        write_atomic(out / "config.yaml", described)
        write_atomic(out / "README.md", text)
        for name, write_part in members.items():
            write_part(out / MEMBERS / name)
        # The model last: it marks the folder as complete.
        if network is not None:
            save_network(network, out / "model")
        else:
            seal(out / "model", "config.json", kind)

    return write


def fetch(name: str, revision: str | None = None) -> Path:
    """A published folder by path, or by its name on the Hugging Face hub, ``OWNER/NAME``.

    ``revision`` is a branch, tag or commit on the hub; None: the newest.

    Raises:
        InputError: It is neither, or cannot be fetched.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise InputError(name, "does not exist", "Give a folder, or OWNER/NAME on the hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # network, access, spelling: the hub's client raises many kinds
        problem = f"is no folder here and cannot be fetched by that name ({type(error).__name__})"
        raise InputError(name, problem, "Check the name, the network and your access") from None


def push_to_hub(run: Run, repository: str, licences: Licences, *, private: bool = True) -> str:
    """Publish a run on the Hugging Face hub, under the account that ``hf auth login`` knows.

    Args:
        run: A finished run.
        repository: ``OWNER/NAME``; made if it is not there.
        licences: What the card says; that of the weights must be stated.
        private: Whether a new repository is private.

    Returns:
        Address of the commit.

    Raises:
        InputError: No licence is stated, or the hub refuses.
    """
    verify_push(repository, licences)
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        out = save_pretrained(run, Path(folder) / "model", licences, repository.split("/")[1])
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=str(out),
                commit_message="Model of radiffuse",
                allow_patterns=list(FILES),
            )
        except Exception as error:  # network, access, quota: the hub's client raises many kinds
            problem = f"could not be uploaded ({type(error).__name__})"
            raise InputError(repository, problem, "Check hf auth login and the network") from None
    return str(getattr(commit, "commit_url", commit))


def verify_push(repository: str, licences: Licences) -> None:
    """Refuse to publish without a licence, or under a name that no repository has."""
    if not licences.weights:
        problem = "would publish weights without a licence"
        raise InputError(repository, problem, "State one, such as licence='apache-2.0'")
    if repository.count("/") != 1:
        raise InputError(repository, "is no name of a repository", "Give OWNER/NAME")


def _without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the last part of every path alone: folders above it may hold names."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            result[key] = _without_folders(value)
        elif value and key in PATHS:
            paths = [Path(str(one)).name for one in (value if isinstance(value, list) else [value])]
            result[key] = paths if isinstance(value, list) else paths[0]
        else:
            result[key] = value
    return result
