"""What encoder, autoencoder and latent denoiser learn, each loss against a case worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from radiffuse.config import AutoencoderSettings, Diffusion, DinoSettings, LatentNetwork, Training
from radiffuse.data.batches import Batch
from radiffuse.nets.encoder import Encoder
from radiffuse.synthesis.alignment import AlignedDenoiser, misalignment, without_projector
from radiffuse.synthesis.autoencoder import Autoencoding, estimate_scale
from radiffuse.synthesis.denoiser import LatentBatch, LatentDenoising, build_denoiser
from radiffuse.synthesis.dino import DinoLearning, DinoNetwork, koleo
from radiffuse.synthesis.views import Views, _crop
from radiffuse.train.random import StepRandom


def random(total: int) -> StepRandom:
    return StepRandom(0, 0, total=total, start=0, stop=total, device=torch.device("cpu"))


class Answers(nn.Module):
    """Gives the same answer to everything, and records what it was given."""

    def __init__(self, *answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.given: list[tuple[object, ...]] = []

    def forward(self, *given: object) -> tuple[Tensor, ...]:
        self.given.append(given)
        return self.answer


# ------------------------------------------------------------------------------------------------- encoder


def test_the_loss_of_dino_by_hand() -> None:
    """Two answers, three views of which the first two are large, temperatures of 1 and 1/2."""
    student = torch.tensor([[[4.0, 1.0], [1.0, 1.0], [1.0, 9.0]]]).log()  # .8 .2, .5 .5, .1 .9
    teacher = 0.5 * torch.tensor([[[3.0, 1.0], [1.0, 1.0]]]).log()  # .75 .25, .5 .5
    settings = DinoSettings(
        temperature=1.0, teacher_temperature=0.5, teacher_warmup=0.0, spread=0.0
    )
    views = Views(torch.zeros(1, 2, 1, 4, 4), None, ("a",), torch.zeros(1, 1, 1, 2, 2))
    network = Answers(student, teacher, torch.ones(1, 2, 3))
    loss = DinoLearning(settings, 4, 1).loss(network, views, random(1))
    log = math.log
    terms = [
        -(0.75 * log(0.5) + 0.25 * log(0.5)),  # the first large view's target, the second's answer
        -(0.75 * log(0.1) + 0.25 * log(0.9)),  # the first's target, the small view's answer
        -(0.5 * log(0.8) + 0.5 * log(0.2)),
        -(0.5 * log(0.1) + 0.5 * log(0.9)),
    ]
    assert float(loss.value) == pytest.approx(sum(terms) / 4)
    apart = -(0.75 * log(0.75) + 0.25 * log(0.25) + log(0.5)) / 2
    together = -(0.625 * log(0.625) + 0.375 * log(0.375))
    assert loss.terms["teacher_entropy"] == pytest.approx(apart)
    assert loss.terms["mean_entropy"] == pytest.approx(together)


def test_crowding_is_the_log_distance_to_the_nearest_other_direction() -> None:
    """Directions at 0, 90 and 120 degrees: distances of sqrt 2, and twice 2 sin 15 degrees. Lengths do not count."""
    angles = torch.tensor([0.0, math.pi / 2, 2 * math.pi / 3])
    lengths = torch.tensor([1.0, 5.0, 0.2])
    tokens = (lengths * torch.stack([angles.cos(), angles.sin()])).T[:, None]
    near = 2 * math.sin(math.pi / 12)
    expected = -(math.log(math.sqrt(2)) + 2 * math.log(near)) / 3
    assert float(koleo(tokens)) == pytest.approx(expected, rel=1e-5)
    assert float(koleo(tokens.expand(3, 4, 2))) == pytest.approx(expected, rel=1e-5)
    assert float(koleo(tokens[:1])) == 0


def test_the_teacher_follows_by_a_momentum_that_rises_to_one() -> None:
    """From .9 by half a cosine over four steps: a tenth of the way, then .1 (1 + cos 45 degrees) / 2 of it."""
    settings = DinoSettings(
        width=64, depth=1, patch=4, prototypes=16, momentum=0.9, training=Training(steps=4)
    )
    network = DinoNetwork(settings, 16, 1)
    with torch.no_grad():
        for p in network.student.parameters():
            p.add_(1.0)
    place = network.teacher.prototypes
    start = place.clone()
    large, small = torch.randn(2, 2, 1, 16, 16), torch.zeros(2, 0, 1, 8, 8)
    moved = []
    for _ in range(6):
        network(large, small, 2)
        moved.append(float((place - start).mean()))
    second = 0.1 + 0.9 * 0.1 * (1 + math.cos(math.pi / 4)) / 2
    assert moved[:3] == pytest.approx([0.0, 0.1, second], abs=1e-5)
    assert moved[5] == pytest.approx(moved[4], abs=1e-6)  # at the end it stands still


def test_an_encoder_sees_images_from_0_to_1_less_its_mean_in_units_of_its_spread() -> None:
    class Backbone(nn.Module):
        config = SimpleNamespace(num_channels=3, hidden_size=2)
        seen = torch.empty(0)

        def forward(self, pixel_values: Tensor) -> SimpleNamespace:
            self.seen = pixel_values
            return SimpleNamespace(last_hidden_state=torch.tensor([[[3.0, 4.0], [9.0, 9.0]]]))

    backbone = Backbone()
    encoder = Encoder(backbone, 4, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    image = torch.full((1, 1, 4, 4), 0.5)  # three quarters of the way from -1 to 1
    assert encoder(image)[0].tolist() == pytest.approx([0.6, 0.8])  # the first token, of length 1
    assert backbone.seen.shape == (1, 3, 4, 4)
    assert backbone.seen[0].mean((1, 2)).tolist() == pytest.approx([0.5, 2.0, 0.375])


def test_views_have_the_area_and_the_shape_they_are_asked_for() -> None:
    areas = []
    for seed in range(500):
        (width, _, x), (_, height, y) = _crop((0.2, 0.5), np.random.default_rng(seed))
        areas.append(width * height)
        assert 3 / 4 - 1e-9 <= width / height <= 4 / 3 + 1e-9
        assert abs(x) + width <= 1 + 1e-9
        assert abs(y) + height <= 1 + 1e-9
    assert 0.2 <= min(areas) < 0.21
    assert 0.49 < max(areas) <= 0.5
    assert np.mean(areas) == pytest.approx(0.35, abs=0.02)


# --------------------------------------------------------------------------------------------- autoencoder


def test_the_loss_of_the_autoencoder_by_hand() -> None:
    """Black images come back as a plane that rises by .1 per row and .3 per column."""
    plane = 0.1 * torch.arange(4.0)[:, None] + 0.3 * torch.arange(4.0)
    mean, log_variance = torch.full((1, 2, 2, 2), 2.0), torch.full((1, 2, 2, 2), math.log(0.25))
    settings = AutoencoderSettings(channels=(8, 16), latent_channels=2, kl=0.5, gradient=2.0)
    network = Answers(plane[None, None], mean, log_variance)
    task = Autoencoding(settings, 4, 1, None)
    loss = task.loss(network, Batch(torch.zeros(1, 1, 4, 4), None, ("a",)), random(1))
    kl = float(kl_divergence(Normal(2.0, 0.5), Normal(0.0, 1.0)))
    assert loss.terms["kl"] == pytest.approx(kl)
    assert loss.terms["loss_edges"] == pytest.approx(0.1 + 0.3)
    assert loss.terms["loss_pixels"] == pytest.approx(1.5 * 0.1 + 1.5 * 0.3)
    assert float(loss.value) == pytest.approx(0.6 + 2.0 * 0.4 + 0.5 * kl)


class Doubling(nn.Module):
    """Tokens of patches of one pixel: the pixel, and twice its square; the global token comes first."""

    config = SimpleNamespace(num_channels=1, hidden_size=2, patch_size=1)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        pixels = pixel_values.flatten(1)
        tokens = torch.stack([pixels, 2 * pixels.square()], dim=2)
        return SimpleNamespace(last_hidden_state=torch.cat([tokens[:, :1], tokens], dim=1))


def test_the_perceptual_term_and_its_gradient_by_hand() -> None:
    """Tokens of the pixel 1/2 point along (1, 1), those of 1 along (1, 2); lengths do not count."""
    encoder = Encoder(Doubling(), 2, (0.0,), (1.0,))
    pixel = torch.tensor([0.5, 0.5, 1.0, 1.0]).reshape(1, 1, 2, 2)
    images, output = 2 * pixel - 1, (2 * torch.full_like(pixel, 0.5) - 1).requires_grad_()
    cosine = 3 / math.sqrt(2 * 5)  # of (1, 1) and (1, 2)
    settings = AutoencoderSettings(channels=(8, 16), latent_channels=2, perceptual=10.0)
    mean = torch.zeros(1, 2, 1, 1)
    found = []
    for weight in (settings, replace(settings, perceptual=0.0)):
        task = Autoencoding(weight, 2, 1, None, encoder)
        network = Answers(output, mean, mean)
        found.append(task.loss(network, Batch(images, None, ("a",)), random(1)))
    assert found[0].terms["loss_perceptual"] == pytest.approx((2 - 2 * cosine) / 2, rel=1e-5)
    gain = float((found[0].value - found[1].value).detach())
    assert gain == pytest.approx(10 * (1 - cosine), rel=1e-4)
    (found[0].value - found[1].value).backward()
    assert output.grad is not None
    # At equal tokens the error has its least value; elsewhere a brighter pixel turns its token towards that of 1.
    assert output.grad.flatten()[:2].tolist() == pytest.approx([0, 0], abs=1e-5)
    assert (output.grad.flatten()[2:] < -0.1).all()


def test_scaled_latents_have_a_standard_deviation_of_1() -> None:
    """Means of 3 and -3, each with a spread of 4: drawn latents have a variance of 9 + 16."""
    signs = torch.tensor([3.0, -3.0]).repeat(500)[:, None, None, None]
    moments = torch.cat([signs, torch.full_like(signs, 4.0)], dim=1)
    vae = SimpleNamespace(register_to_config=lambda scaling_factor: None)
    network = SimpleNamespace(vae=vae, encode=lambda images: images)
    scale = estimate_scale(network, moments[:256])  # type: ignore[arg-type]
    assert scale == pytest.approx(1 / 5, rel=2e-3)


# ---------------------------------------------------------------------------------------------- denoiser


def test_latents_are_drawn_and_embeddings_are_left_out_as_often_as_asked() -> None:
    """Asked for the latent and answering 0: the error is that of the draw, mean^2 + spread^2."""

    class Nothing(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            self.condition = condition
            return torch.zeros_like(x_t)

    process = Diffusion(prediction_type="x_start", timestep_sampling="uniform")
    task = LatentDenoising(Nothing, process, null=0.25)
    latents = torch.cat([torch.full((400, 1, 4, 4), 2.0), torch.full((400, 1, 4, 4), 3.0)], dim=1)
    batch = LatentBatch(latents, None, ("x",) * 400, torch.ones(400, 2))
    network = Nothing()
    loss = float(task.loss(network, batch, random(400)).value)
    assert loss == pytest.approx(2**2 + 3**2, rel=0.06)
    untold = (network.condition == 0).all(1)
    assert bool(((network.condition == 1).all(1) | untold).all())
    assert float(untold.float().mean()) == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 400))


def test_misalignment_and_its_gradient_by_hand() -> None:
    """One place of the same direction, one at a right angle: the second is pulled towards its token, by half."""
    feature = torch.tensor([[3.0, 4.0], [2.0, 0.0]]).T.reshape(1, 2, 1, 2).requires_grad_()
    tokens = torch.tensor([[6.0, 8.0], [0.0, 5.0]]).T.reshape(1, 2, 1, 2)
    apart = misalignment(feature, tokens)
    assert apart.tolist() == pytest.approx([0.5])
    (gradient,) = torch.autograd.grad(apart.sum(), feature)
    # d(1 - cos)/df = -(token direction - cos feature direction) / |f|, over two places.
    expected = torch.tensor([[0.0, 0.0], [0.0, -1 / 2 / 2]]).T.reshape(1, 2, 1, 2)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)
    wide = torch.tensor([3.0, 4.0])[None, :, None, None].expand(1, 2, 4, 4)
    assert misalignment(wide, tokens[..., :1]).tolist() == pytest.approx([0.0], abs=1e-6)


def test_alignment_is_added_to_the_error_by_its_weight() -> None:
    """An error of 4, and features opposite to their tokens: 4 + .5 x 2."""
    process = Diffusion(prediction_type="x_start")
    network = Answers(torch.zeros(3, 1, 4, 4), -torch.ones(3, 2, 2, 2))
    latents = torch.cat([torch.full((3, 1, 4, 4), 2.0), torch.zeros(3, 1, 4, 4)], dim=1)
    batch = LatentBatch(latents, None, ("x",) * 3, torch.ones(3, 2), torch.ones(3, 2, 2, 2))
    loss = LatentDenoising(network.eval, process, null=0.0, alignment=0.5).loss(
        network, batch, random(3)
    )
    assert float(loss.value) == pytest.approx(5.0)
    assert loss.terms["misalignment"] == pytest.approx(2.0)


def test_alignment_teaches_the_way_down_to_its_level_and_the_projector_is_dropped() -> None:
    """Tokens on a grid of 4, latents on one of 8: the second level."""
    settings = LatentNetwork(channels=(16, 32, 32), heads=2, context=16)
    inner = build_denoiser(settings, Diffusion(), latent_channels=2, size=8, width=8)
    network = AlignedDenoiser(inner, 8, (6, 4, 4))
    x, t, embedding = torch.randn(2, 2, 8, 8), torch.tensor([3, 500]), torch.randn(2, 8)
    output, feature = network(x, t, embedding)
    torch.testing.assert_close(output, inner(x, t, embedding))
    assert feature.shape == (2, 6, 4, 4)
    misalignment(feature, torch.randn(2, 6, 4, 4)).sum().backward()
    taught = {name for name, p in inner.unet.named_parameters() if p.grad is not None}
    assert any(name.startswith("down_blocks.1.attentions") for name in taught)
    assert not any(name.startswith(("down_blocks.2", "mid_block", "up_blocks")) for name in taught)
    assert without_projector(network) is without_projector(inner) is inner
