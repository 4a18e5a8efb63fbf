"""The slope of the loss that attackers follow: of style, of shape, and of a real model."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from ruac.attack.batch import LabelledBatch, Slope, untouched
from ruac.attack.deformation import field_slope, object_fields
from ruac.attack.layers import uphill
from ruac.attack.style import recolour, region_statistics, style_slope
from ruac.attack.trial import answer, misalignment, with_slope
from ruac.attack.warp import deform
from ruac.features import FOREGROUND, Prompts
from ruac.model import RuacModel

S = 64


def scene(side: int = S) -> LabelledBatch:
    """Two smooth pictures with two overlapping objects each."""
    g = torch.Generator().manual_seed(0)
    images = F.interpolate(255 * torch.rand(2, 3, 6, 6, generator=g), size=side, mode="bilinear")
    masks = torch.zeros(2, 2, side, side)
    masks[:, 0, side // 8 : side // 2, side // 8 : side // 2] = 1
    masks[:, 1, side // 3 : side - 9, side // 3 : side - 9] = 1
    prompts = Prompts(torch.full((2, 2, 1, 2), side / 2.5), torch.full((2, 2, 1), FOREGROUND))
    return LabelledBatch(images, masks, torch.zeros(2, 1, side, side), prompts, torch.ones(2, 2, dtype=torch.bool))


def some_slope(batch: LabelledBatch) -> Slope:
    g = torch.Generator().manual_seed(1)
    smooth = [F.interpolate(torch.randn(2, n, 5, 5, generator=g), size=S, mode="bilinear") for n in (3, 2)]
    return Slope(*smooth)


def test_the_slope_of_style_is_that_of_recolouring():
    batch = scene()
    slope = some_slope(batch)
    old = region_statistics(batch.images, torch.cat([1 - batch.masks.amax(1, keepdim=True), batch.masks], 1))
    new = old.clone().requires_grad_()
    value = (slope.images * recolour(batch.images, batch.masks, old, new)).sum()
    (expected,) = torch.autograd.grad(value, new)
    torch.testing.assert_close(style_slope(batch.images, batch.masks, old, slope), expected, rtol=1e-3, atol=1e-1)
    assert expected.abs().mean() > 100


def test_the_slope_of_a_field_is_the_rise_by_a_small_one():
    """In the direction of the slope itself: the rise of pictures and masks that move together."""
    batch = scene()
    batch = replace(batch, slope=some_slope(batch))
    assert batch.slope is not None
    slope = field_slope(batch, torch.Size([2, 2, 2, 8, 8]), epsilon=0.05)

    def value(offsets: torch.Tensor) -> float:
        moved = deform(untouched(batch), object_fields(offsets, batch.objects, 0.05))
        assert batch.slope is not None
        total = (batch.slope.images * moved.images).sum() + (batch.slope.masks * moved.masks).sum()
        return float(total.double())

    step = 0.02 * slope / slope.abs().max()
    rise = value(step) - value(torch.zeros_like(step))
    expected = float((slope * step).sum())
    assert expected > 0
    assert abs(rise - expected) < 0.15 * expected


def test_uphill_keeps_the_sign_and_forgets_the_size():
    slope = torch.tensor([[3.0, -1.0, 0.0], [3e-9, -1e-9, 0.0]])
    there = uphill(slope, (1,))
    torch.testing.assert_close(there[0], torch.tensor([9 / 13, -3 / 7, 0.0]))
    torch.testing.assert_close(there[1], there[0])
    assert torch.equal(uphill(torch.zeros(2, 3), (1,)), torch.zeros(2, 3))


def test_the_slope_of_a_model_is_its_gradient_and_leaves_it_alone(tiny_model: RuacModel):
    batch = scene(tiny_model.side)

    def objective(changed: LabelledBatch) -> torch.Tensor:
        return misalignment(answer(tiny_model, changed), changed)

    found = with_slope(batch, objective)
    assert found.slope is not None
    assert all(parameter.grad is None for parameter in tiny_model.parameters())
    assert not found.images.requires_grad
    with torch.no_grad():
        small = 1e-2 / found.slope.images.abs().max()
        up = objective(replace(batch, images=batch.images + 50 * small * found.slope.images))
        down = objective(replace(batch, images=batch.images - 50 * small * found.slope.images))
    expected = 100 * small * found.slope.images.square().sum()
    assert abs(up - down - expected) < 0.05 * expected
