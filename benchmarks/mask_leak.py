"""How much of the truth a noised mask gives away: ``python benchmarks/mask_leak.py STUDY --out leak.csv``.

Claim 1 of Fu et al. 2023. For every run of mask diffusion in a finished study and every test image, two masks are
noised to the same timestep with the same noise: the true one, which training sees, and the one that the network itself
predicted from pure noise, which is all that there is at prediction. The Dice of the network's answer to the first minus
that to the second is what it leaned on and will not have.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch

from radiffuse.config import Data, Diffusion
from radiffuse.config.values import from_dict
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.core.losses import dice_scores
from radiffuse.core.masks import logits_to_x_start, mask_to_x_start
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset
from radiffuse.data.transform import image_to_plan, label_to_plan
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.registry import load_network
from radiffuse.system.files import write_atomic
from radiffuse.train.run import Run

TIMESTEPS = (0, 100, 250, 500, 750)
BATCH = 16


def main() -> None:
    """Measure every run of the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    data = json.loads((given.study / "data.json").read_text())
    dataset = open_dataset(Path(data["root"]), Data()).labelled
    cases = [case for case in dataset if case.name in set(data["split"]["test"])]
    rows = []
    for folder in sorted((given.study / "runs").iterdir()):
        run = Run.open(folder)
        network = load_network(run.model)
        if not isinstance(network, MaskDenoiser):
            continue
        method, labels, draw = folder.name.rsplit("-", 2)
        images = [torch.from_numpy(image_to_plan(read_case_image(c), run.plan)[0]) for c in cases]
        truths = [torch.from_numpy(label_to_plan(read_case_label(c), run.plan)) for c in cases]
        found = leaks(network, run, torch.stack(images), torch.stack(truths).long())
        for t, true, own in found:
            for case, a, b in zip(cases, true, own, strict=True):
                rows.append((method, int(labels), int(draw), case.name, case.group, t, a, b))
        print(folder.name)
    columns = ["method", "labels", "draw", "case", "group", "timestep", "dice_true", "dice_own"]
    write_atomic(given.out, pd.DataFrame(rows, columns=columns).to_csv(index=False))


@torch.no_grad()
def leaks(
    network: MaskDenoiser, run: Run, images: torch.Tensor, labels: torch.Tensor
) -> list[tuple[int, list[float], list[float]]]:
    """By timestep, Dice of the answers to the true mask, and to the network's own, noised alike."""
    process = GaussianDiffusion(
        from_dict(Diffusion, run.config["settings"]["diffusion"]["process"])
    )
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((len(images), network.classes, *images.shape[2:]), generator=generator)

    def answer(x_start: torch.Tensor, t: int) -> torch.Tensor:
        logits = []
        for i in range(0, len(images), BATCH):
            part = slice(i, i + BATCH)
            at = torch.full((len(images[part]),), t)
            x_t = process.add_noise(x_start[part], noise[part], at)
            logits.append(network(images[part], x_t, at))
        return torch.cat(logits)

    last = process.num_train_timesteps - 1
    true = mask_to_x_start(labels, network.classes)
    own = logits_to_x_start(answer(torch.zeros_like(true), last))
    return [
        (t, *(dice_scores(answer(x, t).argmax(1), labels, network.classes) for x in (true, own)))
        for t in TIMESTEPS
    ]


if __name__ == "__main__":
    main()
