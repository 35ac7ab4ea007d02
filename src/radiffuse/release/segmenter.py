"""A trained segmenter as one object: arrays or files in, label maps on their own grid out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np

from ..config import Machine, Predict
from ..config.values import misfit
from ..data.plan import Plan
from ..data.scan import Array, Scan
from ..errors import InputError
from ..inference.members import Overrides
from ..inference.predictor import Predictor
from ..inference.records import doubts_in_words
from ..system.saying import say
from ..train.run import Run, find_run
from .card import Licences
from .pretrained import fetch, push_to_hub, save_pretrained
from .scans import array_scan, listed, read_one, verify_channels, verify_unmasked

Image = Array | Scan | str | Path | tuple[str | Path, ...]
"""An array, a ``Scan``, a path, or a tuple of paths that are the channels of one scan."""


class Segmenter:
    """Segments images with one trained run, or with several that vote.

    Example:
        >>> segmenter = radiffuse.Segmenter.load("runs/seg")
        >>> mask = segmenter.predict(array, spacing=(0.8, 0.8, 2.5))
        >>> masks = segmenter.predict(["a.nii.gz", "b.nii.gz"])

    Args:
        predictor: What segments.

    Attributes:
        predictor: What segments one ``Scan``.
        runs: Folders of the runs, if it was made from such.
    """

    def __init__(self, predictor: Predictor, runs: Sequence[Path] = ()) -> None:
        self.predictor = predictor
        self.runs = tuple(runs)
        self._said = set[str]()

    @classmethod
    def load(
        cls,
        runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        precision: Literal["auto", "32-true", "bf16-mixed"] = "auto",
        sampler: Literal["ddpm", "ddim"] | None = None,
        steps: int | None = None,
        head: str | None = None,
        overlap: float = 0.5,
        samples: int = 1,
        ensemble: Literal["probability", "vote"] = "probability",
        seed: int = 0,
    ) -> Self:
        """The segmenter of a finished run of ``fit``, or of several that vote.

        Args:
            runs: A run or its folder, a published folder (``save_pretrained``) or the name of shipped weights that
                segment; a list makes an ensemble.
            device: Where to compute; ``auto`` takes a GPU if there is one.
            precision: Arithmetic; ``auto`` takes bf16 where the machine is fast at it.
            sampler: Mask diffusion: reverse process; None: as the run was trained to be used.
            steps: Mask diffusion: inference steps; None: as the run was trained to be used.
            head: Probing: which head segments; None: the first.
            overlap: 3D: share by which neighboring windows overlap, 0 to 0.9.
            samples: Mask diffusion: masks drawn per scan.
            ensemble: Mean probability, or majority vote.
            seed: Seed of the noise of mask diffusion.

        Raises:
            RunError: A run is missing, unfinished, damaged, or segments nothing.
            InputError: The runs do not agree on what they see or what their classes mean.
        """
        several = [runs] if isinstance(runs, str | os.PathLike) else runs
        names = [os.fspath(r) if isinstance(r, os.PathLike) else r for r in listed(several, "runs")]
        if not names:
            raise InputError("Segmenter.load", "was given no run", "Give the folder of a run")
        given = {
            "runs": names,
            "sampler": sampler,
            "steps": steps,
            "head": head,
            "overlap": overlap,
        }
        _verify(Predict, given | {"samples": samples, "ensemble": ensemble, "seed": seed})
        _verify(Machine, {"accelerator": device, "precision": precision})
        folders = [Path(name) for name in names]
        opened = [find_run(f.name) if f == Path(f.name) else Run.open(f) for f in folders]
        predictor = Predictor.open(
            opened,
            Machine(accelerator=device, precision=precision),
            Overrides(sampler, steps, head=head),
            overlap=overlap,
            samples=samples,
            ensemble=ensemble,
            seed=seed,
        )
        return cls(predictor, [run.folder for run in opened])

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, **options: Any
    ) -> Self:
        """The segmenter of a published folder, or of one on the Hugging Face hub.

        Args:
            name: A folder, or ``OWNER/NAME`` on the hub.
            revision: Branch, tag or commit on the hub; None: the newest.
            options: Those of ``load``.

        Raises:
            InputError: There is none, or it cannot be fetched.
        """
        return cls.load(fetch(str(name), revision), **options)

    def save_pretrained(
        self, folder: str | Path, *, licence: str | None = None, data_licence: str | None = None
    ) -> Path:
        """Write what others need to use the run: weights, plan, settings, and a model card; nothing of single cases.

        Args:
            folder: Where to; it is then a run that every command takes.
            licence: Of the weights, as the hub spells it (``apache-2.0``), for the card.
            data_licence: Of the training data; None: what the data set states.

        Returns:
            The folder.

        Raises:
            InputError: Several runs vote, which one folder cannot hold; or the folder cannot be written.
        """
        return save_pretrained(self._run(), Path(folder), Licences(licence, data_licence))

    def push_to_hub(
        self,
        repository: str,
        *,
        licence: str,
        data_licence: str | None = None,
        private: bool = True,
    ) -> str:
        """Publish the run on the Hugging Face hub, with the licences of ``save_pretrained``.

        See ``release.pretrained.push_to_hub``.

        Returns:
            Address of the commit.

        Raises:
            InputError: Several runs vote, or the hub refuses.
        """
        licences = Licences(licence, data_licence)
        return push_to_hub(self._run(), repository, licences, private=private)

    def _run(self) -> Run:
        if len(self.runs) != 1:
            problem = f"is made of {len(self.runs)} runs, and a folder holds one"
            raise InputError("the segmenter", problem, "Save each run on its own")
        return Run.open(self.runs[0])

    @property
    def plan(self) -> Plan:
        """How images are treated before the network sees them."""
        return self.predictor.plan

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the place of a name is its value in a label map. Background is first."""
        return self.plan.classes

    @overload
    def predict(
        self, image: list[Any], *, spacing: Sequence[float] | None = ..., affine: Array | None = ...
    ) -> list[Array]: ...
    @overload
    def predict(
        self, image: Image, *, spacing: Sequence[float] | None = ..., affine: Array | None = ...
    ) -> Array: ...
    def predict(
        self,
        image: Image | list[Any],
        *,
        spacing: Sequence[float] | None = None,
        affine: Array | None = None,
    ) -> Array | list[Array]:
        """Label maps on the images' own grids.

        Args:
            image: A film ``(rows, columns)``, a volume ``(i, j, k)``, either with channels first; or a ``Scan``; or the
                path of a file or of a DICOM series; or a tuple of paths, the channels of one scan. A list stands for
                several images. Values as in the files that the run was trained on: CT in HU.
            spacing: Of arrays of volumes: mm per voxel along each axis. Without ``affine`` the axes are taken to run
                to the right, to the front and to the head, as in NIfTI.
            affine: Of arrays of volumes: 4 x 4, voxel indices to RAS+ mm, as in NIfTI.

        Returns:
            uint8 ``(*spatial)``, values by ``classes``; a list for a list.

        Raises:
            InputError: An image cannot be read, has other axes or channels than the run, or has masked values.
        """
        return self._each(
            image, spacing, affine, lambda scan, name: self.predictor(scan, name).mask
        )

    @overload
    def predict_proba(
        self, image: list[Any], *, spacing: Sequence[float] | None = ..., affine: Array | None = ...
    ) -> list[Array]: ...
    @overload
    def predict_proba(
        self, image: Image, *, spacing: Sequence[float] | None = ..., affine: Array | None = ...
    ) -> Array: ...
    def predict_proba(
        self,
        image: Image | list[Any],
        *,
        spacing: Sequence[float] | None = None,
        affine: Array | None = None,
    ) -> Array | list[Array]:
        """Probabilities of every class on the images' own grids; the arguments are those of ``predict``.

        Returns:
            float32 ``(K, *spatial)``, summing to 1 over K; a list for a list. Where the plan postprocesses nothing,
            ``argmax(0)`` is what ``predict`` returns.

        Raises:
            InputError: As ``predict``.
        """
        return self._each(image, spacing, affine, self.predictor.probabilities)

    def __repr__(self) -> str:
        names = ", ".join(member.name for member in self.predictor.members)
        return f"Segmenter({names}: {', '.join(self.classes)})"

    def _each(
        self,
        image: Image | list[Any],
        spacing: Sequence[float] | None,
        affine: Array | None,
        segment: Callable[[Scan, str], Array],
    ) -> Array | list[Array]:
        """What ``segment`` makes of an image, or of each of a list; what is doubtful in them is said once."""
        images = image if isinstance(image, list) else [image]
        results, doubts = list[Array](), list[str]()
        for one in images:
            scan, name = self._scan(one, spacing, affine)
            results.append(segment(scan, name))
            doubts += self.predictor.doubts(scan)
        new = [doubt for doubt in doubts if doubt not in self._said]
        for line in doubts_in_words(new, len(images)):
            say(line)
        self._said |= {*new}
        return results if isinstance(image, list) else results[0]

    def _scan(
        self, image: Image, spacing: Sequence[float] | None, affine: Array | None
    ) -> tuple[Scan, str]:
        """The image with its geometry, and the name that its noise depends on."""
        if isinstance(image, str | Path | tuple):
            if spacing is not None or affine is not None:
                problem = "is of arrays; files and scans say it themselves"
                raise InputError("spacing or affine", problem, "Leave it out")
            paths = image if isinstance(image, tuple) else (image,)
            if not all(isinstance(path, str | Path) for path in paths):
                problem = "is a tuple, which stands for the files of the channels of one scan"
                raise InputError("image", problem, "Give a list of arrays, one for each scan")
            return read_one([Path(path) for path in paths], len(self.plan.channels))
        verify_unmasked(image)
        if isinstance(image, Scan):
            return image, ""
        array, dims = np.asarray(image), self.plan.spatial_dims
        scan = array_scan(array, dims, spacing, affine)
        verify_channels(array, dims, len(self.plan.channels))
        return scan, ""


def _verify(kind: type, values: dict[str, Any]) -> None:
    """Refuse options of ``Segmenter.load`` that are no legal settings of this kind."""
    if fault := misfit(values, kind):
        problem = f"cannot be so: {fault.replace('accelerator', 'device', 1)}"
        raise InputError("Segmenter.load", problem, "Change it")
