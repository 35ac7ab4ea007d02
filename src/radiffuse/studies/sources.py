"""What the methods of a study start from: its pre-trained runs, each made once and then opened."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from ..commands.pretrain import pretrain
from ..config import Network, PlanSettings, Pretrain, Study
from ..config.values import from_dict
from ..data.plan import Plan
from ..objectives.coordinates import coordinates
from ..train.run import Run
from ..train.start import find_pretrained

PRETRAININGS = ("diffusion", "guided", "restorative", "contrastive")
"""Ways of pre-training that a study compares; ``diffusion`` is what its other methods start from, too."""
PLUS = "+pretrained"
"""Ending of the name of a strategy that starts from the denoiser."""
SYNTHETIC = ("synthetic-unlabelled", "synthetic-labelled")
"""Methods that use the synthetic images of ``--synthetic``."""
DENOISED = ("finetune", "pixel", "ddep", "generated", *SYNTHETIC)
"""Other methods that need the denoiser."""


class StudySources:
    """Trains what methods start from, once; what is already there is opened.

    Args:
        settings: The study.
        out: Its folder.
    """

    def __init__(self, settings: Study, out: Path) -> None:
        self.settings = settings
        self.out = out
        self.denoiser = functools.cache(self._denoiser)
        self.decoder = functools.cache(self._decoder)
        self.pretrained = functools.cache(self._pretrained)
        self.enlarged = functools.cache(self._enlarged)

    def first(self) -> Run | None:
        """The run whose plan and network every method shares; None without unlabelled images."""
        chosen = [name for name in self.settings.methods if name in PRETRAININGS]
        needed = any(name in DENOISED or name.endswith(PLUS) for name in self.settings.methods)
        return self.pretrained(chosen[0]) if chosen and not needed else self.denoiser(None)

    # -------------------------------------------------------------------------------------------- internal

    def _denoiser(self, pool: int | None) -> Run | None:
        """The denoiser; ``pool`` is the number of unlabelled images it saw, None all."""
        if self.settings.from_run:
            return find_pretrained(self.settings.from_run)
        if not self.settings.unlabelled:
            return None
        limit = self.settings.pretrain.limit if pool is None else pool
        return self._pretrain("pretrain" if pool is None else f"pretrain-{pool}", limit=limit)

    def _enlarged(self) -> Run:
        """The denoiser that saw the synthetic images as well, in as many steps."""
        return self._pretrain("pretrain-synthetic", with_run=self.settings.synthetic)

    def _pretrained(self, name: str) -> Run:
        """The run of one of ``PRETRAININGS``."""
        if name == "diffusion":
            found = self.denoiser(None)
            assert found is not None
            return found
        if name == "guided":
            return self._pretrain("pretrain-guided", coordinates=str(self._coordinates().folder))
        return self._pretrain(f"pretrain-{name}", objective=name)

    def _decoder(self) -> Run:
        """The rival: the encoder of the denoiser, its decoder trained anew at one noise level."""
        source = self.denoiser(None)
        assert source is not None
        return self._pretrain("ddep", objective="ddep", from_run=str(source.folder))

    def _coordinates(self) -> Run:
        given = self.settings.pretrain.coordinates
        if given:
            return find_pretrained(given)
        folder = self.out / "coordinates"
        if Run(folder).ended:
            return Run.open(folder)
        assert self.settings.unlabelled is not None
        return coordinates(
            dataclasses.replace(
                self.settings.coordinates,
                data=self.settings.unlabelled,
                out=str(folder),
                plan=self.settings.pretrain.plan,
                reader=self.settings.pretrain.reader,
                machine=self.settings.pretrain.machine,
            )
        )

    def _pretrain(self, name: str, **changes: object) -> Run:
        folder = self.out / name
        if Run(folder).ended:
            return Run.open(folder)
        assert self.settings.unlabelled is not None
        base = dataclasses.replace(
            self.settings.pretrain,
            data=self.settings.unlabelled,
            out=str(folder),
            coordinates=None,
        )
        settings: Pretrain = dataclasses.replace(base, **changes)  # type: ignore[arg-type]
        return pretrain(settings)


def plan_settings(plan: Plan) -> PlanSettings:
    """A plan as settings."""
    window = (plan.low, plan.high)
    return PlanSettings(
        size=plan.size,
        spacing=plan.spacing,
        resize=plan.resize,
        window=window if plan.intensity == "window" else None,
        percentiles=window if plan.intensity == "percentiles" else None,
    )


def network_settings(run: Run) -> Network:
    """The network of a run as settings."""
    network: Network = from_dict(Network, run.config["settings"]["network"])
    return network
