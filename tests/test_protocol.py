from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch import Tensor

import ruac.evaluate.protocol as protocol_module
from ruac.data.folder import FolderSet, Sample
from ruac.data.prompts import largest_region, next_click
from ruac.distribution import MaskDistribution
from ruac.evaluate.baselines import METHODS
from ruac.evaluate.conversation import Point, correction
from ruac.evaluate.disagreement import People
from ruac.evaluate.error_detection import BINS
from ruac.evaluate.protocol import ImageResult, LabelledImage, Protocol, choose_objects, evaluate_image, read
from ruac.evaluate.question import Picture, Question, Reading
from ruac.features import DecoderFeatures, Frame, ImageFeatures, Prompts
from ruac.model import RuacModel

SIDE, GRID = 64, 16


class Scripted:
    """Stands in for a model of 64 px: answers each decode with the next of its masks, and keeps what it was asked.

    masks: for every decode, low-resolution logits [P, 16, 16]. Of the four mask tokens, only the one that SAM 2's rule picks is
    right: the second multimask token after a lone click, token 0 otherwise.
    """

    side, device, stability = SIDE, torch.device("cpu"), None

    def __init__(self, masks: list[Tensor], variance: float = 1.0):
        self.masks, self.variance = masks, variance
        self.asked: list[Prompts] = []
        self.encoded = 0

    def prepare(self, image: Tensor) -> tuple[Tensor, Frame]:
        return torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), Frame.fit(image.shape[-2], image.shape[-1], SIDE, SIDE // GRID)

    def encode(self, pixels: Tensor, frames: tuple[Frame, ...]) -> ImageFeatures:
        self.encoded += 1
        return ImageFeatures((pixels,), frames, torch.empty(0))

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        mask = self.masks[len(self.asked)]
        self.asked.append(prompts)
        objects, clicks = prompts.labels.shape[1:]
        wanted = 2 if clicks == 1 else 0
        weights = torch.full((1, objects, 4, 1), -1.0)
        weights[:, :, wanted] = 1
        iou = torch.tensor([0.99, 0.1, 0.8, 0.3]).expand(1, objects, 4)
        return DecoderFeatures(mask[None, :, None], weights, torch.zeros(1, objects, 4, 1), iou, torch.zeros(1, objects))

    def __call__(self, features: DecoderFeatures) -> MaskDistribution:
        mean = features.weights[..., None] * features.pixels
        return MaskDistribution(mean, torch.full_like(mean, self.variance))


def labelled(ids: np.ndarray) -> LabelledImage:
    return LabelledImage("a", np.zeros((*ids.shape, 3), np.uint8), ids.astype(np.uint8))


def low_resolution(mask: np.ndarray) -> Tensor:
    """Logits [16, 16] of a 64 px mask whose edges are multiples of four."""
    return torch.from_numpy(np.where(mask[::4, ::4], 6.0, -6.0).astype(np.float32))


def run(model: Scripted, ids: np.ndarray, protocol: Protocol) -> ImageResult:
    return evaluate_image(cast(RuacModel, model), labelled(ids), protocol)


@pytest.fixture
def two_squares() -> np.ndarray:
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[4:24, 4:24] = 1
    ids[32:60, 32:60] = 7
    return ids


@pytest.fixture
def two_bands() -> np.ndarray:
    """Objects that interpolated logits reproduce exactly: they have no corners."""
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[4:24] = 1
    ids[32:60] = 7
    return ids


def test_clicks_start_at_the_centre_and_go_to_the_largest_error_of_the_returned_mask(two_squares: np.ndarray) -> None:
    first, second = two_squares == 1, two_squares == 7
    too_small, too_large = first.copy(), second.copy()
    too_small[4:24, 12:24] = False
    too_large[32:60, 12:32] = True
    model = Scripted([torch.stack([low_resolution(too_small), low_resolution(too_large)])] * 2)
    result = run(model, two_squares, Protocol(clicks=(1, 2)))
    assert result.objects == (1, 7)
    assert model.encoded == 1
    start, correction = model.asked
    assert start.mask_logits is None
    assert start.labels.tolist() == [[[1], [1]]]
    # the most interior pixels of squares with an even side
    assert start.points.tolist() == [[[[13, 13]], [[45, 45]]]]
    assert correction.labels.tolist() == [[[1, 1], [1, 0]]]
    assert correction.points[:, :, 0].equal(start.points[:, :, 0])
    missing, surplus = correction.points[0, :, 1].int().tolist()
    assert (first & ~too_small)[missing[1], missing[0]]
    assert (too_large & ~second)[surplus[1], surplus[0]]
    assert correction.mask_logits is not None
    assert correction.mask_logits.equal(model.masks[0][None])


def test_clicks_are_given_in_the_coordinates_of_the_network_input() -> None:
    ids = np.zeros((128, 256), np.uint8)
    ids[41:60, 101:120] = 1
    model = Scripted([torch.full((1, GRID, GRID), -6.0)])
    run(model, ids, Protocol(clicks=(1,)))
    # the centre (110, 50) of an image that is four times as large
    assert model.asked[0].points.flatten().tolist() == [110.5 / 4 - 0.5, 50.5 / 4 - 0.5]


def test_a_perfect_mask_is_left_alone_while_others_are_corrected(two_bands: np.ndarray) -> None:
    perfect = low_resolution(two_bands == 1)
    nothing, all_of_it = torch.full_like(perfect, -6.0), torch.full_like(perfect, 6.0)
    model = Scripted([torch.stack([perfect, nothing]), all_of_it[None], nothing[None]])
    result = run(model, two_bands, Protocol(clicks=(1, 2, 3)))
    assert [prompts.labels.shape[1] for prompts in model.asked] == [2, 1, 1]
    ious = [tuple(quality.iou for quality in result.after[n].quality) for n in (1, 2, 3)]
    assert ious == [(1, 0), (1, 28 / 64), (1, 0)]


def test_a_box_is_the_first_prompt_when_asked_for(two_squares: np.ndarray) -> None:
    model = Scripted([torch.full((2, GRID, GRID), -6.0)] * 2)
    run(model, two_squares, Protocol(clicks=(2,), prompt="box"))
    box, corrected = model.asked
    assert box.labels.tolist() == [[[2, 3], [2, 3]]]
    assert box.points.tolist() == [[[[4, 4], [23, 23]], [[32, 32], [59, 59]]]]
    assert corrected.labels.tolist() == [[[2, 3, 1], [2, 3, 1]]]


def test_head_and_plain_entropy_are_judged_on_the_same_masks_and_pixels(two_squares: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    mask = torch.from_numpy(rng.normal(0, 3, (2, GRID, GRID)).astype(np.float32))
    result = run(Scripted([mask], variance=10.0), two_squares, Protocol(clicks=(1,)))
    detection = result.after[1].detection
    head, plain = detection["head"].image, detection["plain"].image
    np.testing.assert_array_equal(head.counts.sum(1), plain.counts.sum(1))
    assert plain.counts.sum() == 2 * SIDE * SIDE
    far = slice(BINS // 2 + 500, None)
    assert head.counts[:, far].sum() < plain.counts[:, far].sum()
    assert detection["head"].band.counts.sum() == detection["plain"].band.counts.sum() < plain.counts.sum()


def test_variance_that_differs_between_pixels_changes_the_order_of_a_real_model(tiny_model: RuacModel) -> None:
    rng = np.random.default_rng(0)
    ids = np.zeros((50, 70), np.uint8)
    ids[10:40, 20:50] = 3
    image = LabelledImage("a", rng.integers(0, 256, (50, 70, 3), dtype=np.uint8), ids)
    detection = evaluate_image(tiny_model, image, Protocol(clicks=(1,))).after[1].detection
    head, plain = (detection[name].image.read() for name in ("head", "plain"))
    assert head.error_rate == plain.error_rate
    assert 0 < head.error_rate < 1
    assert head.auroc != plain.auroc


def test_ignored_pixels_count_neither_for_masks_nor_for_clicks_nor_for_uncertainty(two_bands: np.ndarray) -> None:
    wrong_where_ignored = two_bands == 1
    wrong_where_ignored[:, 40:] = True
    ids = np.where(two_bands == 7, 0, two_bands)
    ids[:, 28:] = 255
    model = Scripted([low_resolution(wrong_where_ignored)[None]] * 2)
    result = run(model, ids, Protocol(clicks=(1, 2)))
    assert len(model.asked) == 1  # nothing to correct
    (quality,) = result.after[2].quality
    assert (quality.iou, quality.boundary_f) == (1, 1)
    counts = result.after[2].detection["head"].image.counts
    assert counts.sum() == SIDE * 28
    assert counts[1].sum() == 0


def test_objects_decoded_in_groups_give_the_same_as_together(tiny_model: RuacModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    ids = np.kron(np.arange(12).reshape(3, 4), np.ones((16, 16))).astype(np.uint8)
    image = LabelledImage("a", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), ids)
    results = []
    for together in (12, 5):
        monkeypatch.setattr(protocol_module, "DECODE_TOGETHER", together)
        results.append(evaluate_image(tiny_model, image, Protocol(clicks=(1, 2), max_objects=12)))
    whole, parts = results
    assert whole.objects == parts.objects == tuple(range(1, 12))
    for clicks in (1, 2):
        ious = [[q.iou for q in result.after[clicks].quality] for result in results]
        assert ious[0] == pytest.approx(ious[1], abs=0.02)
        pixels = [result.after[clicks].detection["head"].image.read().pixels for result in results]
        assert pixels == [11 * 48 * 64] * 2


def test_chosen_objects_are_the_same_every_time_and_each_equally_likely() -> None:
    ids = np.kron(np.arange(21).reshape(3, 7), np.ones((4, 4))).astype(np.uint8)
    protocol = Protocol(max_objects=5)
    assert choose_objects(ids, "x", protocol) == choose_objects(ids, "x", protocol)
    counts = Counter(i for n in range(2000) for i in choose_objects(ids, f"image {n}", protocol))
    assert sorted(counts) == list(range(1, 21))
    # a share of 1/4 of 2000, standard deviation 19
    assert all(400 < count < 600 for count in counts.values())
    assert choose_objects(ids, "x", protocol) != choose_objects(ids, "x", Protocol(max_objects=5, seed=1))


def test_objects_too_small_to_click_on_are_not_evaluated() -> None:
    ids = np.zeros((20, 20), np.uint8)
    ids[0, :15] = 1
    ids[2, :16] = 2
    ids[4:8] = 255
    assert choose_objects(ids, "x", Protocol()) == (2,)


def test_an_image_without_objects_has_an_empty_result_and_costs_nothing() -> None:
    model = Scripted([])
    result = run(model, np.zeros((20, 20), np.uint8), Protocol())
    assert result.objects == ()
    assert model.encoded == 0


def test_given_prompts_are_said_whatever_the_masks_and_name_the_objects(two_bands: np.ndarray) -> None:
    perfect, nothing = low_resolution(two_bands == 7), torch.full((GRID, GRID), -6.0)
    model = Scripted([perfect[None], nothing[None]])
    given = {7: ((Point(3, 40, 1),), (Point(5, 50, 0),))}
    result = evaluate_image(cast(RuacModel, model), labelled(two_bands), Protocol(clicks=(1, 2, 3)), given=given)
    # a perfect mask did not silence it, and when all is said the answer stays
    assert [prompts.points[0, 0].tolist() for prompts in model.asked] == [[[3, 40]], [[3, 40], [5, 50]]]
    assert [prompts.labels[0, 0].tolist() for prompts in model.asked] == [[1], [1, 0]]
    assert result.objects == (7,)
    assert [result.after[n].quality[0].iou for n in (1, 2, 3)] == [1, 0, 0]
    assert result.said == (given[7],)


def test_clicks_go_on_to_the_number_of_noc_and_every_iou_is_noted(two_bands: np.ndarray) -> None:
    first, second = (low_resolution(two_bands == i) for i in (1, 7))
    nothing = torch.full_like(first, -6.0)
    script = [torch.stack([nothing, nothing]), torch.stack([first, nothing]), nothing[None], second[None]]
    result = run(Scripted(script), two_bands, Protocol(clicks=(1,), noc=5))
    assert result.ious == ((0, 1, 1, 1, 1), (0, 0, 0, 1, 1))
    assert list(result.after) == [1]
    assert [len(words) for words in result.said] == [2, 4]


def test_methods_are_asked_once_an_image_and_then_only_for_answers_that_are_judged(two_bands: np.ndarray) -> None:
    """The first mask is perfect at the second prompt, which is not judged, the other one never."""
    perfect = low_resolution(two_bands == 1)
    nothing, all_of_it = torch.full_like(perfect, -6.0), torch.full_like(perfect, 6.0)
    script = [torch.stack([nothing, nothing]), torch.stack([perfect, all_of_it]), nothing[None], all_of_it[None]]
    pictures, sizes = [], []

    def method(picture: Picture) -> Reading:
        pictures.append(picture)

        def read_out(question: Question) -> Tensor:
            sizes.append(tuple(question.prompts.labels.shape[1:]))
            return question.full.scaled_mean()[0, :, 0]

        return read_out

    protocol = Protocol(clicks=(1, 3, 4))
    result = evaluate_image(
        cast(RuacModel, Scripted(script)), labelled(two_bands), protocol, {"own": method, "head": METHODS["head"]}
    )
    assert len(pictures) == 1
    # two objects after one prompt; the perfect one after two, the other one after three; that one again after four
    assert sizes == [(2, 1), (1, 2), (1, 3), (1, 4)]
    for clicks in (1, 3, 4):
        own, head = (result.after[clicks].detection[name].image for name in ("own", "head"))
        np.testing.assert_array_equal(own.counts, head.counts)
    # 20 rows of the first object are right; of the second one 28 rows of 64 are missing
    assert result.after[3].detection["own"].image.counts.sum(1).tolist() == [2 * 64 * 64 - 28 * 64, 28 * 64]
    assert result.after[3].predicted_iou == pytest.approx((0.99, 0.99))
    assert result.after[1].predicted_iou == pytest.approx((0.8, 0.8))


def test_expected_iou_is_that_of_the_methods_probabilities_for_the_heads_mask(two_bands: np.ndarray) -> None:
    model = Scripted([low_resolution(two_bands == 1)[None]])
    ids = np.where(two_bands == 1, 1, 0)
    methods = {"unsure": lambda picture: lambda question: torch.zeros(1, SIDE, SIDE)}
    result = evaluate_image(cast(RuacModel, model), labelled(ids), Protocol(clicks=(1,)), methods)
    # half of 20 rows over 20 rows and half of the other 44
    assert result.after[1].expected_iou["unsure"] == pytest.approx((10 / 42,))


def test_people_are_heard_where_there_are_several(two_bands: np.ndarray) -> None:
    model = Scripted([low_resolution(two_bands == 1)[None]])
    ids = np.where(two_bands == 1, 1, 0).astype(np.uint8)
    others = np.stack([ids, ids, np.roll(ids, 4, 0)])
    image = LabelledImage("a", np.zeros((SIDE, SIDE, 3), np.uint8), ids, People.of(others))
    people = evaluate_image(cast(RuacModel, model), image, Protocol(clicks=(1,))).after[1].people
    assert set(people) == {"head", "plain"}
    # one of three disagrees on twice four rows
    assert people["head"].image.counts[:, 20].sum() == 8 * SIDE
    assert people["head"].image.counts.sum() == SIDE * SIDE
    alone = evaluate_image(cast(RuacModel, Scripted([model.masks[0]])), labelled(ids), Protocol(clicks=(1,)))
    assert alone.after[1].people == {}


@given(*(arrays(np.bool_, (9, 11)) for _ in range(3)))
def test_looking_for_errors_in_a_box_finds_the_same_click(mask: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> None:
    regions = []
    for wrong in (truth & ~mask & valid, mask & ~truth & valid):
        regions += [largest_region(wrong), largest_region(wrong & ~largest_region(wrong))]
    sizes = sorted(int(region.sum()) for region in regions)
    assume(sizes[-1] > sizes[-2])  # of regions of one size either may be taken
    found = correction(mask, truth, valid)
    assert found is not None
    assert [tuple(point) for point in found] == [next_click(mask, truth, valid)]


def test_without_an_error_there_is_no_correction() -> None:
    mask = np.eye(8, dtype=bool)
    assert correction(mask, mask, np.ones_like(mask)) is None
    assert correction(mask, ~mask, np.zeros_like(mask)) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Protocol(clicks=(3, 1)), "1,3,5, not 3,1"),
        (lambda: Protocol(clicks=()), "not none"),
        (lambda: Protocol(clicks=(0, 1)), "not 0,1"),
        (lambda: Protocol(max_objects=0), "max_objects must be at least 1, not 0"),
        (lambda: Protocol(noc=0), "noc must be at least 1, not 0"),
        (lambda: Protocol(prompt="dot"), "prompt must be 'point' or 'box', not 'dot'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], Protocol], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask\.png: 4 x 6 pixels, but its image has 6 x 4"):
        read(Sample("a", tmp_path / "a.png", tmp_path / "mask.png"))


@pytest.mark.real_data
def test_real_images_are_evaluated_whole(tiny_model: RuacModel, real_data: Path) -> None:
    for sample in FolderSet.open(real_data / "eval" / "trashcan").samples[:2]:
        image = read(sample)
        result = evaluate_image(tiny_model, image, Protocol())
        assert result.objects
        for clicks in (1, 3, 5):
            assert len(result.after[clicks].quality) == len(result.objects)
            read_out = result.after[clicks].detection["head"].image.read()
            assert read_out.pixels == len(result.objects) * int((image.ids != 255).sum())
            assert 0 < read_out.error_rate < 1
