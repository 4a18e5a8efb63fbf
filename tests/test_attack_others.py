"""Chance under the same budgets, and other people's attacks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ruac.attack.batch import LabelledBatch
from ruac.attack.others import (
    MixStyle,
    RandomDeformation,
    RandomStyle,
    StyleGeneration,
    UncertainStyle,
    _beta,
    add_noise,
    image_statistics,
)
from ruac.attack.pixels import GradientAscent, PatchAttack
from ruac.features import ImageFeatures, Prompts

B, S = 4, 64
NO_FEATURES = ImageFeatures((torch.zeros(B, 8, 4, 4),), (), torch.zeros(1, 8, 4, 4))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> LabelledBatch:
    """Coloured noise of four brightnesses around a square object; the right quarter does not count."""
    g = seeded(9)
    tint = torch.tensor([60.0, 80.0, 110.0, 130.0])[:, None, None, None]
    images = tint + 40 * torch.rand(B, 3, 1, 1, generator=g) + 80 * torch.rand(B, 3, S, S, generator=g)
    masks = torch.zeros(B, 1, S, S)
    masks[:, :, 20:40, 20:40] = 1
    ignore = torch.zeros(B, 1, S, S)
    ignore[..., 48:] = 1
    return LabelledBatch(images, masks, ignore, Prompts.none(B, 1), torch.ones(B, 1, dtype=torch.bool))


def test_noise_has_the_rms_asked_for_in_every_image(batch):
    wanted = torch.tensor([0.0, 1.0, 8.0, 70.0])
    batch.images[2] = 255.0  # where half of it could only be cut off
    there = add_noise(batch, wanted, seeded())
    torch.testing.assert_close(there.magnitudes["rms"], wanted, atol=1e-3, rtol=1e-4)
    assert (there.magnitudes["peak"] <= 1.02 * 3**0.5 * wanted + 1e-4).all()
    assert torch.equal(there.images[0], batch.images[0])


def test_random_styles_fill_the_learnt_ones_budget_evenly(batch):
    old = image_statistics(batch)
    styles = []
    for seed in range(60):
        there = RandomStyle(seeded(seed), epsilon=0.3)(batch, NO_FEATURES)
        assert there.styles is not None
        styles.append(there.styles[:, 0])
    styles = torch.stack(styles)  # of the background
    limit = 0.3 + 0.2 * old[:, 0, :3].abs()
    assert (styles[..., :3].abs() <= limit + 0.01).all()
    assert (styles[..., :3].abs() / limit).amax(0).min() > 0.6
    assert styles[..., 3:].min() >= 0.5
    assert styles[..., 3:].max() <= 1.5
    assert styles[..., 3:].mean() == pytest.approx(1, abs=0.05)


def test_random_deformations_are_as_large_as_allowed_and_smooth(batch):
    features = ImageFeatures((torch.zeros(B, 8, 16, 16),), (), torch.zeros(1, 8, 16, 16))
    there = RandomDeformation(seeded(), epsilon=0.15)(batch, features)
    bound = 2 * 0.15 * S / 16
    assert there.flow is not None
    assert 0.25 * bound < there.flow.abs().max() <= bound
    inside = there.flow[:, :, 24:36, 24:36]
    steps = (inside[..., 1:] - inside[..., :-1]).abs().max()
    assert steps < bound / 16  # a draw every 16 pixels


def test_mixstyle_gives_images_statistics_between_their_own_and_anothers(batch):
    old = image_statistics(batch)
    there = MixStyle(seeded(1), alpha=5.0)(batch, NO_FEATURES)
    new = image_statistics(there)
    order = torch.randperm(B, generator=seeded(1))
    assert (order != torch.arange(B)).any()
    low, high = torch.minimum(old, old[order]), torch.maximum(old, old[order])
    assert (new >= low - 1e-3).all()
    assert (new <= high + 1e-3).all()
    assert (new - old).abs().max() > 0.1


def test_a_single_image_has_nothing_to_mix_with(batch):
    alone = LabelledBatch(batch.images[:1], batch.masks[:1], batch.ignore[:1], Prompts.none(1, 1), batch.present[:1])
    for attack in (MixStyle(seeded()), UncertainStyle(seeded())):
        assert torch.equal(attack(alone, NO_FEATURES).images, alone.images)


def test_beta_draws_have_the_moments_of_the_distribution():
    for alpha in (0.1, 1.0):
        drawn = _beta((200_000,), alpha, seeded(), torch.zeros(()))
        assert drawn.mean().item() == pytest.approx(0.5, abs=0.005)
        assert drawn.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)
        assert drawn.isfinite().all()


def test_uncertain_styles_vary_as_the_batch_does(batch):
    old = image_statistics(batch)
    drawn = torch.stack([image_statistics(UncertainStyle(seeded(i))(batch, NO_FEATURES)) for i in range(200)])
    spread = old.var(0, correction=0).sqrt()[0, :3]
    for b in range(B):
        torch.testing.assert_close((drawn[:, b, 0, :3] - old[b, 0, :3]).std(0), spread, rtol=0.2, atol=0)


def test_generated_styles_owe_nothing_to_the_image(batch):
    new = image_statistics(StyleGeneration(seeded(), mean=0.5)(batch, NO_FEATURES))
    assert new[..., :3].abs().max() <= 0.55
    assert new[..., 3:].min() > 0.45
    assert new[..., :3].std() > 0.15


def test_the_patch_lies_beside_the_object_and_never_on_it(batch):
    attack = PatchAttack(seeded(), share=0.02)
    for _ in range(20):
        there = attack(batch, NO_FEATURES)
        changed = (there.images != batch.images).any(1)
        assert not (changed & (batch.masks[:, 0] > 0)).any()
        assert (changed.sum((1, 2)) <= 0.02 * S * S).all()
        near = F.max_pool2d(batch.masks, 2 * 10 + 1, stride=1, padding=10)[:, 0] > 0
        assert (changed & near).any((1, 2)).all()
        assert (changed & (batch.ignore[:, 0] == 0)).any((1, 2)).all()


def test_the_patch_is_one_picture_at_full_contrast(batch):
    attack = PatchAttack(seeded(), share=0.05, resolution=8)
    with torch.no_grad():
        attack.logits.copy_(torch.tensor([50.0, -50.0])[torch.arange(8) % 2])  # stripes
    there = attack(batch, NO_FEATURES)
    assert there.images.max() > 250
    assert there.images.min() < 5


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 1, 3))


def test_gradient_ascent_raises_its_objective_within_the_budget(batch, network):
    def objective(batch: LabelledBatch) -> torch.Tensor:
        return network(batch.images / 255).sum((1, 2, 3))

    with torch.no_grad():
        there = GradientAscent(objective, seeded(), budget=6.0, step=2.0, steps=4)(batch, NO_FEATURES)
        noisy = add_noise(batch, 6.0, seeded())
        clean, attacked, chance = (objective(b) for b in (batch, there, noisy))
    assert (attacked > clean).all()
    assert (attacked - clean > 5 * (chance - clean).abs()).all()
    assert (there.images - batch.images).abs().max() <= 6 + 1e-4
    assert not there.images.requires_grad


def test_gradient_ascent_leaves_the_model_as_it_found_it(batch, network):
    network[0].weight.requires_grad_(False)
    network[2].weight.grad = torch.full_like(network[2].weight, 7.0)
    state = [p.requires_grad for p in network.parameters()]
    GradientAscent(lambda b: network(b.images).sum(), seeded(), steps=2)(batch, NO_FEATURES)
    assert [p.requires_grad for p in network.parameters()] == state
    assert network[0].weight.grad is None
    assert (network[2].weight.grad == 7).all()
    assert not batch.images.requires_grad


def test_gradient_ascent_attacks_each_image_for_itself(batch, network):
    def objective(batch: LabelledBatch) -> torch.Tensor:
        return network(batch.images / 255).square().sum((1, 2, 3))

    together = GradientAscent(objective, seeded(), budget=6.0, steps=3)(batch, NO_FEATURES)
    first = LabelledBatch(batch.images[:1], batch.masks[:1], batch.ignore[:1], Prompts.none(1, 1), batch.present[:1])
    alone = GradientAscent(objective, seeded(), budget=6.0, steps=3)(first, NO_FEATURES)
    assert (alone.images - together.images[:1]).abs().mean() < 0.05
