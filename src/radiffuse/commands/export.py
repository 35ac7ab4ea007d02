"""``radiffuse export``: a run in the form that another program reads."""

from __future__ import annotations

from pathlib import Path

from ..config import Export
from ..errors import InputError
from ..release.card import Licences, card
from ..release.pretrained import publication, push_to_hub, verify_push
from ..release.program import Write, left_out
from ..system.files import refuse_foreign, remove_partials, write_atomic
from ..system.saying import say
from ..train.run import Run, find_run

MARKS = (
    "config.yaml",
    "export.json",
    "plan.json",
    "plans.json",
    "model",
    "models",
    "configs",
    "scripts",
)
"""What an export of any format, or the start of one, holds."""
PROGRAMS = ("onnx", "torch-export", "monai-bundle")
"""Formats that hold the network as a program."""


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
    run, write = open_exported(settings)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    remove_partials(out)
    write(out)
    if settings.format in PROGRAMS:
        for what in left_out(run, steps=settings.format != "monai-bundle"):
            say(f"masks differ from those of predict, since {settings.format} leaves out {what}")
    if settings.push:
        print(push_to_hub(run, settings.push, _licences(settings)))
    return out


def open_exported(settings: Export) -> tuple[Run, Write]:
    """Open the run and bring it into its new form; nothing is written.

    Returns:
        The run, and what writes the form.

    Raises:
        RunError, InputError: As ``export``.
    """
    run, out = find_run(settings.run), Path(settings.out)
    if out.is_file() or out.resolve() == run.folder.resolve():
        raise InputError(out, "is a file or the run itself", "Choose another --out")
    refuse_foreign(out, *MARKS)
    licences, name = _licences(settings), out.resolve().name
    if settings.push:
        verify_push(settings.push, licences)
    if settings.format == "pretrained":
        return run, publication(run, licences, name)
    form, usage = _form(settings, run)
    text = card(run, licences, name) + usage

    def write(out: Path) -> None:
        form(out)
        write_atomic(out / "README.md", text)

    return run, write


def _licences(settings: Export) -> Licences:
    return Licences(settings.licence, settings.data_licence)


def _form(settings: Export, run: Run) -> tuple[Write, str]:
    """What writes a form other than the published one, and how to use it, for its card."""
    from ..release import bundle, nnunet_encoder, program

    if settings.format == "onnx":
        return program.onnx_program(run, settings.head), program.usage(run)
    if settings.format == "torch-export":
        return program.torch_program(run, settings.head), program.usage(run)
    if settings.format == "monai-bundle":
        return bundle.bundle(run, settings.head), bundle.usage(run)
    return nnunet_encoder.nnunet_encoder(run), nnunet_encoder.usage(run.plan)
