"""Turn a finished pre-training run into weights that ship with the package.

    python benchmarks/ship_weights.py RUN NAME --data "cxr-classes" --licence "CC BY 4.0" --source "doi ..." \
        --limits "children's films from one hospital" --command "radiffuse pretrain ..."

Weights are stored in bfloat16; paths and log stay behind. A model card is written beside them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml

from radiffuse.nets.registry import load_network, save_network
from radiffuse.system.files import write_atomic, write_json
from radiffuse.train.run import Run

CARD = """# {name}

A denoising U-Net, pre-trained by `radiffuse pretrain` on unlabelled films; `--from {name}` starts a segmenter from it.

- **Data**: {data}: {cases} images of {patients} patients, labels unused. Licence {licence}. {source}
- **Network**: {parameters:.1f} M parameters, {size} pixels of a grid of {grid}, weights averaged, stored in bfloat16.
- **Training**: {images} images seen in {steps} steps of {batch}, learning rate {rate}, {schedule} schedule with
  T = {total}{shift}; held-out denoising error {loss:.4f}.
- **Command**: `{command}`
- **Intended use**: a starting point for research on segmentation of chest films. Not a medical device; nothing it
  makes may guide care.
- **Limits**: {limits}. Samples can resemble training images; memorization was not measured.
- **Licence of the weights**: Apache-2.0; credit the data as above.
"""


def main() -> None:
    """Read the run, write the shipped folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data", required=True)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--limits", required=True)
    parser.add_argument("--command", required=True)
    given = parser.parse_args()
    run = Run.open(given.run)
    out = Path(__file__).parents[1] / "src" / "radiffuse" / "train" / "weights" / given.name
    network = load_network(run.model)
    save_network(network, out / "model", torch.bfloat16)
    content = run.config
    content["settings"] |= {"data": given.data, "out": given.name, "with_run": ()}
    content["settings"]["reader"]["cache"] = None
    write_atomic(out / "config.yaml", yaml.safe_dump(content, sort_keys=False))
    write_atomic(out / "plan.json", run.plan.to_json())
    data = run.data
    write_json(
        out / "data.json",
        {
            "licence": f"{given.licence} ({given.source})",
            "root": given.data,
            "cases": data["cases"],
            "patients": data["patients"],
            "skipped": [],
        },
    )
    training, diffusion = content["settings"]["training"], content["settings"]["diffusion"]
    scores = [row["validation"]["loss"] for row in run.log() if "validation" in row]
    card = CARD.format(
        name=given.name,
        data=given.data,
        licence=given.licence,
        source=given.source,
        cases=data["cases"],
        patients=data["patients"],
        parameters=sum(p.numel() for p in network.parameters()) / 1e6,
        size=" x ".join(map(str, run.plan.size)),
        grid=" x ".join(map(str, run.plan.film)),
        shift=f", shift {diffusion['shift']:g}" if diffusion.get("shift") else "",
        limits=given.limits,
        command=given.command,
        images=training["steps"] * training["batch_size"],
        steps=training["steps"],
        batch=training["batch_size"],
        rate=training["learning_rate"],
        schedule=diffusion["schedule"],
        total=diffusion["num_train_timesteps"],
        loss=scores[-1],
    )
    write_atomic(out / "README.md", card)
    print(out)


if __name__ == "__main__":
    main()
