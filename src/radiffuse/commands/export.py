"""``radiffuse export``: a run in the form that another program reads."""

from __future__ import annotations

from pathlib import Path

from ..config import Export
from ..errors import InputError
from ..release.card import Licences, card
from ..release.pretrained import push_to_hub, save_pretrained
from ..system.files import write_atomic
from ..train.run import find_run


def export(settings: Export) -> Path:
    """Write a run in another form, with its plan and its model card.

    Args:
        settings: See ``radiffuse.config.Export``.

    Returns:
        The folder.

    Raises:
        RunError: The run has not finished, or is of another kind.
        InputError: The form needs what is not installed, or cannot hold this run; or the result does not agree with
            the run.
    """
    run, out = find_run(settings.run), Path(settings.out)
    licences = Licences(settings.licence, settings.data_licence)
    if out.is_file() or out.resolve() == run.folder.resolve():
        raise InputError(out, "is a file or the run itself", "Choose another --out")
    if settings.push and settings.format != "pretrained":
        problem = f"is for the format pretrained, not {settings.format}"
        raise InputError("--push", problem, "Leave it out, or upload the folder yourself")
    if settings.format == "pretrained":
        save_pretrained(run, out, licences)
        if settings.push:
            print(push_to_hub(run, settings.push, licences))
        return out
    out.mkdir(parents=True, exist_ok=True)
    text = card(run, licences, out.resolve().name)
    if settings.format == "onnx":
        from ..release.program import export_onnx

        export_onnx(run, out, settings.head)
    elif settings.format == "torch-export":
        from ..release.program import export_torch

        export_torch(run, out, settings.head)
    elif settings.format == "monai-bundle":
        from ..release.bundle import export_bundle, usage

        text += usage(run.plan)
        export_bundle(run, out, settings.head)
    else:
        from ..release.nnunet_encoder import export_nnunet
        from ..release.nnunet_encoder import usage as use_with_nnunet

        text += use_with_nnunet(run.plan)
        export_nnunet(run, out)
    write_atomic(out / "README.md", text)
    return out
