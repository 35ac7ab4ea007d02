"""A copy of a data set of films at a small size, for programs that decide on sizes themselves.

``python benchmarks/small_films.py ../shared/data/cxr-lungs build/lungs-64 --side 64``: images are averaged down, labels
take the nearest pixel; other files of the folder are copied.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image


def main() -> None:
    """Write the copy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=64)
    given = parser.parse_args()
    size = (given.side, given.side)
    for kind, way in (("images", Image.Resampling.BOX), ("labels", Image.Resampling.NEAREST)):
        (given.out / kind).mkdir(parents=True, exist_ok=True)
        for path in sorted((given.source / kind).iterdir()):
            with Image.open(path) as film:
                film.convert("L").resize(size, way).save(given.out / kind / f"{path.stem}.png")
    for path in given.source.iterdir():
        if path.is_file():
            shutil.copy(path, given.out)


if __name__ == "__main__":
    main()
