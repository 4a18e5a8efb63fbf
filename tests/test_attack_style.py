"""Layers, colour statistics, the graph of objects, gradient reversal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ruac.attack.graph import StyleGraph, neighbours
from ruac.attack.layers import painted, pooled, regions, topmost, visible
from ruac.attack.reversal import reverse_gradient
from ruac.attack.style import MEAN, MIN_STD, STD, moved_statistics, recolour, region_statistics
from ruac.data.folder import IGNORE, FolderSet, object_ids
from ruac.data.scenes import Pool, letterbox

UNIT = 255 * torch.tensor(STD)[:, None, None]


@pytest.fixture(scope="module")
def photographs(real_data: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images [4, 3, 256, 256], masks of two objects each and the pixels that count, of four sets."""
    images, masks, counted = [], [], []
    for name in ("coco_mix", "bsds500_trainval", "flowers17", "oxford_pets"):
        pool = Pool([FolderSet.open(real_data / "train" / name)], {})
        scene = letterbox(*pool.read(pool.samples[0][0]), 256)
        ids = torch.from_numpy(scene.ids)
        chosen = (object_ids(scene.ids) * 2)[:2]
        images.append(torch.from_numpy(scene.image).permute(2, 0, 1).float())
        masks.append(torch.stack([(ids == i).float() for i in chosen]))
        counted.append((ids != IGNORE).float()[None])
    return torch.stack(images), torch.stack(masks), torch.stack(counted)


def test_reversed_gradient_is_the_negated_one():
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (plain,) = torch.autograd.grad(x.sin().sum(), x)
    (reversed_,) = torch.autograd.grad(reverse_gradient(x).sin().sum(), x)
    (half,) = torch.autograd.grad(reverse_gradient(x, 0.5).sin().sum(), x)
    assert torch.equal(reverse_gradient(x), x)
    assert torch.equal(reversed_, -plain)
    torch.testing.assert_close(half, -0.5 * plain)


def test_visible_shares_equal_painting_one_layer_after_the_other():
    masks = torch.rand(2, 5, 6, 6, generator=torch.Generator().manual_seed(1))
    colours = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(2))
    canvas = colours[:, 0, :, None, None].expand(2, 3, 6, 6)
    for p in range(5):
        canvas = torch.lerp(canvas, colours[:, p + 1, :, None, None].expand_as(canvas), masks[:, p : p + 1])
    torch.testing.assert_close(painted(colours, visible(masks)), canvas)
    torch.testing.assert_close(visible(masks)[:, 0], regions(masks)[:, 0])


def test_the_later_of_two_objects_is_on_top():
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :, :3], masks[0, 1, :, 2:] = 1, 1
    assert topmost(masks)[0, 0].tolist() == [1, 1, 2, 2]
    assert topmost(masks[:, :0]).tolist() == [[[0] * 4] * 4]


def test_pooled_features_are_the_mean_under_the_mask():
    features = torch.randn(1, 7, 4, 4, generator=torch.Generator().manual_seed(3))
    masks = torch.zeros(1, 2, 16, 16)
    masks[0, 0, 4:8, 4:12] = 1  # two cells
    found = pooled(features, masks)[0]
    torch.testing.assert_close(found[0], features[0, :, 1, 1:3].mean(-1))
    assert not found[1].any()


def test_statistics_are_those_of_the_region_in_normalised_units(photographs):
    images, masks, counted = photographs
    found = region_statistics(images, masks, counted)
    for b in range(len(images)):
        for p in range(2):
            values = ((images[b] / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]).double()
            values = values[:, (masks[b, p] > 0) & (counted[b, 0] > 0)]
            reference = torch.cat([values.mean(1), values.std(1, correction=0).clamp_min(MIN_STD)])
            torch.testing.assert_close(found[b, p].double(), reference, atol=1e-5, rtol=1e-5)


def test_a_region_of_under_a_hundred_pixels_has_the_statistics_of_the_image(photographs):
    images, _, counted = photographs
    masks = torch.zeros(len(images), 3, 256, 256)
    masks[:, 0, 100:109, 100:111] = 1  # 99 pixels
    masks[:, 1, 100:110, 100:110] = 1
    small, large, empty = region_statistics(images, masks).unbind(1)
    whole = region_statistics(images, torch.ones(len(images), 1, 256, 256))[:, 0]
    torch.testing.assert_close(small, whole)
    torch.testing.assert_close(empty, whole)
    assert not torch.allclose(large, whole, atol=0.01)
    # nothing counts at all: the whole image does
    nothing = region_statistics(images, masks, torch.zeros_like(counted))[:, 1]
    torch.testing.assert_close(nothing, large)


def test_recolouring_to_a_regions_own_statistics_changes_nothing(photographs):
    images, masks, counted = photographs
    masks[:, 1, 50:200, 60:180] = 1  # over the others
    own = region_statistics(images, regions(masks), counted)
    assert torch.equal(recolour(images, masks, own, own), images)


def test_recolouring_reaches_the_statistics_it_is_given(photographs):
    """Softer and greyer, so that no pixel leaves 0..255 and nothing would be cut off."""
    images, masks, counted = photographs
    masks = masks[:, :1]
    old = region_statistics(images, regions(masks), counted)
    assert old[..., 3:].min() > 2 * MIN_STD
    new = old * torch.tensor([0.5, 0.3, 0.6, 0.6, 0.7, 0.5])
    changed = recolour(images, masks, old, new)
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert (changed - images).abs().max() > 20
    reached = region_statistics(changed, regions(masks), counted)
    assert (reached - new).abs().max() < 1e-3


def test_statistics_keep_full_precision_under_autocast(photographs):
    images, masks, counted = photographs
    own = region_statistics(images, regions(masks), counted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = region_statistics(images, regions(masks), counted)
        changed = recolour(images, masks, own, own * 0.9)
    assert torch.equal(again, own)
    assert torch.equal(changed, recolour(images, masks, own, own * 0.9))


def test_full_moves_reach_the_edges_of_the_budget():
    old = torch.tensor([[[1.0, -2.0, 0.0, 1.0, 0.5, 0.1]]])
    one = torch.ones(1, 1, 3)
    up = moved_statistics(old, one, one, one, epsilon=0.3)
    down = moved_statistics(old, -one, -one, -one, epsilon=0.3)
    torch.testing.assert_close(up, torch.tensor([[[1.5, -2.1, 0.3, 1.5, 0.75, 0.15]]]))
    torch.testing.assert_close(down, torch.tensor([[[0.5, -1.9, -0.3, 0.5, 0.25, 0.1]]]))
    tiny = moved_statistics(old, one, one, one, epsilon=0.0005)  # 200 ε = 0.1, 500 ε = 0.25
    torch.testing.assert_close(tiny, torch.tensor([[[1.1005, -2.1995, 0.0005, 1.25, 0.625, 0.125]]]))


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of five objects in 128 px: two that overlap, one a pixel beside the second, one far away, an empty one; their looks."""
    masks = torch.zeros(1, 5, 128, 128)
    masks[0, 0, 10:30, 10:30] = 1
    masks[0, 1, 20:40, 20:40] = 1
    masks[0, 2, 20:40, 41:50] = 1
    masks[0, 3, 100:120, 100:120] = 1
    return masks, torch.eye(6)[None]


def test_regions_are_neighbours_that_overlap_or_come_close(scene):
    masks, looks = scene
    joined = neighbours(masks, looks, torch.ones(1, 5, dtype=torch.bool))[0] > 0
    assert torch.equal(joined, joined.T)
    assert joined[0].tolist() == [True, True, True, True, True, False]  # the background touches all but the empty one
    assert joined[1].tolist() == [True, True, True, False, False, False]
    assert joined[2].tolist() == [True, True, True, True, False, False]
    assert joined[5].tolist() == [False] * 5 + [True]


def test_regions_are_neighbours_that_look_alike(scene):
    masks, looks = scene
    looks = looks.clone()
    looks[0, 4] = looks[0, 1] + 0.5 * looks[0, 4]  # cosine 0.89
    joined = neighbours(masks, looks, torch.ones(1, 5, dtype=torch.bool))[0] > 0
    assert joined[1, 4]
    assert not joined[2, 4]


def test_rows_of_the_adjacency_sum_to_one_and_leave_out_who_is_not_there(scene):
    masks, looks = scene
    present = torch.tensor([[True, False, True, True, True]])
    adjacency = neighbours(masks, looks, present)[0]
    torch.testing.assert_close(adjacency.sum(-1), torch.ones(6))
    assert adjacency[2].tolist() == [0, 0, 1, 0, 0, 0]
    assert adjacency[:, 2].tolist() == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("objects", [0, 1, 60])
def test_the_graph_takes_any_number_of_objects(objects):
    graph = StyleGraph(8)
    looks = torch.randn(2, objects + 1, 8, generator=torch.Generator().manual_seed(0))
    adjacency = neighbours(torch.zeros(2, objects, 32, 32), looks, torch.ones(2, objects, dtype=torch.bool))
    assert graph(torch.zeros(2, objects + 1, 6), looks, adjacency).shape == (2, objects + 1, 6)


def test_one_pass_over_the_batch_equals_one_over_its_block_diagonal_graph():
    graph = StyleGraph(8).eval()
    g = torch.Generator().manual_seed(5)
    styles, looks = torch.randn(3, 4, 6, generator=g), torch.randn(3, 4, 8, generator=g)
    masks = (torch.rand(3, 3, 32, 32, generator=g) > 0.95).float()
    adjacency = neighbours(masks, looks, torch.ones(3, 3, dtype=torch.bool))
    block = graph(styles.flatten(0, 1), looks.flatten(0, 1), torch.block_diag(*adjacency))
    torch.testing.assert_close(graph(styles, looks, adjacency).flatten(0, 1), block)
