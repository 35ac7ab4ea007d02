"""Segments from attention: what the formulas give where the answer is known."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import entropy

from radiffuse.synthesis.segments import aggregate, segments, symmetric_kl


def halves(rows: int, columns: int, leak: float) -> torch.Tensor:
    """Attention of a grid whose left and right halves attend to themselves, but for a leak."""
    side = (torch.arange(rows * columns) % columns >= columns // 2).float()
    same = (side[:, None] == side[None]).float()
    attention = same * (1 - leak) + (1 - same) * leak
    return attention / attention.sum(1, keepdim=True)


def test_symmetric_kl_is_half_of_both_ways() -> None:
    p, q = (torch.rand(n, 6, generator=torch.Generator().manual_seed(n)).double() for n in (3, 4))
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    found = symmetric_kl(p, q)
    for i in range(3):
        for j in range(4):
            both = (entropy(p[i], q[j]) + entropy(q[j], p[i])) / 2
            assert float(found[i, j]) == pytest.approx(both, rel=1e-9)
    assert float(symmetric_kl(p, p).diagonal().abs().max()) < 1e-12


def test_two_regions_are_two_segments() -> None:
    maps = aggregate([halves(8, 8, 0.001), halves(4, 4, 0.001)], (8, 8))
    assert maps.shape == (64, 8, 8)
    assert torch.allclose(maps.sum((1, 2)), torch.ones(64))
    found = segments(maps)
    assert found.shape == (2, 8, 8)
    label = found.argmax(0)
    assert len(label[:, :4].unique()) == len(label[:, 4:].unique()) == 1
    assert label[0, 0] != label[0, 7]
    assert len(segments(aggregate([halves(8, 8, 0.5)], (8, 8)))) == 1
    # Where all are equally far apart, no map is like another one.
    several = torch.eye(16)
    assert len(segments(aggregate([several], (4, 4)))) == 16


@pytest.mark.parametrize("leak", [0.001, 0.3, 0.45, 0.48])
def test_how_sharp_the_maps_are_does_not_matter(leak: float) -> None:
    noise = torch.rand(64, 64, generator=torch.Generator().manual_seed(1)) * (0.5 - leak) * 0.1
    found = segments(aggregate([halves(8, 8, leak) * (1 + noise)], (8, 8)))
    label = found.argmax(0)
    assert len(found) == 2
    assert len(label[:, :4].unique()) == len(label[:, 4:].unique()) == 1
    assert label[0, 0] != label[0, 7]


def test_finer_maps_weigh_more_and_coarse_queries_cover_their_block() -> None:
    # The finest grid attends to the first place, the coarse one to the last.
    fine, coarse = torch.zeros(16, 16), torch.zeros(4, 4)
    fine[:, 0], coarse[:, 3] = 1.0, 1.0
    total = aggregate([fine, coarse], (4, 4))
    assert float(total[5, 0, 0]) == pytest.approx(4 / 6)
    assert float(total[5, 2:, 2:].sum()) > 0.2
    # Each coarse query looks at its own block alone.
    own = aggregate([torch.eye(4)], (4, 4))
    for place in range(16):
        row, column = divmod(place, 4)
        block = own[place, row // 2 * 2 : row // 2 * 2 + 2, column // 2 * 2 : column // 2 * 2 + 2]
        assert float(block.sum()) > 0.5


def test_a_grid_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="no division"):
        aggregate([torch.eye(9)], (4, 4))
