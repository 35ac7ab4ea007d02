"""Numbers that are none: NaN and infinity in weights and outputs, which would end as empty masks and gray images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import NotFinite


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first floating tensor that holds NaN or infinity; None: all are finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


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
