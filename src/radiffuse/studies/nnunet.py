"""nnU-Net 2 as an external program: raw data is written, its three commands are called, its masks are scored.

It has its own interpreter, since its dependencies conflict with those here; only its masks are loaded. It learns from
the budget of labels alone: its training and its validation fold are the same cases, and the weights of the last epoch
segment, so that its validation chooses nothing. Raw data: github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import Machine
from ..config import NNUNet as Settings
from ..data.dataset import Case, Dataset
from ..data.fingerprint import find_classes
from ..data.readers import read_label
from ..data.scan import Scan
from ..errors import InputError
from ..evaluation.scoring import score_masks
from ..system.files import read_json, sha256, write_atomic, write_json
from ..train.planning.configuration import AT_WORK
from . import nnunet_training
from .nnunet_raw import write_raw

DATASET = "Dataset001_radiffuse"
ENTRIES = {
    "prepare": (
        "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
        "plan_and_preprocess_entry",
    ),
    "train": ("nnunetv2.run.run_training", "run_training_entry"),
    "predict": ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point"),
}
"""What the commands ``nnUNetv2_plan_and_preprocess``, ``nnUNetv2_train`` and ``nnUNetv2_predict`` call."""
PROBE = (
    "import importlib.metadata, json, nnunetv2, torch; "
    "print(json.dumps([importlib.metadata.version('nnunetv2'), torch.cuda.is_available()]))"
)
SECONDS = "seconds.json"
"""What each command of nnU-Net took, by its name here; tries that failed included."""
LENGTH = "length.json"
"""Epochs and iterations of a training for given hours."""
PROCESSES = 2
"""Processes that read and write files."""


@dataclass(frozen=True)
class NNUNet:
    """An installed nnU-Net.

    Attributes:
        python: Its interpreter.
        trainer: Name of its trainer class, such as ``nnUNetTrainer_50epochs``.
        configuration: ``2d``, ``3d_fullres``, or ``auto``, by the images.
        device: ``cuda``, ``cpu`` or ``mps``.
        hours: Of a training, with preparation; None: as long as its trainer takes.
        weights: Checkpoint of others to start from.
        threads: Of the CPU; None: its own choice.
    """

    python: str
    trainer: str
    configuration: str
    device: str
    hours: float | None = None
    weights: str | None = None
    threads: int | None = None

    def segment(
        self,
        folder: Path,
        dataset: Dataset,
        classes: Sequence[str],
        training: Sequence[str],
        testing: Sequence[str],
    ) -> tuple[Path, str]:
        """Train on the cases named ``training`` and segment ``testing``; finished steps are not repeated.

        Args:
            folder: For raw data, preprocessed data, results, masks and ``log.txt``.
            dataset: Holds the cases.
            classes: Names by label value, background first.
            training: Names of the cases to learn from.
            testing: Names of the cases to segment.

        Returns:
            The folder of the masks, and their file name extension.

        Raises:
            InputError: A case cannot be read, or nnU-Net fails; names its log.
        """
        raw = folder / "raw" / DATASET
        if not _done(folder, "raw"):
            ending = write_raw(raw, dataset, classes, training, testing)
            write_atomic(folder / "raw.done", ending)
        ending = (folder / "raw.done").read_text()
        chosen = self.configuration
        if chosen == "auto":
            chosen = "2d" if ending == ".tif" else "3d_fullres"
        # fmt: off
        self._call(folder, "prepare", "-d", "1", "-c", chosen, "-npfp", str(PROCESSES), "-np", str(PROCESSES))
        write_json(
            folder / "preprocessed" / DATASET / "splits_final.json",
            [{"train": list(training), "val": list(training)}],
        )
        # --c continues from a checkpoint if there is one, and else starts from the beginning.
        begin = ["--c"]
        if self.weights is not None and not list((folder / "results").rglob("checkpoint_*.pth")):
            begin = ["-pretrained_weights", self.weights]
        self._call(folder, "train", "1", chosen, "0", "-tr", self.trainer, "-device", self.device, *begin)
        masks = folder / "masks"
        self._call(
            folder, "predict", "-i", str(raw / "imagesTs"), "-o", str(masks), "-d", "1", "-c", chosen, "-f", "0",
            "-tr", self.trainer, "-device", self.device, "-npp", str(PROCESSES), "-nps", str(PROCESSES),
        )
        # fmt: on
        missing = [name for name in testing if not (masks / f"{name}{ending}").is_file()]
        if missing:
            (folder / "predict.done").unlink()
            remedy = "Read it, and give the same command again"
            raise InputError(folder / "log.txt", f"nnU-Net left {missing[0]} out", remedy)
        return masks, ending

    # -------------------------------------------------------------------------------------------- internal

    def _call(self, folder: Path, step: str, *arguments: str) -> None:
        """One command of nnU-Net, once."""
        if _done(folder, step):
            return
        module, function = ENTRIES[step]
        code = f"import sys; from {module} import {function}; sys.argv[0] = '{step}'; sys.exit({function}())"
        if step == "train":
            code = self._first(folder) + code
        log, begun = folder / "log.txt", time.monotonic()
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\n== {step} {' '.join(arguments)}\n")
            file.flush()
            done = subprocess.run(
                [self.python, "-c", code, *arguments],
                env=_environment(folder) | self._threads(step),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        seconds = _seconds(folder)
        took = seconds.get(step, 0.0) + time.monotonic() - begun
        write_json(folder / SECONDS, seconds | {step: round(took, 1)})
        if done.returncode:
            if done.returncode == 4 and (said := _refusal(log)):
                where = f"--nnunet.pretrained-weights {self.weights}"
                remedy = f"Give one for the network that {folder / 'preprocessed'} plans"
                raise InputError(where, said, remedy)
            problem = f"nnU-Net's {step} ended with exit code {done.returncode}"
            raise InputError(log, problem, "Read its last lines; the same command continues")
        write_atomic(folder / f"{step}.done", "")
        if step == "train" and (length := folder / LENGTH).is_file():
            print(f"nnU-Net trained {read_json(length)['iterations']} iterations in its hours")

    def _left(self, folder: Path, hours: float) -> float:
        """Seconds that its preparation and stopped trainings left; none is an error where no training has begun."""
        spent = sum(_seconds(folder).get(step, 0.0) for step in ("prepare", "train"))
        left = 3600 * AT_WORK * hours - spent
        if left <= 0 and not (folder / LENGTH).is_file():
            problem = f"gives no time beyond nnU-Net's preparation ({spent:.0f} s)"
            remedy = f"Give more and remove {folder.parent}, or leave the method nnunet out"
            raise InputError(f"--nnunet.hours {hours:g}", problem, remedy)
        return left

    def _threads(self, step: str) -> dict[str, str]:
        """Variables that keep it to its threads: what augments images beside training is one less, none with one."""
        if self.threads is None:
            return {}
        beside = self.threads - 1 if step == "train" else self.threads
        return {"nnUNet_n_proc_DA": str(beside), "OMP_NUM_THREADS": str(self.threads)}

    def _first(self, folder: Path) -> str:
        """What its training runs first: the limits of this comparison."""
        lines = []
        if self.threads is not None:  # its command would take all cores
            lines += ["import torch", f"torch.set_num_threads({self.threads})"]
            lines += ["torch.set_num_threads = lambda number: None"]
        if self.weights is not None:
            lines += ["import nnunetv2.run.run_training", "start_from(nnunetv2.run.run_training)"]
        if self.hours is not None:
            given = f"{self._left(folder, self.hours):.1f}, {str(folder / LENGTH)!r}"
            lines += ["from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer"]
            lines += [f"train_for(nnUNetTrainer, {given})"]
        if not lines:
            return ""
        source = Path(nnunet_training.__file__).read_text(encoding="utf-8")
        return "\n".join([source, *lines, ""])


def find_nnunet(
    settings: Settings, machine: Machine, out: Path, hours: float | None = None
) -> NNUNet:
    """Ask the interpreter for its nnU-Net, and record it in ``OUT/nnunet/nnunet.json``.

    Accelerator ``auto`` of the machine takes a GPU if nnU-Net's torch sees one.

    Args:
        settings: Of nnU-Net.
        machine: Device and threads.
        out: Folder of the study.
        hours: Of a training, if the settings name none.

    Raises:
        InputError: There is no such interpreter, it has no nnU-Net, the weights are no file, or the study used others.
    """
    weights = settings.pretrained_weights and Path(settings.pretrained_weights).absolute()
    if weights and not weights.is_file():
        where = f"--nnunet.pretrained-weights {weights}"
        raise InputError(where, "is no file", "Give a checkpoint such as checkpoint_final.pth")
    version, cuda = _ask(str(settings.python))
    about = {"nnunetv2": version}
    about |= {"trainer": settings.trainer, "configuration": settings.configuration}
    if (hours := settings.hours or hours) is not None:
        about["hours"] = f"{hours:g}"
    if weights:
        about["pretrained_weights"] = f"{weights.name}, SHA-256 {sha256(weights)[:16]}"
    path = out / "nnunet" / "nnunet.json"
    if path.exists() and (before := read_json(path, dict[str, str])) != about:
        keys = about | before
        changed = ", ".join(key for key in keys if before.get(key) != about.get(key))
        remedy = f"Use the same, or remove {out / 'nnunet'} and {out / 'scores' / 'nnunet-*'}"
        raise InputError(path, f"was written with another {changed}", remedy)
    write_json(path, about)
    device = machine.accelerator if machine.accelerator != "auto" else "cuda" if cuda else "cpu"
    return NNUNet(
        str(settings.python),
        settings.trainer,
        settings.configuration,
        device,
        hours,
        str(weights) if weights else None,
        machine.threads,
    )


def score_nnunet(
    program: NNUNet,
    folder: Path,
    dataset: Dataset,
    training: Sequence[str],
    testing: Sequence[str],
    out: Path,
    tolerance: float,
) -> Path:
    """Train nnU-Net on the cases named ``training`` and score its masks of ``testing``, as the study scores its own.

    Args:
        program: The installed nnU-Net.
        folder: Of its files.
        dataset: Holds the cases.
        training: Names of the cases to learn from.
        testing: Names of the cases to segment.
        out: Folder for ``cases.csv`` and ``overlays.npz``.
        tolerance: Of the surface Dice, in mm.

    Raises:
        InputError: nnU-Net fails, or a mask cannot be read or does not fit its case.
    """
    print(f"nnU-Net with {len(training)} labels; its log is {folder / 'log.txt'}")
    classes, wanted = find_classes(dataset), set(testing)
    masks, ending = program.segment(folder, dataset, classes, training, testing)

    def mask_of(case: Case, image: Scan, truth: Scan) -> Scan:
        mask = read_label(masks / f"{case.name}{ending}")
        if image.spatial_dims == 2 and mask.spatial_shape == image.spatial_shape:
            return image.with_array(mask.array)  # TIFF has no geometry of its own
        return mask

    cases = dataset.filter(lambda case: case.name in wanted)
    return score_masks(cases, mask_of, classes, tolerance).write(out)


def _done(folder: Path, step: str) -> bool:
    return (folder / f"{step}.done").is_file()


def _ask(python: str) -> tuple[str, bool]:
    """The version of nnU-Net in an interpreter, and whether its torch sees a GPU."""
    where = f"--nnunet.python {python}"
    remedy = "Make an environment for it: python -m venv NN; NN/bin/pip install nnunetv2; give NN/bin/python"
    try:
        done = subprocess.run(
            [python, "-c", PROBE],
            env=_environment(None),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise InputError(where, f"cannot be run ({error.strerror})", remedy) from None
    try:
        version, cuda = json.loads((done.stdout.splitlines() or [""])[-1])
    except (ValueError, TypeError):
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(where, f"cannot import nnunetv2 ({reason})", remedy) from None
    return str(version), bool(cuda)


def _seconds(folder: Path) -> dict[str, float]:
    path = folder / SECONDS
    return read_json(path, dict[str, float]) if path.is_file() else {}


def _refusal(log: Path) -> str:
    """What the last line that refuses says; empty if there is none."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    start = nnunet_training.REFUSED
    return next((x.removeprefix(start) for x in reversed(lines) if x.startswith(start)), "")


def _environment(folder: Path | None) -> dict[str, str]:
    """The caller's environment without its Python, and with nnU-Net's folders."""
    values = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    if folder is not None:
        for name in ("raw", "preprocessed", "results"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            values[f"nnUNet_{name}"] = str((folder / name).absolute())
    return values
