"""Every family, opened, gives what transformers' own forward pass gives: masks, predicted IoU, object score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from families import TINY, shaken, tiny_nano, tiny_sam2
from torch import Tensor

from ruac.families import FAMILIES, open_model
from ruac.families.decoder import embed_masks
from ruac.families.dense_prompts import draw
from ruac.features import NO_POINT, Frame, Prompts, box_points
from ruac.heads import ExactHead, PlainHead
from ruac.model import RuacModel, chosen_token

IMAGES, OBJECTS = 2, 3
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=list(TINY))
def sam(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return shaken(TINY[request.param]())


POINTS, LABELS = rand(IMAGES, OBJECTS, 2, 2, seed=1) * 50, torch.tensor([1, 0]).expand(IMAGES, OBJECTS, 2)
CORNERS = torch.sort(rand(IMAGES, OBJECTS, 2, 2, seed=2), dim=2).values.flatten(2) * 50
CLICKS = Prompts(POINTS, LABELS)
BOXES = Prompts.none(IMAGES, OBJECTS).with_points(*box_points(CORNERS))
BOTH = CLICKS.with_points(*box_points(CORNERS))
# transformers takes one mask an image, for all its objects
MASK = rand(IMAGES, 1, 16, 16, seed=3) * 20 - 10
MASKED = CLICKS.with_mask(MASK.expand(IMAGES, OBJECTS, 16, 16))
MASK_ALONE = Prompts.none(IMAGES, 1).with_mask(MASK)
PROMPTS = {
    "points": (CLICKS, {"input_points": POINTS, "input_labels": LABELS}),
    "boxes": (BOXES, {"input_boxes": CORNERS}),
    "points and boxes": (BOTH, {"input_points": POINTS, "input_labels": LABELS, "input_boxes": CORNERS}),
    "points and a mask": (MASKED, {"input_points": POINTS, "input_labels": LABELS, "input_masks": MASK}),
    "a mask alone": (MASK_ALONE, {"input_masks": MASK}),
}


class WritesBack(torch.nn.Module):
    """SAM-HQ's transformer, its second result written into the image features it was given.

    `SamHQMaskDecoder.forward` of transformers 5.23 upscales the features from before the transformer, axes swapped, and drops those
    after it. The published SAM-HQ, whose weights those are, upscales the latter; so does ruac.
    """

    def __init__(self, transformer: torch.nn.Module):
        super().__init__()
        self.transformer = transformer

    def forward(self, image_embeddings: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
        before = image_embeddings.clone()
        tokens, image = self.transformer(image_embeddings=image_embeddings, **arguments)
        assert torch.equal(image_embeddings, before), "transformers has changed: this wrapper may no longer be needed"
        after = image.flatten(0, 1).mT.unflatten(-1, image_embeddings.shape[-2:])
        image_embeddings.copy_(after.transpose(2, 3))  # forward swaps the axes once more
        return tokens, image


@contextmanager
def repaired(sam: Any) -> Iterator[None]:
    decoder = sam.mask_decoder
    whole = decoder.transformer
    if sam.config.model_type == "sam_hq":
        decoder.transformer = WritesBack(whole)
    try:
        yield
    finally:
        decoder.transformer = whole


def theirs(sam: Any, pixels: Tensor, arguments: dict[str, Tensor], multimask: bool) -> Any:
    """transformers' own forward; an image at a time where a mask is given, since theirs cannot do otherwise for SAM."""
    if "input_masks" not in arguments:
        return sam(pixels, multimask_output=multimask, **arguments)
    outputs = [
        sam(pixels[i : i + 1], multimask_output=multimask, **{name: value[i : i + 1] for name, value in arguments.items()})
        for i in range(len(pixels))
    ]
    return {
        name: torch.cat([output[name] for output in outputs])
        for name in ("pred_masks", "iou_scores", "object_score_logits")
        if name in outputs[0]
    }


@pytest.mark.parametrize("kind", list(PROMPTS))
@torch.inference_mode()
def test_all_candidates_equal_transformers_own(sam, kind):
    prompts, arguments = PROMPTS[kind]
    family = open_model(sam)
    pixels = (rand(IMAGES, 3, family.side, family.side, seed=4) * 255).round()
    features = family.decode(family.encode(pixels, ()), prompts)
    normalised = pixels_as_transformers_wants(sam, pixels)
    with repaired(sam):
        many, one = (theirs(sam, normalised, arguments, multimask) for multimask in (True, False))
    order = torch.arange(1, 4).expand(*features.iou.shape[:2], 3)
    if sam.config.model_type == "sam_hq":  # which sorts its candidates
        order = features.iou[:, :, 1:].argsort(-1, descending=True) + 1
    token = chosen_token(features, with_two_words(prompts), family.stability)
    for head in (PlainHead(), ExactHead(family.channels, family.token_width)):
        for index, reference in ((order, many), (token, one)):
            selected = features.select(index)
            torch.testing.assert_close(head(selected).mean, reference["pred_masks"], **CLOSE)
            torch.testing.assert_close(selected.iou, reference["iou_scores"], **CLOSE)
    if features.object_logit is None:
        assert sam.config.model_type in ("sam", "sam_hq")
    else:
        torch.testing.assert_close(features.object_logit[..., None], many["object_score_logits"], **CLOSE)


def with_two_words(prompts: Prompts) -> Prompts:
    """transformers answers with token 0 whenever one mask is asked for; `chosen_token` when more than one word was said."""
    two = torch.ones(*prompts.labels.shape[:2], 2, dtype=torch.long)
    return Prompts(torch.zeros(*two.shape, 2), two)


def pixels_as_transformers_wants(sam: Any, pixels: Tensor) -> Tensor:
    mean, spread = ((0.5,) * 3, (0.5,) * 3)
    if sam.config.model_type != "sam3_tracker":
        mean, spread = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(spread).view(3, 1, 1)


@torch.inference_mode()
def test_padding_of_a_batch_changes_nobodys_mask(sam):
    """Two images with three and one objects, with two, three and no clicks: decoded together and each alone."""
    family = open_model(sam)
    pixels = (rand(2, 3, family.side, family.side, seed=5) * 255).round()
    features = family.encode(pixels, ())
    corners, corner_labels = box_points(CORNERS[:1, :1])
    each = [
        (0, Prompts(POINTS[:1, :1], LABELS[:1, :1])),
        (0, Prompts(POINTS[:1, 1:2, :1], LABELS[:1, 1:2, :1])),
        (0, Prompts(corners, corner_labels).with_points(POINTS[:1, :1, :1], LABELS[:1, :1, :1])),
        (1, Prompts(corners, corner_labels)),
    ]
    first = Prompts.pad([prompts for image, prompts in each if image == 0])
    first = Prompts(first.points.transpose(0, 1), first.labels.transpose(0, 1))
    batch = Prompts.pad([first, each[3][1]])
    assert batch.present.tolist() == [[True] * 3, [True, False, False]]
    together = family.decode(features, batch)
    for number, (image, prompts) in enumerate(each):
        alone = PlainHead()(family.decode(features.part(slice(image, image + 1)), prompts)).mean
        position = number if image == 0 else 0
        torch.testing.assert_close(PlainHead()(together).mean[image : image + 1, position : position + 1], alone, **CLOSE)


@torch.inference_mode()
def test_an_image_is_the_same_alone_and_in_a_batch(sam):
    family = open_model(sam)
    pixels = (rand(2, 3, family.side, family.side, seed=6) * 255).round()
    together = family.encode(pixels, ())
    alone = family.encode(pixels[1:], ())
    for a, b in zip(together.part(slice(1, 2)).levels, alone.levels, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_photograph_fits_the_input_and_its_padding_does_not_matter(sam):
    family = open_model(sam)
    image = (rand(3, 30, 45, seed=7) * 255).byte()
    pixels, frame = family.prepare(image)
    assert pixels.shape == (3, family.side, family.side)
    assert frame.original == (30, 45)
    padded = sam.config.model_type in ("sam", "sam_hq")
    assert frame.inside == ((44, 64) if padded else (family.side, family.side))
    if padded:
        other = pixels.clone()
        other[:, frame.inside[0] :] = 255
        a, b = (family.encode(p[None].float(), (frame,)).levels[-1] for p in (pixels, other))
        assert torch.equal(a, b)


@torch.inference_mode()
def test_models_of_mixed_precision_answer_in_full_precision(sam):
    model = RuacModel.around(sam)
    model.config.head_trained = True
    pixels = (rand(1, 3, model.side, model.side, seed=8) * 255).round()
    prompts = Prompts(POINTS[:1], LABELS[:1])
    full = model(model.decode(model.encode(pixels, ()), prompts))
    try:
        model.sam.to(torch.bfloat16)
        low = model(model.decode(model.encode(pixels, ()), prompts))
    finally:
        model.sam.to(torch.float32)
    assert low.mean.dtype == low.variance.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in model.head.parameters())
    # bfloat16 keeps eight bits: the maps agree, pixel by pixel they do not
    together = torch.stack([low.mean.flatten(), full.mean.flatten()])
    assert torch.corrcoef(together)[0, 1] > 0.95
    assert low.variance.min() >= 0


@pytest.mark.parametrize(("margin", "least", "stable"), [(0.0, 0.5, True), (1e6, 0.5, False), (0.5, 0.999, False)])
@torch.inference_mode()
def test_an_unstable_token_gives_way_to_the_best_candidate_as_in_transformers(margin, least, stable):
    torch.manual_seed(0)
    sam = shaken(
        tiny_sam2(
            dynamic_multimask_via_stability=True,
            dynamic_multimask_stability_delta=margin,
            dynamic_multimask_stability_thresh=least,
        )
    )
    family = open_model(sam)
    pixels = (rand(IMAGES, 3, 64, 64, seed=4) * 255).round()
    features = family.decode(family.encode(pixels, ()), CLICKS)
    token = chosen_token(features, CLICKS, family.stability)
    reference = sam(pixels_as_transformers_wants(sam, pixels), input_points=POINTS, input_labels=LABELS, multimask_output=False)
    assert (token == 0).all() == stable
    torch.testing.assert_close(PlainHead()(features.select(token)).mean, reference.pred_masks, **CLOSE)


@torch.inference_mode()
def test_opened_nano_equals_transformers_sam2_decoder():
    """nano's levels and dense prompts through `Sam2MaskDecoder.forward`, and through `decode` and the product."""
    torch.manual_seed(0)
    nano = shaken(tiny_nano())
    pixels = (rand(IMAGES, 3, 64, 64, seed=4) * 255).round()
    image = nano.encode(pixels, ())
    for prompts, arguments in (PROMPTS["points"], PROMPTS["boxes"], PROMPTS["points and a mask"]):
        features = nano.decode(image, prompts)
        fine, middle, coarse = nano.dense_prompts(image.expand(OBJECTS), draw(prompts, nano.grid, 4))
        given = {f"input_{name}": arguments.get(f"input_{name}") for name in ("points", "labels", "boxes")}
        sparse, _ = nano.prompt_encoder(**given, input_masks=None)
        masks, iou, _, score = nano.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=image.position.expand(IMAGES * OBJECTS, -1, -1, -1),
            sparse_prompt_embeddings=sparse.flatten(0, 1).unsqueeze(1),
            dense_prompt_embeddings=embed_masks(nano.prompt_encoder, prompts),
            multimask_output=True,
            high_resolution_features=[fine, middle],
        )
        ours = PlainHead()(features).mean[:, :, 1:]
        torch.testing.assert_close(ours.flatten(0, 1), masks.squeeze(1), **CLOSE)
        torch.testing.assert_close(features.iou[:, :, 1:].flatten(0, 1), iou.squeeze(1), **CLOSE)
        torch.testing.assert_close(features.object_logit.flatten(), score.flatten(), **CLOSE)


def test_every_family_is_tested():
    assert {open_model(shaken(make())).__class__.__name__ for make in TINY.values()} == {name for _, _, name in FAMILIES.values()}


def test_a_model_of_another_kind_is_refused_by_name():
    import transformers

    with pytest.raises(ValueError, match="no Segment Anything model of type 'resnet'"):
        open_model(transformers.ResNetModel(transformers.ResNetConfig(depths=[1], hidden_sizes=[8], embedding_size=8)))


def test_prompts_with_and_without_masks_are_not_padded_together():
    with pytest.raises(ValueError, match="1 of 2 prompts come with masks"):
        Prompts.pad([Prompts(POINTS[:1], LABELS[:1]), MASK_ALONE])


def test_a_padded_object_has_no_words():
    padded = Prompts.pad([Prompts(POINTS[:1], LABELS[:1]), Prompts(POINTS[:1, :1, :1], LABELS[:1, :1, :1])])
    assert padded.labels[1, 0].tolist() == [1, NO_POINT]
    assert (padded.labels[1, 1:] == NO_POINT).all()


def test_a_stretched_frame_maps_points_both_ways():
    frame = Frame((30, 45), (64, 64))
    points = torch.tensor([[0.0, 0.0], [44.0, 29.0]])
    torch.testing.assert_close(frame.to_original(frame.to_input(points)), points)
