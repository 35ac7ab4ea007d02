"""What a network answers must be finite: NaN and infinity would end as empty masks and gray images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import NotFinite


def verify_finite(values: Tensor, where: Path | str, network: str) -> Tensor:
    """The values of a network, which must be finite.

    Args:
        values: Any shape.
        where: What the network was given, for the message.
        network: Whose values they are, for the message.

    Raises:
        NotFinite: NaN or infinity is among them.
    """
    if bool(torch.isfinite(values).all()):
        return values
    problem = f"{network} answers with numbers that are not finite"
    remedy = "Look at the image, set --machine.precision 32-true, or use another run"
    raise NotFinite(where, problem, remedy)
