"""A segmenter as a program without this package: torch.export and ONNX, held against the original when it is made."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..config.given import refuse
from ..data.plan import Plan
from ..data.scan import times
from ..data.steps import steps_in_words
from ..errors import InputError, RunError
from ..inference.members import at_size, is_seen_as
from ..nets.joint_denoiser import JointDenoiser
from ..nets.mask_denoiser import MaskDenoiser
from ..nets.pixel import PixelClassifier
from ..nets.probe import ProbedNetwork
from ..nets.registry import load_network
from ..system.files import write_atomic, write_json
from ..system.installing import install
from ..system.saying import hush, soon
from ..train.edited import other_classes, verify_edited
from ..train.members import members_of, views_of
from ..train.run import Run
from .documents import render

TOLERANCE = 1e-4
"""Largest difference of logits between program and original, as a share of the largest logit."""

Write = Callable[[Path], object]
"""Writes what is ready into a folder."""


class Head(nn.Module):
    """One head of a probed network, by its name."""

    def __init__(self, network: ProbedNetwork, name: str) -> None:
        super().__init__()
        self.network = network
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K, *S)`` of images ``(B, C, *S)`` in [-1, 1]."""
        logits: Tensor = self.network(images, (self.name,))[0]
        return logits


class Mean(nn.Module):
    """The mean probability of networks, as logits."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K, *S)`` of images ``(B, C, *S)`` in [-1, 1]."""
        votes = torch.stack([network(images).float().softmax(1) for network in self.networks])
        return votes.mean(0).clamp(min=1e-12).log()


class AtSize(nn.Module):
    """A network that sees images at a size of its own, such as a member of a choice that has a coarser grid."""

    def __init__(self, network: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.network, self.size = network, tuple(size)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K, *S)`` of images ``(B, C, *S)`` in [-1, 1]."""
        return at_size(self.network, images, self.size).clamp(min=1e-12).log()


@dataclass(frozen=True)
class Traced:
    """A network as a program.

    Attributes:
        program: Of torch.export.
        plan: How scans are treated before and after.
        left_out: What ``predict`` does beyond it, see ``left_out``.
        batches: Batch sizes that it was held against the original with.
        outputs: Of the original for ``inputs``.
        inputs: Random images.
    """

    program: Any
    plan: Plan
    batches: tuple[int, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    left_out: tuple[str, ...] = ()


def one_pass_network(run: Run, head: str | None = None) -> nn.Module:
    """The network of a finished run of fit that labels an image in one pass.

    ``head`` is that of a probing run; None: the main one.

    Raises:
        RunError: Not finished, damaged, or no segmenter.
        InputError: It draws masks step by step, or has no such head.
    """
    if not run.finished:
        raise RunError(run.folder, "has not finished training", "Run its command again to resume")
    if (parts := members_of(run))[0] is not run:
        if not all(is_seen_as(part.plan, run.plan) for part in parts):
            problem = "has members that see a scan in different ways, which one program cannot"
            raise InputError(run.folder, problem, f"Export one of them, such as {parts[0].folder}")
        networks = []
        for part in parts:
            network, size = one_pass_network(part, head), part.plan.size
            networks.append(network if size == run.plan.size else AtSize(network, size))
        return Mean(networks).eval()
    network = load_network(run.model)
    if isinstance(network, MaskDenoiser | JointDenoiser):
        problem = "draws masks from noise in several steps, which one program does not do"
        remedy = "Export a run of another method, or use radiffuse.Segmenter"
        raise InputError(run.folder, problem, remedy)
    if not run.plan.classes:
        remedy = "Give a run of radiffuse fit"
        raise RunError(run.folder, "is no segmentation run", remedy)
    verify_edited(run, network)
    if isinstance(network, ProbedNetwork):
        name = head or network.names[0]
        if name not in network.names:
            problem = f"{run.folder} has no head of that name"
            remedy = f"Heads are: {', '.join(network.names)}"
            raise InputError(f"--head {head}", problem, remedy)
        return Head(network, name).eval()
    return network


def left_out(run: Run, *, steps: bool) -> list[str]:
    """What ``predict`` does with a run beyond its network, in words; ``steps``: those after segmentation as well."""
    plan = run.plan
    after = steps_in_words(plan.postprocess if steps else (), plan.classes, plan.spatial_dims)
    members = members_of(run)
    count = len(members)
    grids = dict.fromkeys(times(part.plan.film) for part in members if part.plan.whole)
    parts = {
        "that each network sees the film resized once, to a grid of its own": [*grids]
        if len(grids) > 1
        else [],
        "the blending of windows of each network by itself, before the mean": [f"{count} networks"]
        if count > 1 and not plan.whole
        else [],
        "the average of views": views_of(run),
        "the steps after segmentation": [after] if after != "none" else [],
    }
    return [f"{what} ({', '.join(names)})" for what, names in parts.items() if names]


def usage(run: Run) -> str:
    """What a program is for its README."""
    return render("program_usage.md", left_out=left_out(run, steps=True), plan=run.plan)


def trace(run: Run, head: str | None = None) -> Traced:
    """The run's network as a program of torch.export, which agrees with it on random images.

    The spatial size is the plan's; the batch is free, but where the run or a member of it is one of ``pixel``, which
    looks at one image at a time.

    Raises:
        RunError, InputError: See ``one_pass_network``; or the program does not agree, or the run has no heads to choose
            ``head`` from.
    """
    network, plan = one_pass_network(run, head).requires_grad_(False), run.plan
    if head and not any(isinstance(part, Head) for part in network.modules()):
        refuse("head", "the run has no heads to choose from", typed=True)
    soon("tracing the network, which can take minutes")
    fixed = any(isinstance(part, PixelClassifier) for part in network.modules())
    batches = (1,) if fixed else (2, 3)
    generator = torch.Generator().manual_seed(0)
    shape = (len(plan.channels), *plan.size)
    inputs = tuple(torch.rand((n, *shape), generator=generator) * 2 - 1 for n in batches)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = tuple(network(images).float() for images in inputs)
        if (found := outputs[0].shape[1]) != len(plan.classes):
            raise other_classes(run, found)
        free = None if fixed else ({0: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(network, (inputs[0],), dynamic_shapes=free)
    hush()
    return Traced(program, plan, batches, inputs, outputs, tuple(left_out(run, steps=True)))


def torch_program(run: Run, head: str | None = None) -> Write:
    """What writes ``model.pt2`` for ``torch.export.load``, with ``plan.json`` and ``export.json``.

    Raises:
        RunError, InputError: As ``trace``.
    """
    traced = trace(run, head)
    buffer = io.BytesIO()
    torch.export.save(traced.program, buffer)
    buffer.seek(0)
    module = torch.export.load(buffer).module()
    difference = verify_program(traced, lambda images: cast(Tensor, module(images)), "torch.export")

    def write(out: Path) -> None:
        write_atomic(out / "model.pt2", buffer.getvalue())
        _describe(out, traced, "torch-export", difference, {"torch": torch.__version__})

    return write


def onnx_program(run: Run, head: str | None = None) -> Write:
    """What writes ``model.onnx``, with ``plan.json`` and ``export.json``; onnxruntime gives what the original gives.

    Raises:
        RunError, InputError: As ``trace``; or the packages for ONNX are not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError as error:
        remedy = f"Install it: {install('export')}"
        raise InputError("onnx", f"needs the package {error.name}", remedy) from None
    traced = trace(run, head)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.onnx.export(
            traced.program, dynamo=True, input_names=["images"], output_names=["logits"],
            verbose=False,
        )  # fmt: skip
    assert found is not None
    content = found.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def call(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    difference = verify_program(traced, call, "ONNX")
    opset = max(entry.version for entry in found.model_proto.opset_import)

    def write(out: Path) -> None:
        write_atomic(out / "model.onnx", content)
        _describe(out, traced, "onnx", difference, {"opset": opset})

    return write


def verify_program(traced: Traced, call: Callable[[Tensor], Tensor], what: str) -> float:
    """Largest difference of logits, as a share of the largest logit.

    Raises:
        InputError: It is more than ``TOLERANCE``: nothing is written.
    """
    shares = []
    for images, expected in zip(traced.inputs, traced.outputs, strict=True):
        gap = (call(images).float() - expected).abs().max()
        shares.append(gap / expected.abs().max().clamp(min=1e-6))
    worst = float(torch.stack(shares).max())  # which hands a NaN on
    if not worst <= TOLERANCE:
        problem = f"differs from the network by {worst:.2g} of its largest logit"
        raise InputError(what, problem, "Please report this, with the run's model/config.json")
    return worst


def _describe(
    out: Path, traced: Traced, kind: str, difference: float, more: dict[str, Any]
) -> None:
    plan = traced.plan
    write_atomic(out / "plan.json", plan.to_json())
    free = len(traced.batches) > 1
    write_json(
        out / "export.json",
        {
            "format": kind,
            **more,
            "input": {
                "name": "images",
                "shape": ["batch" if free else 1, len(plan.channels), *plan.size],
                "dtype": "float32",
                "range": [-1, 1],
            },
            "output": {
                "name": "logits",
                "shape": ["batch" if free else 1, len(plan.classes), *plan.size],
                "classes": list(plan.classes),
            },
            "left_out": list(traced.left_out),
            "checked_batches": list(traced.batches),
            "largest_difference": difference,
        },
    )
