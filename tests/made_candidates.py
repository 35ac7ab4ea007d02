"""Candidates of an automatic choice for tests: planned by nobody, with the steps and seconds that are given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from radiffuse.automatic.candidates import Candidate
from radiffuse.config import Fit
from radiffuse.data.plan import Plan

PLAN = Plan(2, ("image",), ("background", "a"), (128, 128))
GIVEN = Fit(unlabelled=("pool",))
"""With a pool."""


def make_candidate(
    proposal: str = "imagenet", *, pool: bool = False, steps: int = 100, **changes: Any
) -> Candidate:
    """100 steps in 200 seconds, without the pool or with it."""
    settings = Fit(method="imagenet", training=replace(Fit().training, steps=steps, batch_size=8))
    values = {"settings": settings, "why": "", "plan": PLAN, "seconds": 200.0}
    made = Candidate(proposal, **(values | changes))
    return made.with_pool(GIVEN) if pool else made
