"""Moving pictures, masks and prompts together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ruac.attack.batch import AttackedBatch, LabelledBatch, untouched
from ruac.attack.deformation import object_fields
from ruac.attack.warp import compose, deform, folded, follow, warp
from ruac.features import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, NO_POINT, Prompts

S, CELLS = 96, 12
OBJECT, GROUND = 200.0, 50.0


def picture(masks: torch.Tensor, points: list[tuple[float, float]], labels: list[int]) -> LabelledBatch:
    """Bright objects [P, S, S] on dark ground; every object has the same prompts."""
    shown = masks.amax(0, keepdim=True) if len(masks) else torch.zeros(1, S, S)
    images = (GROUND + (OBJECT - GROUND) * shown).expand(1, 3, S, S).clone()
    prompts = Prompts(torch.tensor(points).expand(1, len(masks), -1, -1), torch.tensor(labels).expand(1, len(masks), -1))
    present = torch.ones(1, len(masks), dtype=torch.bool)
    return LabelledBatch(images, masks[None], torch.zeros(1, 1, S, S), prompts, present)


def box(top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    mask = torch.zeros(S, S)
    mask[top:bottom, left:right] = 1
    return mask


def constant(*shifts: tuple[float, float]) -> torch.Tensor:
    """Fields [1, P, 2, h, w] that move object p's content by shifts[p], (x, y)."""
    return -torch.tensor(shifts)[None, :, :, None, None].expand(-1, -1, -1, CELLS, CELLS)


def zoom(factor: float, centre: float) -> torch.Tensor:
    """A field [1, 1, 2, h, w] that scales content by 1 / (1 + factor) about (centre, centre)."""
    places = (torch.arange(CELLS) + 0.5) * S / CELLS - 0.5 - centre
    return factor * torch.stack(torch.meshgrid(places, places, indexing="xy"))[None, None]


def moved(batch: LabelledBatch, fields: torch.Tensor) -> AttackedBatch:
    return deform(untouched(batch), fields)


@pytest.mark.parametrize(("side", "error"), [(64, 0), (96, 1e-5), (256, 0), (200, 2e-5)])
def test_no_flow_is_the_identity(side, error):
    """Exactly so where grid_sample's coordinates are: at powers of two."""
    g = torch.Generator().manual_seed(0)
    images, masks = 255 * torch.rand(2, 3, side, side, generator=g), torch.rand(2, 2, side, side, generator=g).round()
    ignore = torch.rand(2, 1, side, side, generator=g).round()
    there = warp(images, masks, ignore, torch.zeros(2, 2, side, side))
    assert (there[0] - images).abs().max() / 255 <= error
    assert (there[1] - masks).abs().max() <= error
    assert torch.equal(there[2], ignore)


def test_a_translation_moves_image_mask_and_clicks_together():
    batch = picture(box(30, 60, 30, 60)[None], [(45.0, 40.0), (10.0, 10.0), (0.0, 0.0)], [FOREGROUND, BACKGROUND, NO_POINT])
    there = moved(batch, constant((6.0, -3.0)))
    found, expected = there.masks[0, 0] > 0.5, box(27, 57, 36, 66) > 0
    assert (found & expected).sum() / (found | expected).sum() > 0.98
    assert torch.equal((there.images[0, 0] > 125), found)
    assert (there.prompts.points[0, 0] - torch.tensor([[51.0, 37.0], [10.0, 10.0], [0.0, 0.0]])).abs().max() < 1e-3
    assert torch.equal(there.prompts.labels, batch.prompts.labels)
    assert there.magnitudes["max_displacement"].item() == pytest.approx(45**0.5, abs=1e-3)


def test_a_click_lands_on_its_content_under_a_bent_field():
    """A bright spot on the object; the moved click is at its new centre of mass."""
    batch = picture(box(20, 80, 20, 80)[None], [(48.0, 41.0)], [FOREGROUND])
    y, x = torch.meshgrid(torch.arange(S), torch.arange(S), indexing="ij")
    spot = torch.exp(-((x - 48) ** 2 + (y - 41) ** 2) / 8)
    batch = LabelledBatch(255 * spot.expand(1, 3, S, S), batch.masks, batch.ignore, batch.prompts, batch.present)
    fields = 3 * torch.randn(1, 1, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    there = moved(batch, fields)
    seen = there.images[0, 0]
    centre = torch.stack([(seen * x).sum(), (seen * y).sum()]) / seen.sum()
    click = there.prompts.points[0, 0, 0]
    assert (click - torch.tensor([48.0, 41.0])).norm() > 1
    assert (click - centre).abs().max() < 0.1


def test_content_is_followed_exactly_within_the_budget():
    g = torch.Generator().manual_seed(3)
    offsets = torch.rand(1, 3, 2, 16, 16, generator=g) - 0.5
    fields = F.pad(object_fields(offsets, torch.ones(1, 3, 128, 128), 0.15), (0,) * 6 + (1, 0))
    points, layers = 127 * torch.rand(1, 50, 2, generator=g), torch.randint(0, 4, (1, 50), generator=g)
    found = follow(points, layers, fields, 128)
    places = (2 * found[0, :, None, None] + 1) / 128 - 1
    shifts = F.grid_sample(fields[0, layers[0]], places, padding_mode="border", align_corners=False)[..., 0, 0]
    assert shifts.abs().max() > 1
    assert (found[0] + shifts - points[0]).abs().max() < 1e-3
    assert torch.equal(found[layers == 0], points[layers == 0])


def test_a_click_follows_the_object_under_it_whoevers_it_is():
    masks = torch.stack([box(10, 40, 10, 40), box(50, 80, 50, 80)])
    batch = picture(masks, [(20.0, 20.0), (60.0, 60.0)], [FOREGROUND, BACKGROUND])
    there = moved(batch, constant((2.0, 0.0), (0.0, -3.0)))
    expected = torch.tensor([[22.0, 20.0], [60.0, 57.0]])
    assert (there.prompts.points[0] - expected).abs().max() < 1e-3


def test_what_a_click_says_stays_true_when_its_object_moves_over_it():
    object_ = box(40, 60, 40, 60)
    clicks = [(62.0, 50.0), (45.0, 50.0), (63.0, 63.0)]
    batch = picture(object_[None], clicks, [BACKGROUND, FOREGROUND, BACKGROUND])
    after = moved(batch, constant((6.0, 4.0)))
    x, y = after.prompts.points[0, 0].round().long().unbind(-1)
    assert (after.masks[0, 0, y, x] > 0.5).tolist() == [False, True, False]
    # it was pushed aside where it would have been covered, and only there
    torch.testing.assert_close(after.prompts.points[0, 0, 0], torch.tensor([68.0, 54.0]), atol=0.05, rtol=0)
    far = moved(picture(object_[None], [(80.0, 80.0)], [BACKGROUND]), constant((6.0, 4.0)))
    assert far.prompts.points[0, 0, 0].tolist() == [80.0, 80.0]


def test_clicks_stay_within_the_picture():
    batch = picture(box(40, 60, 0, 20)[None], [(1.0, 50.0)], [FOREGROUND])
    after = moved(batch, constant((-6.0, 0.0)))
    assert after.prompts.points[0, 0, 0, 0] == -0.5  # the outer edge of the first pixel
    assert after.masks[0, 0, 50, 0] > 0.5


def test_a_box_stays_around_its_object():
    """Its corners lie on the background, which does not move; it moves all the same, as far as the object's outline does."""
    batch = picture(box(30, 60, 30, 60)[None], [(30.0, 30.0), (59.0, 59.0)], [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT])
    for fields in (constant((4.0, 2.0)), zoom(0.25, 44.5), zoom(-0.2, 44.5)):
        there = moved(batch, fields)
        rows, columns = torch.nonzero(there.masks[0, 0] > 0.5, as_tuple=True)
        outline = torch.tensor([[columns.min(), rows.min()], [columns.max(), rows.max()]])
        assert (there.prompts.points[0, 0] - outline).abs().max() <= 1


def test_a_sheared_objects_box_is_the_smallest_around_its_four_corners():
    batch = picture(box(30, 60, 30, 60)[None], [(30.0, 30.0), (60.0, 60.0)], [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT])
    shear = torch.zeros_like(zoom(0, 0))
    shear[:, :, 0] = zoom(0.2, 45.0)[:, :, 1]  # x is read 0.2 (y - 45) further right
    found = moved(batch, shear).prompts.points[0, 0]
    assert (found - torch.tensor([[27.0, 30.0], [63.0, 60.0]])).abs().max() < 1e-3


def test_an_earlier_mask_moves_with_its_object():
    mask = box(32, 64, 32, 64)
    batch = picture(mask[None], [(45.0, 40.0)], [FOREGROUND])
    logits = F.avg_pool2d(mask[None, None], 4) * 10 - 5
    prompts = batch.prompts.with_mask(logits)
    there = moved(LabelledBatch(batch.images, batch.masks, batch.ignore, prompts, batch.present), constant((8.0, 0.0)))
    assert there.prompts.mask_logits is not None
    expected = F.avg_pool2d(box(32, 64, 40, 72)[None, None], 4) > 0.5
    assert torch.equal(there.prompts.mask_logits > 0, expected)


def test_the_hole_of_a_shrunken_object_shows_its_surroundings():
    mask = box(30, 60, 30, 60)
    there = moved(picture(mask[None], [(45.0, 45.0)], [FOREGROUND]), zoom(0.25, 44.5))
    smaller = there.masks[0, 0] > 0.5
    assert smaller.sum() == 24**2
    hole = (mask > 0) & (F.max_pool2d(there.masks[0], 3, 1, 1)[0] == 0)
    assert hole.sum() > 200
    assert (there.images[0, :, hole] - GROUND).abs().max() < 1e-3
    # only along the seam where the surroundings were pulled in is the picture folded
    assert 0 < there.magnitudes["folded"].item() < 0.015


def test_a_part_may_shrink_within_its_whole():
    masks = torch.stack([box(10, 80, 10, 80), box(30, 60, 30, 60)])
    there = moved(picture(masks, [(45.0, 45.0)], [FOREGROUND]), torch.cat([constant((0.0, 0.0)), zoom(0.25, 44.5)], 1))
    assert (there.masks[0, 1] > 0.5).sum() == 24**2
    assert torch.equal(there.masks[0, 0] > 0.5, masks[0] > 0.5)


def test_the_object_on_top_covers_the_one_it_moves_over():
    masks = torch.stack([box(20, 40, 20, 40), box(20, 40, 40, 60)])
    there = moved(picture(masks, [(30.0, 30.0)], [FOREGROUND]), constant((0.0, 0.0), (-6.0, 0.0)))
    assert torch.equal(there.masks[0, 1] > 0.5, box(20, 40, 34, 54) > 0)
    # a pixel has one place of origin: what is seen as the second object is not labelled as the first
    assert torch.equal(there.masks[0, 0] > 0.5, box(20, 40, 20, 34) > 0)


def test_what_comes_from_outside_or_from_ignored_pixels_does_not_count():
    batch = picture(box(0, 40, 0, 40)[None], [(20.0, 20.0)], [FOREGROUND])
    batch.ignore[:, :, :, 20] = 1
    there = moved(batch, constant((3.0, 0.0)))
    assert there.ignore[0, 0, 10, :3].all()
    assert not there.ignore[0, 0, 10, 3:23].any()
    assert there.ignore[0, 0, 10, 23] == 1


def test_a_folding_flow_is_counted():
    flow = torch.zeros(2, 2, 21, 21)
    flow[0, 0] = -2 * (torch.arange(21) - 12).clamp_min(0)  # from column 12 on, x + flow falls
    flow[1, 1] = -0.5 * torch.arange(21.0)[:, None]  # squeezed to half, not folded
    torch.testing.assert_close(folded(flow), torch.tensor([8 / 20, 0.0]))


def test_no_offset_within_the_default_budget_folds_an_object():
    g = torch.Generator().manual_seed(4)
    fields = object_fields((torch.rand(4, 1, 2, 8, 8, generator=g) > 0.5).float() - 0.5, torch.ones(4, 1, 64, 64), 0.15)
    flow, _ = compose(F.pad(fields, (0,) * 6 + (1, 0)), torch.ones(4, 1, 64, 64))
    assert folded(flow).max() == 0
    assert fields.abs().max() > 1


def test_the_mean_over_an_object_is_taken_off_its_field():
    g = torch.Generator().manual_seed(5)
    mask = box(8, 40, 16, 64)[None, None]
    fields = object_fields(torch.rand(1, 1, 2, CELLS, CELLS, generator=g) - 0.5, mask, 0.15)
    assert fields[0, 0, :, 1:5, 2:8].mean((1, 2)).abs().max() < 1e-6
    stride = S / CELLS
    assert fields.abs().max() <= 2 * 0.15 * stride
