"""Training pictures."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ruac.data.folder import IGNORE, FolderSet, object_ids
from ruac.data.scenes import MIN_PIXELS, Pool, SceneConfig, compose, letterbox, random_shape


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    """Two sets of flat pictures with one bright square each, whose colour tells its object."""
    sets = []
    for name in ("squares", "more"):
        root: Path = tmp_path_factory.mktemp(name)
        (root / "images").mkdir()
        (root / "masks").mkdir()
        for i in range(4):
            image, ids = np.full((90, 120, 3), 40, np.uint8), np.zeros((90, 120), np.uint8)
            image[20:60, 30 + i : 80] = 220
            ids[20:60, 30 + i : 80] = 1 + i
            cv2.imwrite(str(root / "images" / f"{i}.png"), image)
            cv2.imwrite(str(root / "masks" / f"{i}.png"), ids)
        sets.append(FolderSet.open(root))
    return Pool(sets, {})


def test_a_picture_is_a_function_of_its_seed(pool):
    first, again, other = (compose(pool, SceneConfig(), 96, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert (first.image == again.image).all()
    assert (first.ids == again.ids).all()
    assert (first.image != other.image).any()


def test_objects_of_paste_scenes_are_visible_and_many(pool):
    config = SceneConfig(paste=1.0)
    counts = []
    for i in range(30):
        scene = compose(pool, config, 96, (5, i))
        assert scene.image.shape == (96, 96, 3)
        ids = object_ids(scene.ids)
        assert all((scene.ids == k).sum() >= MIN_PIXELS for k in ids)
        counts.append(len(ids))
    assert np.mean(counts) > 3


def test_crops_move_picture_and_mask_together(pool):
    """Inside the object the crop is bright, outside dark, whatever was done to it (colour changes keep the order on average)."""
    config = SceneConfig(paste=0.0)
    agree = []
    for i in range(30):
        scene = compose(pool, config, 96, (6, i))
        inside, outside = (scene.ids > 0) & (scene.ids < IGNORE), scene.ids == 0
        if inside.any() and outside.any():
            agree.append(scene.image[inside].mean() > scene.image[outside].mean())
    assert len(agree) > 15
    assert np.mean(agree) > 0.75  # the rest are negatives


def test_letterbox_keeps_the_whole_picture_at_the_top_left():
    image, ids = np.full((50, 100, 3), 90, np.uint8), np.full((50, 100), 3, np.uint8)
    scene = letterbox(image, ids, 64)
    assert (scene.ids[:31, :63] == 3).all()
    assert (scene.ids[33:] == IGNORE).all()
    assert (scene.image[:31, :63] == 90).all()


def test_held_out_pictures_are_not_drawn(pool):
    named = [replace(pool.samples[0][0], id=f"picture{i}") for i in range(200)]
    parts = [FolderSet("a", {}, tuple(named))]
    drawn, kept = Pool(parts, {}), Pool(parts, {}, held_out=True)
    assert len(drawn.samples[0]) + len(kept.samples[0]) == 200
    assert kept.samples[0]
    assert not any(s.held_out for part in drawn.samples for s in part)
    assert all(s.held_out for part in kept.samples for s in part)


def test_weights_that_draw_nothing_are_refused(pool):
    with pytest.raises(ValueError, match="all zero"):
        Pool([FolderSet("a", {}, tuple(pool.samples[0]))], {"a": 0.0})


def test_random_shapes_are_filled_and_inside_their_box():
    rng = np.random.default_rng(0)
    shares = [(random_shape((40, 60), rng) > 0).mean() for _ in range(100)]
    assert min(shares) > 0.01
    assert 0.2 < np.mean(shares) < 0.8
