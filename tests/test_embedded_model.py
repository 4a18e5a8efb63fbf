"""The model that ships: small, exact, and led by its clicks, on real photographs."""

import numpy as np
import pytest
import torch

from ruac.data.folder import FolderSet, find_sets
from ruac.evaluate.protocol import Protocol, evaluate_image, read
from ruac.features import Prompts
from ruac.heads import PlainHead
from ruac.loading import load
from ruac.model import RuacModel
from ruac.predictor import Predictor


@pytest.fixture(scope="module")
def nano() -> RuacModel:
    return load("nano")


def some_images(part: FolderSet, objects: int, count: int):
    """The first pictures of a set with at least so many objects of a hundred pixels."""
    found = []
    for sample in part.samples:
        labelled = read(sample)
        sizes = np.bincount(labelled.ids.ravel(), minlength=256)[1:255]
        large = [int(i) + 1 for i in np.argsort(-sizes) if sizes[i] >= 100]
        if len(large) >= objects:
            found.append((labelled, large))
        if len(found) == count:
            break
    return found


def test_weights_are_at_most_ten_megabytes():
    from importlib.resources import files

    size = (files("ruac") / "weights" / "nano" / "model.safetensors").read_bytes()
    assert 1e6 < len(size) <= 10e6


@pytest.mark.real_data
def test_masks_are_those_of_the_plain_decoder(nano, real_data):
    """The head has moved the spread and, mask by mask, the size of all logits: the segmentation of a model without it is the same."""
    (labelled, _), *_ = some_images(FolderSet.open(real_data / "eval" / "pennfudan_ped"), 1, 1)
    with torch.inference_mode():
        pixels, frame = nano.prepare(torch.from_numpy(labelled.image).permute(2, 0, 1))
        click = Prompts(torch.tensor([[[[200.0, 150.0]]]]), torch.tensor([[[1]]]))
        decoded = nano.decode(nano.encode(pixels[None], (frame,)), click)
        trained, plain = nano(decoded), PlainHead()(decoded)
    torch.testing.assert_close(trained.prompt, plain.mean, rtol=1e-4, atol=1e-4)
    assert trained.gain.min() > 0
    assert ((trained.mean > 0) == (plain.mean > 0)).float().mean() > 0.9999
    assert trained.variance.min() > 0
    assert plain.variance.max() == 0


@pytest.mark.real_data
def test_two_clicks_on_two_objects_give_two_masks(nano, real_data):
    """A model that ignores where the click is returns the salient object twice."""
    predictor = Predictor(nano)
    overlaps, own = [], []
    for labelled, ids in some_images(FolderSet.open(real_data / "eval" / "pennfudan_ped"), 2, 6):
        predictor.set_image(labelled.image)
        masks = []
        for i in ids[:2]:
            rows, columns = np.nonzero(labelled.ids == i)
            middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            masks.append(predictor.predict([[columns[middle], rows[middle]]]).masks[0])
            own.append(masks[-1][rows[middle], columns[middle]])
        overlaps.append((masks[0] & masks[1]).sum() / max(1, (masks[0] | masks[1]).sum()))
    assert len(overlaps) == 6
    assert np.mean(overlaps) < 0.3
    assert np.mean(own) > 0.8  # the clicked pixel belongs to the mask


@pytest.mark.real_data
def test_more_clicks_give_better_masks_on_every_kind_of_picture(nano, real_data):
    means = []
    for name in ("davis16_frames", "pennfudan_ped", "bbbc038_nuclei", "trashcan"):
        part = FolderSet.open(real_data / "eval" / name)
        results = [evaluate_image(nano, read(s), Protocol((1, 3, 5), max_objects=2)) for s in part.samples[:3]]
        means.append([np.mean([q.iou for r in results for q in r.after[n].quality]) for n in (1, 3, 5)])
    one, three, five = np.mean(means, 0)
    assert 0.3 < one < three < five
    assert five > 0.6


@pytest.mark.real_data
def test_evaluation_sets_are_not_among_the_training_sets(real_data):
    trained = {s.image.read_bytes() for part in find_sets([real_data / "train"]) for s in part.samples}
    evaluated = [s.image.read_bytes() for part in find_sets([real_data / "eval"]) for s in part.samples]
    assert len(evaluated) > 1000
    assert not trained & set(evaluated)
