"""What every attack must do: stay within its budget, keep images apart, learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ruac.attack import ATTACKS, AttackedBatch, AttackSettings, LabelledBatch, make_attack
from ruac.attack.batch import Slope
from ruac.attack.style import MIN_STD, statistics_of
from ruac.data.folder import FolderSet, object_ids
from ruac.data.scenes import Pool, letterbox
from ruac.features import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, ImageFeatures, Prompts
from ruac.losses import likelihood
from ruac.model import RuacModel

CHANNELS = 16
LEARNED = ("style", "deformation", "cooperative")
RANDOM = ("noise", "random-style", "random-deformation", "mixstyle", "dsu", "stylegen", "patch", "pgd")


def make_batch(images: int, objects: int, side: int, seed: int, stride: int = 16) -> tuple[LabelledBatch, ImageFeatures]:
    """Noise with rectangles: whole, touching borders, overlapping, of a few pixels, empty; a point and a box each."""
    g = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([0, 3, 8, side // 2, side])[torch.randint(0, 5, (images, objects, 2), generator=g)]
    starts = (torch.rand(images, objects, 2, generator=g) * side).long() - side // 4
    ruler = torch.arange(side)
    inside = (ruler >= starts[..., None]) & (ruler < (starts + sizes)[..., None])  # (B, P, 2, S)
    masks = (inside[:, :, 0, None, :] & inside[:, :, 1, :, None]).float()
    ignore = torch.zeros(images, 1, side, side)
    ignore[: (images + 1) // 2, :, side - side // 8 :] = 1
    points = side * torch.rand(images, objects, 4, 2, generator=g) - 0.5
    labels = torch.tensor([FOREGROUND, BACKGROUND, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]).expand(images, objects, 4)
    pictures = 255 * torch.rand(images, 3, side, side, generator=g) ** 2
    present = torch.rand(images, objects, generator=g) > 0.2
    cells = max(2, side // stride)
    features = torch.randn(images, CHANNELS, cells, cells, generator=g)
    batch = LabelledBatch(pictures, masks, ignore, Prompts(points, labels), present)
    return batch, ImageFeatures((features,), (), torch.zeros(1, CHANNELS, cells, cells))


def sloped(batch: LabelledBatch, seed: int = 0) -> LabelledBatch:
    """With some direction in which the loss rises."""
    g = torch.Generator().manual_seed(seed)
    slopes = [torch.randn(values.shape, generator=g) for values in (batch.images, batch.masks)]
    return replace(batch, slope=Slope(*slopes))


def settings_for(seed: int = 0, **changes: float) -> AttackSettings:
    """PGD climbs towards bright pictures."""
    base = AttackSettings(CHANNELS, torch.Generator().manual_seed(seed), objective=lambda b: b.images.square().sum((1, 2, 3)))
    return replace(base, **changes)


def awake(name: str, seed: int = 0, **changes: float):
    """An attack that has learnt something, whatever it is, and does not drop out."""
    torch.manual_seed(seed)
    attack = make_attack(name, settings_for(seed, **changes))
    if isinstance(attack, nn.Module):
        attack.eval()
        with torch.no_grad():
            for parameter in attack.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return attack


def take(batch: LabelledBatch, images: slice, objects: slice) -> LabelledBatch:
    prompts = Prompts(batch.prompts.points[images, objects], batch.prompts.labels[images, objects])
    return LabelledBatch(
        batch.images[images], batch.masks[images, objects], batch.ignore[images], prompts, batch.present[images, objects]
    )


def assert_same(found: AttackedBatch, expected: AttackedBatch) -> None:
    # sums of another shape are added up in another order; grid_sample's coordinates are good to 1e-5 pixels
    torch.testing.assert_close(found.images, expected.images, atol=0.02, rtol=0)
    torch.testing.assert_close(found.masks, expected.masks, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.prompts.points, expected.prompts.points, atol=1e-4, rtol=0)
    assert torch.equal(found.ignore, expected.ignore)
    for name, value in expected.magnitudes.items():
        torch.testing.assert_close(found.magnitudes[name], value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    images=st.integers(1, 3),
    objects=st.sampled_from([0, 1, 2, 5, 60]),
    side=st.sampled_from([32, 48, 64]),
    epsilon=st.sampled_from([1e-4, 0.05, 0.15, 0.3, 2.0]),
)
def test_no_attack_exceeds_its_budget(name, seed, images, objects, side, epsilon):
    batch, features = make_batch(images, objects, side, seed)
    batch = sloped(batch, seed) if seed % 2 else batch
    attack = awake(name, seed, style_epsilon=epsilon, deformation_epsilon=epsilon, rms=10 * epsilon, pgd_budget=20 * epsilon)
    with torch.no_grad():
        there = attack(batch, features)
    assert there.images.min() >= 0
    assert there.images.max() <= 255
    assert ((there.masks >= 0) & (there.masks <= 1)).all()
    assert set(there.ignore.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(there.prompts.labels, batch.prompts.labels)
    assert torch.equal(there.present, batch.present)
    assert all(value.shape == (images,) and value.isfinite().all() for value in there.magnitudes.values())
    assert there.magnitudes["folded"].max() <= 1
    stride = side / features.levels[-1].shape[-1]
    if there.flow is not None:
        assert there.flow.abs().max() <= 2 * epsilon * stride + 1e-4
        assert ((there.prompts.points - batch.prompts.points).abs() <= 2 * epsilon * stride + 1e-3).all()
        torch.testing.assert_close(there.magnitudes["max_displacement"], there.flow.norm(dim=1).amax((1, 2)))
    else:
        assert torch.equal(there.prompts.points, batch.prompts.points)
        assert torch.equal(there.masks, batch.masks)
    if name in (*LEARNED, "random-style") and there.styles is not None:
        old = statistics_of(batch)
        shift, scale = there.styles.chunk(2, -1)
        assert there.styles.shape == (images, objects + 1, 6)
        assert (shift.abs() <= min(0.2, 200 * epsilon) * old[..., :3].abs() + epsilon + 1e-4).all()
        assert ((scale - 1).abs() <= min(0.5, 500 * epsilon) + 1e-4).all()
        assert (scale * old[..., 3:] >= MIN_STD - 1e-4).all()
        absent = there.styles[:, 1:][~batch.present]
        assert torch.equal(absent, torch.tensor([0.0, 0, 0, 1, 1, 1]).expand_as(absent))
    if name == "pgd":
        assert there.magnitudes["peak"].max() <= 20 * epsilon + 1e-4
    if name == "noise":
        assert there.magnitudes["rms"].max() <= 10 * epsilon + 1e-4


@pytest.mark.parametrize("name", [*LEARNED, "pgd"])
def test_one_image_alone_is_attacked_as_in_its_batch(name):
    """The first one, where there is chance: all others draw for the whole batch at once."""
    batch, features = make_batch(3, 3, 64, seed=5)
    with torch.no_grad():
        together, alone = (
            awake(name)(batch, features),
            awake(name)(take(batch, slice(0, 1), slice(None)), features.part(slice(0, 1))),
        )
    torch.testing.assert_close(alone.images, together.images[:1], atol=0.02, rtol=0)
    torch.testing.assert_close(alone.masks, together.masks[:1], atol=1e-4, rtol=0)
    torch.testing.assert_close(alone.prompts.points, together.prompts.points[:1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ATTACKS)
def test_objects_that_fill_the_batch_up_change_nothing(name):
    batch, features = make_batch(2, 5, 64, seed=6)
    present = torch.tensor([True, True, True, False, False]).expand(2, 5)
    batch = replace(batch, present=present)
    with torch.no_grad():
        padded, plain = awake(name)(batch, features), awake(name)(take(batch, slice(None), slice(3)), features)
    padded = replace(
        padded,
        masks=padded.masks[:, :3],
        prompts=Prompts(padded.prompts.points[:, :3], padded.prompts.labels[:, :3]),
        present=padded.present[:, :3],
    )
    assert_same(padded, plain)


@pytest.mark.parametrize("name", RANDOM)
def test_random_attacks_are_functions_of_the_seed(name):
    batch, features = make_batch(3, 2, 64, seed=8)
    first, again, other = (make_attack(name, settings_for(seed))(batch, features) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.prompts.points, again.prompts.points)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("name", [*LEARNED, "patch"])
def test_gradients_reach_every_parameter_of_an_attacker_and_nothing_else(name):
    batch, features = make_batch(2, 3, 64, seed=9)
    # one big object each, so that there is something to bend
    batch.masks[:, 0, 10:50, 10:50] = 1
    level = features.levels[0].requires_grad_()
    torch.manual_seed(0)
    attack = make_attack(name, settings_for())
    assert isinstance(attack, nn.Module)
    there = attack(sloped(batch), features)
    assert there.slope is None  # it was that of the clean pictures
    weight = torch.randn(there.images.shape, generator=torch.Generator().manual_seed(0))
    (there.images * weight).mean().backward()
    for label, parameter in attack.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.abs().sum() > 0, label
    assert level.grad is None
    assert not any(value.requires_grad for value in there.magnitudes.values())


@pytest.mark.parametrize("name", LEARNED)
def test_an_attacker_that_follows_the_slope_goes_uphill(name):
    batch, features = make_batch(2, 2, 64, seed=13)
    batch.masks[:, 0, 10:50, 10:50] = 1
    smooth = torch.nn.functional.avg_pool2d(batch.images, 9, 1, 4)
    g = torch.Generator().manual_seed(0)
    uphill = torch.nn.functional.interpolate(torch.randn(2, 3, 4, 4, generator=g), size=64, mode="bilinear")
    batch = replace(batch, images=smooth, ignore=torch.zeros_like(batch.ignore))
    batch = replace(batch, slope=Slope(uphill, torch.zeros_like(batch.masks)))
    torch.manual_seed(0)
    attack = make_attack(name, settings_for(deformation_epsilon=0.05))
    assert isinstance(attack, nn.Module)
    rises = []
    for pace in (0.0, 0.02, -0.02):
        with torch.no_grad():
            for label, parameter in attack.eval().named_parameters():
                if label.endswith("follow"):
                    parameter.fill_(pace)
            rises.append(((attack(batch, features).images - smooth) * uphill).sum((1, 2, 3)))
    still, up, down = rises
    assert (up > still).all()
    assert (down < still).all()


@pytest.mark.parametrize("name", [*LEARNED, "patch"])
def test_minimising_the_loss_with_an_attackers_parameters_raises_it(name):
    """What the gradient reversal is for."""
    batch, features = make_batch(2, 2, 64, seed=10)
    batch.masks[:, 0, 10:50, 10:50] = 1
    smooth = torch.nn.functional.avg_pool2d(batch.images, 9, 1, 4)
    batch, wanted = replace(batch, images=smooth), smooth + 5
    torch.manual_seed(0)
    attack = make_attack(name, settings_for())
    assert isinstance(attack, nn.Module)
    optimizer = torch.optim.Adam(attack.eval().parameters(), lr=0.003)
    losses = []
    for step in range(8):
        assert isinstance(attack, nn.Module)
        if name == "patch":
            attack.generator.manual_seed(step % 2)  # at the same two places again
        loss = (attack(batch, features).images - wanted).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] > losses[1]
    assert losses[-2] > losses[0]


def test_the_cooperative_attack_is_style_then_deformation_of_what_both_saw_clean():
    batch, features = make_batch(2, 3, 64, seed=11)
    both, style, deformation = (make_attack(name, settings_for()) for name in ("cooperative", "style", "deformation"))
    assert all(isinstance(attack, nn.Module) for attack in (both, style, deformation))
    both.eval(), style.eval()
    style.load_state_dict(both.state_dict(), strict=False)
    deformation.load_state_dict(both.state_dict(), strict=False)
    with torch.no_grad():
        there, restyled, bent = both(batch, features), style(batch, features), deformation(batch, features)
    assert torch.equal(there.styles, restyled.styles)
    assert torch.equal(there.flow, bent.flow)
    assert torch.equal(there.masks, bent.masks)
    for name in ("rms", "peak"):
        assert torch.equal(there.magnitudes[name], restyled.magnitudes[name])
    for name in ("mean_displacement", "max_displacement", "folded"):
        assert torch.equal(there.magnitudes[name], bent.magnitudes[name])


def test_half_precision_networks_move_nothing_but_their_proposals():
    """Under autocast an attack differs by the rounding of its networks, not by that of pixels or coordinates."""
    batch, features = make_batch(2, 3, 64, seed=13)
    attack = awake("cooperative")
    with torch.no_grad():
        exact = attack(batch, features)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = attack(batch, features)
    assert rough.images.dtype == rough.masks.dtype == torch.float32
    assert (rough.flow - exact.flow).abs().max() < 0.1
    assert (rough.styles - exact.styles).abs().max() < 0.02


@pytest.mark.parametrize("side", [64, 128, 256])
def test_attackers_start_close_to_doing_nothing(real_data: Path, side):
    """On photographs: a change of two or three grey levels and of a few hundredths of a pixel."""
    pool = Pool([FolderSet.open(real_data / "train" / "coco_mix")], {})
    scenes = [letterbox(*pool.read(pool.samples[0][i]), side) for i in range(4)]
    images = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1).float() for scene in scenes])
    ids = torch.stack([torch.from_numpy(scene.ids) for scene in scenes])
    first = torch.tensor([(object_ids(scene.ids) or [1])[0] for scene in scenes])
    masks, ignore = (ids == first[:, None, None]).float()[:, None], (ids == 255).float()[:, None]
    batch = LabelledBatch(images, masks, ignore, Prompts.none(4, 1), torch.ones(4, 1, dtype=torch.bool))
    level = torch.randn(4, 128, side // 16, side // 16, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        torch.manual_seed(seed)
        attack = make_attack("cooperative", AttackSettings(128, torch.Generator()))
        with torch.no_grad():
            there = attack(batch, ImageFeatures((level,), (), level[:1]))
        assert there.magnitudes["rms"].max() < 3.5
        assert there.magnitudes["mean_displacement"].max() < 0.1
        assert there.magnitudes["folded"].max() == 0


def test_attacks_work_on_a_model_and_leave_its_features_alone(tiny_model: RuacModel):
    """As in training: one adversarial forward, one backward."""
    batch, _ = make_batch(2, 2, 64, seed=12)
    clean = tiny_model.encode(batch.images, ())
    level = clean.levels[-1].detach().requires_grad_()
    clean = replace(clean, levels=(*clean.levels[:-1], level))
    torch.manual_seed(0)
    attack = make_attack("cooperative", AttackSettings(level.shape[1], torch.Generator()))
    there = attack(sloped(batch), clean)
    decoded = tiny_model.decode(tiny_model.encode(there.images, ()), there.prompts)
    logits = nn.functional.interpolate(tiny_model(decoded).mean[:, :, 0], size=64, mode="bilinear")[:, :, None]
    likelihood(logits, there.masks[:, :, None], there.counted[:, None]).backward()
    assert isinstance(attack, nn.Module)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attack.parameters())
    assert level.grad is None


def test_unknown_attacks_and_missing_objectives_are_named():
    with pytest.raises(ValueError, match="no attack 'pgdd': choose one of none, noise"):
        make_attack("pgdd", settings_for())
    with pytest.raises(ValueError, match="'pgd' climbs an objective"):
        make_attack("pgd", AttackSettings(8, torch.Generator()))
