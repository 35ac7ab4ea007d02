"""``radiffuse convert``: a denoiser that others trained, as a pre-trained run. The mapping is in ``release``."""

from ..release.convert import convert

__all__ = ["convert"]
