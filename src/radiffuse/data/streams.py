"""All streams of random numbers. A draw is given by its stream, the seed, and its place in the stream.

A place is a step, an epoch, a position or a number, never a process: draws depend neither on the number
of processes nor on interruptions. Results depend on the numbers below; never reuse one.
"""

from __future__ import annotations

from enum import IntEnum, unique

import numpy as np
import torch


@unique
class Stream(IntEnum):
    """What is drawn; the comment says what the place is."""

    ORDER = 0  # order of the cases: epoch
    CASE = 1  # patch and augmentation of a case: position in all batches
    SPLIT = 2  # parts of a data set
    BUDGET = 3  # order of the training pool: draw
    STEP = 4  # noise, timesteps and whatever else a loss draws: step
    LIMIT = 5  # part of a data set that is used
    HELD_OUT = 6  # patients held out of unlabelled images
    PAIR_ORDER = 7  # order of the cases of crop pairs: epoch
    PAIR = 8  # crops and changes of a pair: position
    VIEW_ORDER = 9  # order of the cases of DINO's views: epoch; and the corruption of an image, by a seed of its own
    VIEW = 10  # DINO's views of a case: position
    IMAGE = 12  # a synthetic image: strategy, number
    REFERENCE = 13  # order of the references of synthetic images
    MEASURES = 20  # bootstrap of measures between image sets
    HALVES = 21  # halving of the patients: number
    FLOOR = 22  # images of two halves that are compared: number of the halving
    SYNTHETIC = 24  # choice of synthetic images: class
    DROPOUT = 25  # units that a process drops: step, rank
    VALIDATION = 26  # patches that are validated on: case, number
    POOL_ORDER = 27  # order of the unlabelled cases: epoch
    POOL = 28  # patch and changes of an unlabelled case: position in all batches of the pool
    FOLDS = 30  # folds of the labelled patients
    VIEWER = 31  # an image of the viewer: number
    CLUSTERS = (
        34  # places of a film that are clustered: number of the film; starts of k-means: start
    )

    def rng(self, seed: int, *place: int) -> np.random.Generator:
        """Numpy's generator at a place of the stream."""
        return np.random.default_rng((seed, int(self), *place))

    def torch(self, seed: int, *place: int, device: torch.device | str = "cpu") -> torch.Generator:
        """Torch's generator at a place of the stream."""
        return torch.Generator(device).manual_seed(self.torch_seed(seed, *place))

    def torch_seed(self, seed: int, *place: int) -> int:
        """Torch's seed at a place of the stream."""
        return torch_seed(seed, int(self), *place)


def torch_seed(*words: int) -> int:
    """A seed of 63 bits, all of which vary: torch on the CPU uses the low 32 alone."""
    entropy = np.random.SeedSequence(words).generate_state(2, np.uint32)
    return int(entropy[0]) << 31 ^ int(entropy[1])


CORRUPTION = Stream.VIEW_ORDER
"""The corruption of an image shares the number of DINO's order for historical reasons."""
