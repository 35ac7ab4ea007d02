"""Runs, scans and a server's state for the tests of the viewer."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch

from radiffuse.automatic.candidates import Candidate
from radiffuse.automatic.folds import Folds
from radiffuse.automatic.halving import Entry
from radiffuse.automatic.record import Record
from radiffuse.config import FIT, Diffusion, Machine, Network, Sampling, View, resolve_network
from radiffuse.config.values import to_dict
from radiffuse.data.plan import Plan
from radiffuse.data.readers import write_image
from radiffuse.data.scan import Scan
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.registry import save_network
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.system.files import seal, write_atomic, write_json
from radiffuse.train.start_run import start_run

CPU = Machine(accelerator="cpu", precision="32-true")
CLASSES = ("background", "<b>lung</b>", "heart")
"""A name that would be markup, were it not shown as text."""
PORT, TOKEN = 8123, "a-token-of-the-tests"
ADDRESS = f"http://127.0.0.1:{PORT}"
STEPS = 3


def plan_of(dims: int) -> Plan:
    if dims == 2:
        return Plan(2, ("image",), CLASSES, (16, 16), intensity="window", low=0, high=255)
    return Plan(
        3, ("CT",), CLASSES, (8, 8, 8), (2.0, 2.0, 2.0), intensity="window", low=0, high=255
    )


def make_run(folder: Path, *, dims: int = 2, diffusion: bool = False) -> Path:
    """A finished segmentation run with the weights it was born with, and a log."""
    plan = plan_of(dims)
    unet = resolve_network(
        Network(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8),
        spatial_dims=dims,
        in_channels=len(plan.channels),
        out_channels=len(CLASSES),
    )
    generator = torch.Generator().manual_seed(1)
    settings: dict[str, object] = {"training": {"steps": 20, "seed": dims}}
    if diffusion:
        settings["method"] = "diffusion"
        settings["diffusion"] = {
            "process": to_dict(Diffusion()),
            "sampling": to_dict(Sampling(steps=STEPS)),
        }
        network = MaskDenoiser.from_scratch(unet, generator=generator)
    else:
        network = SegmentingUNet.from_scratch(unet, generator=generator)
    with torch.no_grad():  # a fresh head is zero, and its mask would be empty
        for value in network.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    with start_run(folder, "fit", settings) as run:
        write_atomic(folder / "plan.json", plan.to_json())
        save_network(network, run.model)
    rows = [f'{{"step": {i}, "loss": {1 / i}}}' for i in range(1, 21)]
    write_atomic(
        folder / "log.jsonl", "\n".join([*rows, '{"step": 20, "validation": {"dice": 0.5}}'])
    )
    return folder


def make_choice(folder: Path) -> Path:
    """A finished automatic run of one member, with what was tried on two folds."""
    plan = Plan(2, ("image",), ("background", "lung"), (16, 16))
    with start_run(folder, "fit", {"method": "auto"}) as run:
        member = make_run(folder / "members" / "scratch")
        write_atomic(folder / "plan.json", plan.to_json())
        seal(run.model, "config.json", {"kind": "members", "members": [member.name]})
    names = ("scratch", "imagenet")
    candidates = [
        Candidate(name, FIT["scratch"], f"a <b>{name}</b> network", plan) for name in names
    ]
    record = Record(folder / "choice.json", Folds((("a", "b"), ("c",))), 0.5, candidates, {})
    record.left_out = {"probe": "--hours: too short", "finetune": "--hours: too short"}
    record.tried = [Entry("imagenet", 50, 0.7, 0.6, 90.0), Entry("scratch", 50, 0.8, 0.7, 60.0)]
    record.members = [{"candidate": "scratch", "steps": 100, "seed": 0, "tried": 50}]
    record.decisions = ["chosen: scratch with 50 steps"]
    for number, rows in enumerate(("a,lung,0.9,0.8\nb,lung,0.8,0.8", "c,lung,0.7,0.5")):
        path = record.folders("scratch", 50)[number] / "validation" / "cases.csv"
        path.parent.mkdir(parents=True)
        path.write_text(f"case,class,dice,nsd\n{rows}\n")
    record.write()
    return folder


def film_bytes(folder: Path, size: tuple[int, int] = (24, 20), seed: int = 0) -> bytes:
    """A PNG film."""
    path = folder / f"film-{seed}.png"
    pixels = np.random.default_rng(seed).integers(0, 255, size, np.uint8)
    write_image(path, pixels, Scan(pixels[None]))
    return path.read_bytes()


def volume_bytes(folder: Path) -> bytes:
    """A NIfTI volume of 2 x 2 x 2.5 mm."""
    path = folder / "volume.nii.gz"
    values = np.random.default_rng(0).integers(0, 255, (20, 18, 12)).astype(np.int16)
    affine = np.diag([-2.0, 2.0, 2.5, 1.0])
    write_image(path, values, Scan(values[None], (2.0, 2.0, 2.5), affine))
    return path.read_bytes()


def dicom_slice(number: int, series: str = "1.2.3.4", rows: int = 12) -> bytes:
    """One slice of a CT series, 3 mm apart, with a name in its header."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"{series}.{number}"
    data.SeriesInstanceUID, data.StudyInstanceUID = series, "1.2.3"
    data.FrameOfReferenceUID = "1.2.3.9"
    data.Modality, data.PatientID, data.PatientName = "CT", "4711", "Doe^Jane"
    data.Rows, data.Columns, data.SamplesPerPixel = rows, 10, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -100
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [0, 0, 3 * number]
    data.PixelSpacing = [1, 1]
    pixels = np.random.default_rng(number).integers(0, 300, (rows, 10)).astype(np.int16)
    data.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def series_zip() -> bytes:
    """A CT series of six slices with what lies beside it on a disc."""
    slices = {f"DICOM/IM{i:04d}": dicom_slice(i) for i in range(6)}
    return zip_of(slices | {"viewer/start.exe": b"MZ" + bytes(200), "README.TXT": b"a disc"})


def settings_of(*paths: Path, **changes: object) -> View:
    return View(paths=tuple(map(str, paths)), machine=CPU, **changes)  # type: ignore[arg-type]


def mask_values(folder: Path) -> None:
    """``classes.json`` of a folder of masks."""
    write_json(folder / "classes.json", {str(i): name for i, name in enumerate(CLASSES)})
