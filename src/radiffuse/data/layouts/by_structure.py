"""Label maps with a folder per structure: ``masks/left lung/1.png`` and ``masks/right lung/1.png`` of ``1.png``.

So is the Montgomery set of chest films (Jaeger et al. 2014, doi 10.3978/j.issn.2223-4292.2014.11.20).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...config import Data
from ...errors import InputError
from ..issues import Issues, some
from .listing import key, walk

TITLES = {"leftMask": "left lung", "rightMask": "right lung"}
"""What folders are called otherwise than their structure."""


@dataclass(frozen=True)
class Structures:
    """Masks of one structure each.

    Attributes:
        labels: The folder of all masks.
        names: Its folders, one per structure, in their order.
        masks: By name of the image, its mask in each folder that has one.
    """

    labels: Path
    names: tuple[str, ...] = ()
    masks: dict[str, dict[str, Path]] = field(default_factory=dict)

    def of(self, name: str, issues: Issues) -> tuple[Path, ...]:
        """The masks of an image in the order of ``names``; () and an error where one is missing."""
        found = self.masks[name]
        if lacking := [folder for folder in self.names if folder not in found]:
            remedy = "Add them, empty if a structure is absent, or leave the image out"
            places = some([f"{folder}/{name}" for folder in lacking])
            issues.error(self.labels, f"lacks the masks {places}", remedy)
            return ()
        return tuple(found[folder] for folder in self.names)


def masks_by_structure(images: Path, labels: Path) -> Structures:
    """The masks in the folders of ``labels``; none where it is no such folder.

    It is one where at least two folders, and nothing beside them, hold masks named like the images, and most
    masked images have one in each. A file of the same name as another in its folder is passed over.
    """
    by_image: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in walk(labels).images:
        folder, _, name = key(path).partition("/")
        if not name:
            return Structures(labels)
        by_image[name].setdefault(folder, labels / path)
    names = tuple(sorted({folder for found in by_image.values() for folder in found}))
    known = {key(path) for path in walk(images).images}
    whole = sum(name in known and len(found) == len(names) for name, found in by_image.items())
    if len(names) < 2 or 2 * whole <= len(by_image):
        return Structures(labels)
    return Structures(labels, names, dict(by_image))


def structure_names(root: Path, parts: Sequence[Structures], data: Data) -> tuple[str, ...]:
    """The classes of all parts, background first; () where none has folders of structures.

    Raises:
        InputError: The parts have different structures, or ``label_values`` is given.
    """
    found = {part.names: part.labels for part in parts}
    if not any(found):
        return ()
    if len(found) > 1:
        (names, labels), (others, beside) = list(found.items())[:2]
        written = " and ".join(", ".join(each) or "no folders" for each in (names, others))
        problem = f"and {beside} hold different structures ({written})"
        raise InputError(labels, problem, "Give every part the same folders of masks")
    if data.label_values is not None:
        remedy = (
            "Leave --reader.label-values out; --reader.class-names joins structures of one name"
        )
        raise InputError(root, "has a folder for each class, without values to be named", remedy)
    (names,) = found
    return ("background", *(TITLES.get(name, name) for name in names))
