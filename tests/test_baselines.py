import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from families import TINY, shaken
from PIL import Image
from scipy.optimize import minimize_scalar
from torch import Tensor

from ruac.data.folder import FolderSet, find_sets, read_mask
from ruac.data.image import read_image
from ruac.evaluate.averaging import mean_logit
from ruac.evaluate.baselines import (
    METHODS,
    NAMES,
    jittered_prompts,
    methods,
    monte_carlo,
    prompts_given,
    temperature,
)
from ruac.evaluate.conversation import ask, first_prompt, look_at
from ruac.evaluate.cost import cost
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.question import Picture, Question
from ruac.evaluate.temperature import best_temperature, fit_temperature
from ruac.evaluate.tta import VIEWS, View, tta
from ruac.families.nano import NanoConfig
from ruac.features import BACKGROUND, FOREGROUND, Frame, Prompts, box_points
from ruac.model import RuacConfig, RuacModel

ASKED = [name for name in METHODS if name not in ("head", "plain")]


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours, [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def words(picture: Picture, objects: int, box: bool = False, mask: bool = False) -> Prompts:
    """Of each object two clicks, or a box and a click, in the left half of the picture; perhaps with an earlier mask."""
    height, width = picture.frame.original
    g = torch.Generator().manual_seed(objects)
    scale = torch.tensor([0.4 * width, 0.9 * height])
    points = picture.frame.to_input(torch.rand(1, objects, 2, 2, generator=g) * scale)
    labels = torch.tensor([FOREGROUND, BACKGROUND]).expand(1, objects, 2)
    prompts = Prompts(points, labels)
    if box:
        low = torch.rand(1, objects, 2, generator=g) * scale / 2
        corners, kinds = box_points(torch.cat([low, low + 0.5 * scale], -1))
        prompts = Prompts(picture.frame.to_input(corners), kinds).with_points(points[:, :, :1], labels[:, :, :1])
    grid = picture.model.grid
    return prompts.with_mask(torch.randn(1, objects, grid, grid, generator=g) * 3) if mask else prompts


@pytest.fixture(scope="module")
def lively_model() -> RuacModel:
    """As `tiny_model`, but its masks differ from place to place: half a picture each, with logits of a few units."""
    torch.manual_seed(0)
    model = RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact")).requires_grad_(False)
    shaken(model.sam)
    for network in model.sam.mask_decoder.output_hypernetworks_mlps:
        network.proj_out.weight.mul_(6)
        network.proj_out.bias.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def picture(lively_model: RuacModel) -> Picture:
    """90 x 120 pixels, of which the network input of 64 pixels keeps 48 x 64."""
    with torch.inference_mode():
        return look_at(lively_model, photograph(90, 120))


@pytest.fixture(scope="module")
def question(picture: Picture) -> Question:
    with torch.inference_mode():
        return ask(picture, words(picture, 3, mask=True))


def close(first: Tensor, second: Tensor, tolerance: float = 1e-4) -> bool:
    return first.shape == second.shape and (first - second).abs().max().item() <= tolerance


@pytest.mark.parametrize("box", [False, True], ids=["points", "box"])
@pytest.mark.parametrize("objects", [1, 3])
@pytest.mark.parametrize("name", METHODS)
@torch.inference_mode()
def test_every_method_gives_a_logit_for_every_pixel_and_the_same_each_time(
    picture: Picture, name: str, objects: int, box: bool
) -> None:
    asked = ask(picture, words(picture, objects, box))
    logits = METHODS[name](picture)(asked)
    assert logits.shape == (objects, 90, 120)
    assert logits.isfinite().all()
    assert logits.std() > 0
    assert logits.equal(METHODS[name](picture)(asked))


@pytest.mark.parametrize("name", ASKED)
@torch.inference_mode()
def test_an_answer_does_not_depend_on_who_else_is_asked_about(picture: Picture, question: Question, name: str) -> None:
    reading = METHODS[name](picture)
    assert close(reading(question.part([2, 0])), reading(question)[[2, 0]])


@torch.inference_mode()
def test_the_models_own_read_outs_are_taken_as_they_are(picture: Picture, question: Question) -> None:
    assert METHODS["head"](picture)(question).equal(question.full.scaled_mean()[0, :, 0])
    assert METHODS["plain"](picture)(question).equal(question.plain.mean[0, :, 0])


def test_the_mean_of_probabilities_keeps_its_digits_far_out() -> None:
    logits = torch.tensor([[30.0, -30.0, 0.0, 2.0], [32.0, -32.0, 0.0, -1.0]], dtype=torch.float32)
    p = torch.sigmoid(logits.double()).mean(0)
    q = torch.sigmoid(-logits.double()).mean(0)
    assert close(mean_logit(logits).double(), p.log() - q.log(), 1e-5)
    assert close(mean_logit(logits[:1]), logits[0], 1e-5)
    with pytest.raises(ValueError, match="no logits"):
        mean_logit([])


# temperature


@torch.inference_mode()
def test_each_number_of_prompts_has_its_own_temperature_and_a_box_is_one_prompt(picture: Picture) -> None:
    by_prompts = {1: 2.0, 2: 4.0, 5: 8.0}
    for prompts, given, divisor in [
        (Prompts(torch.full((1, 3, 1, 2), 9.0), torch.ones(1, 3, 1).long()), 1, 2.0),
        (words(picture, 3), 2, 4.0),
        (words(picture, 3, box=True), 2, 4.0),
        (Prompts(torch.full((1, 3, 4, 2), 9.0), torch.ones(1, 3, 4).long()), 4, 8.0),
        (Prompts(torch.full((1, 3, 9, 2), 9.0), torch.ones(1, 3, 9).long()), 9, 8.0),
    ]:
        assert prompts_given(prompts).tolist() == [[given] * 3]
        asked = ask(picture, prompts)
        assert temperature(by_prompts)(picture)(asked).equal(asked.plain.mean[0, :, 0] / divisor)


def counted(logit: np.ndarray, right: np.ndarray, reach: float, bins: int) -> np.ndarray:
    edges = np.linspace(-reach, reach, bins + 1)
    return np.stack([np.histogram(logit[right == kind], edges)[0] for kind in (True, False)])


def test_fitting_recovers_the_temperature_that_the_labels_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(1, 3, 100_000).clip(-15.9, 15.9)
    for true in (0.5, 1.0, 2.5):
        right = rng.random(logit.size) < 1 / (1 + np.exp(-logit / true))
        found = best_temperature(counted(logit, right, 16, 4096), 16)
        assert found == pytest.approx(true, rel=0.04)
        # what an optimiser finds on the logits themselves
        sign = np.where(right, 1, -1)
        best = minimize_scalar(lambda t, s=sign: np.logaddexp(0, -s * logit / t).mean(), bounds=(0.05, 100), method="bounded").x
        assert found == pytest.approx(best, rel=1e-3)


def test_a_temperature_stays_within_its_range_when_all_or_nothing_is_right() -> None:
    logit = np.full(100, 3.0)
    assert best_temperature(counted(logit, np.ones(100), 16, 64), 16) == pytest.approx(0.05)
    assert best_temperature(counted(logit, np.zeros(100), 16, 64), 16) == pytest.approx(100)


@pytest.fixture
def calibration(lively_model: RuacModel, tmp_path: Path) -> list[FolderSet]:
    """Two pictures of an object of which even random weights know something: it is the model's own mask, moved a little."""
    for kind in ("images", "masks"):
        (tmp_path / "a" / kind).mkdir(parents=True)
    for i in range(2):
        image = photograph(60, 80, i)
        mask = first_question(lively_model, image, (40, 30)).plain.mean[0, 0, 0] > 0
        Image.fromarray(image).save(tmp_path / "a" / "images" / f"{i}.png")
        Image.fromarray(np.roll(mask.numpy(), 4 + 4 * i, 1).astype(np.uint8)).save(tmp_path / "a" / "masks" / f"{i}.png")
    return find_sets([tmp_path])


@torch.inference_mode()
def first_question(model: RuacModel, image: np.ndarray, click: tuple[float, float]) -> Question:
    picture = look_at(model, image)
    point = picture.frame.to_input(torch.tensor(click))
    return ask(picture, Prompts(point[None, None, None], torch.ones(1, 1, 1).long()))


def test_temperatures_are_fitted_for_every_number_of_prompts_and_make_the_labels_likeliest(
    lively_model: RuacModel, calibration: list[FolderSet]
) -> None:
    fitted = fit_temperature(lively_model, calibration, Protocol(clicks=(2, 3)))
    assert sorted(fitted) == [1, 2, 3]
    asked = []
    for sample in calibration[0].samples:
        truth = read_mask(sample.mask) == 1
        click = first_prompt(truth, "point")[0]
        question = first_question(lively_model, read_image(sample.image), (float(click.x), float(click.y)))
        asked.append((question.plain.mean[0, 0, 0].double(), torch.from_numpy(truth).double()))

    def loss(t: float) -> float:
        """Of the first clicks, both pictures alike."""
        return float(np.mean([F.binary_cross_entropy_with_logits(logit / t, truth).item() for logit, truth in asked]))

    assert 0.1 < fitted[1] < 50
    # the loss has one minimum only
    assert loss(fitted[1]) < min(loss(0.98 * fitted[1]), loss(1.02 * fitted[1]))
    assert loss(fitted[1]) < loss(1.0) - 1e-3


def test_nothing_to_fit_on_is_an_error_that_names_the_set(lively_model: RuacModel, calibration: list[FolderSet]) -> None:
    for sample in calibration[0].samples:
        Image.fromarray(np.zeros((60, 80), np.uint8)).save(sample.mask)
    with pytest.raises(ValueError, match=r"no object to fit a temperature on in a$"):
        fit_temperature(lively_model, calibration, Protocol())


# test-time augmentation


@pytest.mark.parametrize("family", ["nano", *TINY])
@torch.inference_mode()
def test_a_view_that_changes_nothing_answers_as_the_plain_decoder(lively_model: RuacModel, family: str) -> None:
    model = lively_model if family == "nano" else RuacModel.around(shaken(TINY[family]()))
    picture = look_at(model, photograph(90, 120))
    asked = ask(picture, words(picture, 2, mask=True))
    assert close(tta((View(),))(picture)(asked), asked.plain.mean[0, :, 0])
    assert close(tta(())(picture)(asked), asked.plain.mean[0, :, 0])
    assert tta()(picture)(asked).isfinite().all()


def reflected(asked: Prompts, frame: Frame, grid: int, side: int) -> Prompts:
    """The same words about the mirrored picture, worked out in numpy and in the image's own pixels."""
    points = frame.to_original(asked.points)
    points[..., 0] = frame.original[1] - 1 - points[..., 0]
    if (asked.labels == 2).any():
        x = points[..., 0].clone()
        points[..., 0, 0], points[..., 1, 0] = x[..., 1], x[..., 0]
    mask = asked.mask_logits
    if mask is not None:
        rows, columns = (n * grid // side for n in frame.inside)
        mask = mask.clone()
        mask[..., :rows, :columns] = torch.from_numpy(mask[..., :rows, :columns].numpy()[..., ::-1].copy())
    return Prompts(frame.to_input(points), asked.labels, mask)


@pytest.mark.parametrize("size", [(90, 120), (120, 90), (64, 64)])
@pytest.mark.parametrize("box", [False, True], ids=["points", "box"])
@torch.inference_mode()
def test_a_picture_and_its_mirror_image_get_mirrored_answers(lively_model: RuacModel, size: tuple[int, int], box: bool) -> None:
    image = photograph(*size)
    straight, mirror = look_at(lively_model, image), look_at(lively_model, np.ascontiguousarray(image[:, ::-1]))
    prompts = words(straight, 2, box, mask=True)
    asked = ask(straight, prompts)
    there = ask(mirror, reflected(prompts, straight.frame, lively_model.grid, lively_model.side))
    assert there.token.equal(asked.token)
    assert not close(there.plain.mean.flip(-1), asked.plain.mean, 1e-2)  # the decoder alone sees a difference
    assert close(tta()(mirror)(there).flip(-1), tta()(straight)(asked), 2e-3)


@torch.inference_mode()
def test_every_view_shows_the_picture_and_points_at_the_same_places() -> None:
    side, grid = 64, 16
    before = Frame.fit(90, 120, side, 4)
    image = torch.full((3, side, side), 7, dtype=torch.uint8)
    rows, columns = before.inside
    image[:, :rows, :columns] = (torch.arange(columns) * 3).byte()
    mask = torch.full((1, 1, grid, grid), -2.0)
    mask[..., :12, :16] = torch.linspace(0, 5, 16)
    at = torch.tensor([[[[15.0, 20.0], [47.0, 8.0]]]])
    for view in (*VIEWS, View(0.5)):
        after = view.frame(before, side, grid)
        assert after.inside == tuple(round(n * view.scale) for n in before.inside)
        assert after.original == (90, 120)
        pixels = view.pixels(image, before, after)
        outside = pixels.clone()
        outside[:, : after.inside[0], : after.inside[1]] = torch.nan
        # the padding stays where the size does, and is grey elsewhere
        assert outside.nan_to_num(0).unique().tolist() == [0, 7 if view.scale == 1 else 116]
        moved = view.prompts(Prompts(at, torch.ones(1, 1, 2).long(), mask), before, after, side)
        assert moved.mask_logits is not None
        assert moved.mask_logits[..., 12:, :].unique().tolist() == [-2]
        for (x, y), (u, v) in zip(at[0, 0].tolist(), moved.points[0, 0].tolist(), strict=True):
            assert (v + 0.5) / after.inside[0] == pytest.approx((y + 0.5) / rows)
            low, share = int(np.floor(u)), u - np.floor(u)
            row = pixels[0, int(v)]
            seen = row[low] * (1 - share) + row[low + 1] * share
            assert seen.item() == pytest.approx(3 * x, abs=0.5)  # what lay under the click lies under it


@torch.inference_mode()
def test_pictures_seen_are_encoded_once_and_not_at_every_click(
    lively_model: RuacModel, picture: Picture, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def noting(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def noted(*arguments: object) -> object:
            calls.append(name)
            return call(*arguments)

        return noted

    for name in ("encode", "decode"):
        monkeypatch.setattr(lively_model, name, noting(name, getattr(lively_model, name)))
    reading = tta()(picture)
    assert calls == ["encode"] * 3
    reading(question)
    reading(question)
    assert calls == ["encode"] * 3 + ["decode"] * 6


# perturbed prompts


@pytest.mark.parametrize("box", [False, True], ids=["points", "box"])
@torch.inference_mode()
def test_prompts_that_are_not_moved_answer_as_the_plain_decoder(picture: Picture, box: bool) -> None:
    asked = ask(picture, words(picture, 3, box, mask=True))
    assert close(jittered_prompts(clicks=0, boxes=0)(picture)(asked), asked.plain.mean[0, :, 0], 2e-5)  # of up to 18
    assert not close(jittered_prompts()(picture)(asked), asked.plain.mean[0, :, 0], 1e-3)


@pytest.mark.parametrize("at_once", [1, 7])
@torch.inference_mode()
def test_prompts_decoded_in_parts_answer_as_those_decoded_at_once(picture: Picture, question: Question, at_once: int) -> None:
    assert close(jittered_prompts(at_once=at_once)(picture)(question), jittered_prompts(at_once=24)(picture)(question), 1e-5)


@torch.inference_mode()
def test_clicks_move_with_the_size_of_the_mask_and_boxes_with_their_own(
    picture: Picture, question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Prompts] = []
    decode = picture.model.decode
    monkeypatch.setattr(picture.model, "decode", lambda features, prompts: asked.append(prompts) or decode(features, prompts))
    low = torch.full((1, 2, 1, 16, 16), -1.0)
    low[0, 0, 0, 4:9, 2:12] = 1  # 20 x 40 pixels of the network input; the other mask is empty
    corners, kinds = box_points(torch.tensor([[[20.0, 15.0, 40.0, 25.0]] * 2]))
    prompts = Prompts(corners, kinds).with_points(torch.full((1, 2, 1, 2), 30.0), torch.ones(1, 2, 1).long())
    two = replace(question.part([0, 1]), prompts=prompts, low=replace(question.low, mean=low, variance=torch.zeros_like(low)))
    jittered_prompts(400, at_once=800)(picture)(two)
    (given,) = asked
    moved = given.points.view(400, 2, 3, 2) - prompts.points
    assert moved.mean(0).abs().max() < 0.2
    box_spread = 0.05 * torch.tensor([20.0, 10.0])
    expected = [
        [box_spread, box_spread, 0.02 * torch.tensor([40.0, 20.0])],
        [box_spread, box_spread, 0.02 * torch.tensor([64.0, 48.0])],
    ]
    assert torch.allclose(moved.std(0), torch.stack([torch.stack(row) for row in expected]), rtol=0.15)
    assert given.labels.view(400, 2, 3).unique(dim=0).tolist() == prompts.labels.tolist()


@torch.inference_mode()
def test_no_prompt_leaves_the_picture(picture: Picture, question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Prompts] = []
    decode = picture.model.decode
    monkeypatch.setattr(picture.model, "decode", lambda features, prompts: asked.append(prompts) or decode(features, prompts))
    jittered_prompts(clicks=5)(picture)(question)
    x, y = asked[0].points.unbind(-1)
    assert (x.min(), x.max(), y.min(), y.max()) == (-0.5, 63.5, -0.5, 47.5)


# Monte Carlo


@torch.inference_mode()
def test_samples_of_the_head_tend_to_its_predictive_probability(lively_model: RuacModel) -> None:
    # an image as large as the decoder's grid: nothing is interpolated
    model = copy.deepcopy(lively_model)
    model.head.influence.bias[2] += 1 / model.head.PACE  # deviations of about one logit
    picture = look_at(model, photograph(16, 16))
    asked = ask(picture, words(picture, 2))
    sampled = torch.sigmoid(monte_carlo(3000)(picture)(asked))
    head = torch.sigmoid(METHODS["head"](picture)(asked))
    plain = torch.sigmoid(METHODS["plain"](picture)(asked))
    assert (plain - head).abs().max() > 0.07  # there is something to tend to
    # MacKay's approximation is within 0.017 for a normal logit, which a sum of products of Weibull factors nearly is
    assert (sampled - head).abs().mean() < 0.015
    assert (sampled - head).abs().max() < 0.06


@torch.inference_mode()
def test_a_head_without_training_has_nothing_to_sample(lively_model: RuacModel) -> None:
    untrained = RuacModel.around(lively_model.sam).eval()
    picture = look_at(untrained, photograph(90, 120))
    asked = ask(picture, words(picture, 2))
    assert close(monte_carlo(3)(picture)(asked), asked.plain.mean[0, :, 0], 1e-4)


# predicted IoU


@torch.inference_mode()
def test_all_pixels_of_a_mask_are_as_sure_as_its_predicted_iou(picture: Picture, question: Question) -> None:
    iou = torch.zeros_like(question.decoded.iou)
    iou.scatter_(2, question.token[..., None], torch.tensor([[[0.9], [0.4], [1.2]]]))
    told = replace(question, decoded=replace(question.decoded, iou=iou))
    logits = METHODS["predicted_iou"](picture)(told)
    mask = question.full.mean[0, :, 0] > 0
    assert mask.any()
    assert not mask.all()
    right = torch.sigmoid(torch.where(mask, logits, -logits))
    for i, expected in enumerate((0.9, 0.4, 1 - 1e-4)):
        assert close(right[i], torch.full((90, 120), expected), 1e-5)


# by name, and their cost


def test_methods_come_by_name_and_a_temperature_only_when_it_is_fitted() -> None:
    assert list(methods(["plain", "tta"])) == ["plain", "tta"]
    assert list(methods(NAMES, {1: 2.0})) == list(NAMES)
    assert set(NAMES) == {"head", "plain", "temperature", "tta", "prompts", "monte_carlo", "predicted_iou"}
    with pytest.raises(ValueError, match="no uncertainty method 'dropout': choose from head, plain"):
        methods(["dropout"])
    with pytest.raises(ValueError, match="give --calibration DIR"):
        methods(["head", "temperature"])


def test_costs_are_multiples_of_a_plain_click(lively_model: RuacModel, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum([0.0, *range(1, 1000)]).tolist())  # every job takes a second more than the one before
    monkeypatch.setattr("ruac.evaluate.cost.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("ruac.evaluate.cost.ROUNDS", 1)
    # a job's seconds are odd numbers: 1 plain click, 3 the head, then 5 once and 7 a click, 9 once and 11 a click
    found = cost(methods(["plain", "head"]), lively_model, photograph(90, 120), clicks=5)
    assert found == {"plain": pytest.approx(1 + 5 / 5 + 7), "head": pytest.approx(1 + 9 / 5 + 11 + 3)}


def test_more_decoding_costs_more(lively_model: RuacModel) -> None:
    found = cost(methods(["plain", "prompts", "tta"]), lively_model, photograph(90, 120))
    assert 1 <= found["plain"] < 1.1
    assert found["prompts"] > 2
    assert found["tta"] > 2
