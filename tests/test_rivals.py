"""Methods with weights of their own: each against a reference, none touching a mask."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from families import shaken
from squares import write_set
from torch import Tensor
from torch.distributions import Beta, kl_divergence

from ruac.adapter import save_head
from ruac.data.folder import FolderSet, find_sets
from ruac.data.scenes import SceneConfig
from ruac.distribution import MaskDistribution
from ruac.evaluate.conversation import ask, look_at
from ruac.evaluate.protocol import Protocol, evaluate_image, read
from ruac.evaluate.question import Picture, Question
from ruac.families.nano import NanoConfig
from ruac.features import DecoderFeatures, Prompts
from ruac.heads import ExactHead, PlainHead
from ruac.model import RuacConfig, RuacModel
from ruac.rivals import store
from ruac.rivals.dropout import RATES, choose_rate, dropout, dropout_training, thinned
from ruac.rivals.ensemble import ensemble, members
from ruac.rivals.evidential import Evidence, EvidentialHead, evidential, evidential_loss, train_evidential
from ruac.rivals.laplace import Curvature, Posterior, accumulate, choose, laplace
from ruac.rivals.lessons import Lesson, Lessons, stream
from ruac.rivals.registry import FITS, open_rivals
from ruac.training.config import Stage


@pytest.fixture(scope="module")
def model() -> RuacModel:
    """Random masks with logits of a few units, different from place to place, and an untrained head."""
    torch.manual_seed(0)
    sam = NanoConfig.of_size(64, width=32).to_dict()
    lively = RuacModel(RuacConfig(sam=sam, head="exact", head_trained=False)).requires_grad_(False)
    shaken(lively.sam)
    for network in lively.sam.mask_decoder.output_hypernetworks_mlps:
        network.proj_out.weight.mul_(6)
        network.proj_out.bias.normal_()
    return lively.eval()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[FolderSet]:
    # 40 pictures, of which a few are held out
    return find_sets([write_set(tmp_path_factory.mktemp("rivals") / "squares", images=40)])


@pytest.fixture(scope="module")
def picture(model: RuacModel) -> Picture:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 6, 6))).float()
    image = F.interpolate(coarse, size=(48, 64), mode="bicubic").clamp(0, 255)[0].permute(1, 2, 0).byte().numpy()
    with torch.inference_mode():
        return look_at(model, np.ascontiguousarray(image))


@pytest.fixture(scope="module")
def question(picture: Picture) -> Question:
    points = torch.tensor([[[[20.0, 15.0], [40.0, 30.0]], [[50.0, 20.0], [10.0, 40.0]]]])
    with torch.inference_mode():
        return ask(picture, Prompts(points, torch.tensor([[[1, 0], [1, 1]]])))


def lessons(steps: int = 4, **stage: float) -> Lessons:
    return Lessons(Stage(steps=steps, images=2, objects=2, warmup=1, pictures="photographs", **stage), SceneConfig(smallest=10.0))  # pyright: ignore[reportArgumentType]


def made_up(channels: int = 3, side: int = 4, seed: int = 0, size: float = 1.0) -> Lesson:
    """Random features of 2 pictures with 2 objects each; the labels follow the logits, with noise; a corner does not count."""
    g = torch.Generator().manual_seed(seed)
    pixels, weights = (
        size * torch.randn(2, 2, channels, side, side, generator=g),
        torch.randn(2, 2, 1, channels, generator=g),
    )
    features = DecoderFeatures(pixels, weights, torch.randn(2, 2, 1, 8, generator=g), torch.zeros(2, 2, 1), None)
    logit = PlainHead()(features).mean
    target = (torch.rand(logit.shape, generator=g) < logit.sigmoid()).float()
    valid = torch.ones(2, 1, 1, side, side)
    valid[..., 0, 0] = 0
    return Lesson(features, target, valid)


def negative_log_likelihood(flat: Tensor, lesson: Lesson) -> Tensor:
    """As a function of A, flattened; summed over the pixels that count."""
    features = lesson.features.map(Tensor.double)
    c = features.pixels.shape[2]
    moved = torch.einsum("cd,bpdhw->bpchw", torch.eye(c).double() + flat.view(c, c), features.pixels)
    logit = torch.einsum("bpkc,bpchw->bpkhw", features.weights, moved)
    each = F.binary_cross_entropy_with_logits(logit, lesson.target.double(), reduction="none")
    return (each * lesson.valid).sum()


# lessons


def test_lessons_are_what_the_decoder_sees_and_the_same_every_time(model: RuacModel, sets: list[FolderSet]) -> None:
    first, again = (list(stream(model, sets, lessons())) for _ in range(2))
    assert len(first) == 8
    for one, two in zip(first, again, strict=True):
        assert one.features.pixels.shape == (1, 2, 4, 16, 16)
        assert one.features.weights.shape == (1, 2, 1, 4)
        assert one.target.shape == (1, 2, 1, 16, 16)
        assert one.valid.shape == (1, 1, 1, 16, 16)
        assert 0 < one.valid.mean() < 1  # letterboxed
        assert one.target.amax() == 1
        assert torch.equal(one.features.pixels, two.features.pixels)
    held_out = list(stream(model, sets, lessons(), held_out=True))
    assert not torch.equal(held_out[0].target, first[0].target)


# Laplace


def test_the_curvature_is_the_hessian_of_the_likelihood() -> None:
    lesson = made_up()
    hessian = torch.autograd.functional.hessian(
        lambda flat: negative_log_likelihood(flat, lesson), torch.zeros(9, dtype=torch.float64)
    )
    found = Curvature.of(lesson)
    torch.testing.assert_close(found.matrix, hessian, rtol=1e-6, atol=1e-8)
    assert found.pixels == 2 * 2 * 15
    both = accumulate([lesson, made_up(seed=1)])
    torch.testing.assert_close(both.matrix, found.matrix + Curvature.of(made_up(seed=1)).matrix)


def test_the_variance_is_that_of_logits_under_drawn_maps() -> None:
    lesson = made_up()
    root = 0.3 * torch.randn(9, 9, generator=torch.Generator().manual_seed(3))
    variance = Posterior(root @ root.T).variance(lesson.features)
    drawn = torch.randn(40_000, 9, generator=torch.Generator().manual_seed(4)) @ root.T
    change = torch.einsum("bpkc,ncd,bpdhw->nbpkhw", lesson.features.weights, drawn.view(-1, 3, 3), lesson.features.pixels)
    torch.testing.assert_close(variance, change.var(0), rtol=0.04, atol=1e-4)


def test_the_variance_is_the_one_of_the_brute_force_posterior() -> None:
    lesson = made_up()
    hessian = torch.autograd.functional.hessian(
        lambda flat: negative_log_likelihood(flat, lesson), torch.zeros(9, dtype=torch.float64)
    )
    covariance = torch.linalg.inv(hessian + 2.0 * torch.eye(9))
    jacobian = torch.einsum("bpki,bpjhw->bpkhwij", lesson.features.weights, lesson.features.pixels).flatten(-2).double()
    expected = torch.einsum("bpkhwi,ij,bpkhwj->bpkhw", jacobian, covariance, jacobian)
    assert expected.std() > 0.01
    torch.testing.assert_close(Posterior(covariance).variance(lesson.features), expected.float(), rtol=1e-4, atol=1e-6)


def test_the_prior_is_chosen_where_held_out_labels_are_likeliest() -> None:
    """Logits three times too large want doubt; logits that are right want none."""
    right = [made_up(side=24, seed=seed, size=2.0) for seed in range(4)]
    sure = [replace(lesson, features=replace(lesson.features, weights=3 * lesson.features.weights)) for lesson in right]
    for given, doubted in ((right, False), (sure, True)):
        chosen = choose(accumulate(given[:2]), given[2:])
        held_out = given[2]
        plain = F.binary_cross_entropy_with_logits(PlainHead()(held_out.features).mean, held_out.target)
        after = F.binary_cross_entropy_with_logits(
            chosen.posterior.distribution(held_out.features).scaled_mean(), held_out.target
        )
        assert (after < plain - 0.1) == doubted
        assert (chosen.posterior.variance(held_out.features).mean() > 1) == doubted


# evidence


def test_the_distribution_has_the_betas_mean_and_the_decoders_masks() -> None:
    g = torch.Generator().manual_seed(0)
    amount, logit = 3 * torch.randn(1, 1, 1, 40, 40, generator=g), 4 * torch.randn(1, 1, 1, 40, 40, generator=g)
    logit[..., 0, :] *= 1e-4
    evidence = Evidence(amount, logit)
    beta = Beta(1 + evidence.foreground, 1 + evidence.background)
    distribution = evidence.distribution()
    torch.testing.assert_close(distribution.probability(), beta.mean, rtol=1e-3, atol=1e-5)
    assert torch.equal(distribution.mean, logit)
    assert torch.equal(beta.mean > 0.5, logit > 0) or ((beta.mean - 0.5).abs()[(beta.mean > 0.5) != (logit > 0)] < 1e-6).all()


def test_no_evidence_is_a_coin_toss_and_much_of_it_is_the_decoders_word() -> None:
    logit = torch.tensor([-3.0, -0.5, 0.5, 6.0]).view(1, 1, 1, 1, 4)
    nothing, all_ = (Evidence(torch.full_like(logit, amount), logit).distribution() for amount in (-10.0, 10.0))
    assert (nothing.probability() - 0.5).abs().max() < 0.01
    torch.testing.assert_close(all_.probability(), logit.sigmoid(), atol=1e-3, rtol=1e-3)


def test_the_evidential_loss_is_the_expected_error_and_a_divergence_of_beta_distributions() -> None:
    g = torch.Generator().manual_seed(0)
    evidence = Evidence(torch.rand(1, 1, 1, 6, 6, generator=g), torch.randn(1, 1, 1, 6, 6, generator=g))  # g > 0: no revival
    target = (torch.rand(1, 1, 1, 6, 6, generator=g) < 0.5).float()
    valid = torch.ones(1, 1, 1, 6, 6)
    alpha, beta = 1 + evidence.foreground, 1 + evidence.background
    p = Beta(alpha, beta).sample(torch.Size([50_000]))
    risk = (target - p).square().mean()
    misled = kl_divergence(
        Beta(torch.where(target > 0.5, 1.0, alpha), torch.where(target > 0.5, beta, 1.0)), Beta(torch.ones(()), torch.ones(()))
    ).mean()
    assert evidential_loss(evidence, target, valid, 0.0).item() == pytest.approx(risk.item(), rel=4e-3)
    assert evidential_loss(evidence, target, valid, 0.5).item() == pytest.approx((risk + 0.5 * misled).item(), rel=4e-3)


def test_pixels_without_evidence_get_it_back_where_they_are_wrong() -> None:
    amount = torch.full((1, 1, 1, 1, 1), -9.0, requires_grad=True)
    loss = evidential_loss(
        Evidence(amount, torch.full_like(amount, 4.0)), torch.zeros(1, 1, 1, 1, 1), torch.ones_like(amount), 0.0
    )
    (gradient,) = torch.autograd.grad(loss, amount)
    assert gradient.item() == pytest.approx(-0.01 * 0.5, rel=0.05)


def test_evidence_is_learnt_where_labels_are_a_matter_of_chance() -> None:
    """Left half: labels follow the logits. Right half: a coin toss. A feature that no mask uses tells them apart."""

    def lesson(seed: int) -> Lesson:
        made = made_up(channels=4, side=16, seed=seed, size=3.0)
        made.features.pixels[:, :, 3] = torch.tensor([-1.0, 1.0]).repeat_interleave(8)
        made.features.weights[..., 3] = 0
        g = torch.Generator().manual_seed(seed)
        coin = (torch.rand(made.target.shape, generator=g) < 0.5).float()
        sure = (PlainHead()(made.features).mean > 0).float()
        return replace(made, target=torch.where(torch.arange(16) < 8, sure, coin))

    torch.manual_seed(0)
    head, unseen = EvidentialHead(4, 8), lesson(1000)

    def loss() -> float:
        with torch.no_grad():
            return evidential_loss(head.evidence(unseen.features), unseen.target, unseen.valid, 1.0).item()

    before = loss()
    assert len(train_evidential(head, (lesson(i) for i in range(240)), Stage(steps=120, rate=3e-2, warmup=5))) == 240
    assert loss() < before - 1
    with torch.no_grad():
        distribution = head(unseen.features)
    assert torch.equal(distribution.mean > 0, PlainHead()(unseen.features).mean > 0)
    entropy = distribution.entropy()
    assert entropy[..., 8:].mean() > entropy[..., :8].mean() + 0.2


# dropout


def test_a_thinned_network_lacks_channels_and_keeps_the_mean() -> None:
    features = made_up(channels=3, seed=2).features
    logits = thinned(features, 0.4, samples=20_000)
    x_h = torch.einsum("bpkc,bpchw->bpkchw", features.weights, features.pixels)
    torch.testing.assert_close(logits.mean(0), x_h.sum(3), atol=0.06, rtol=0.02)
    torch.testing.assert_close(logits.var(0), 0.4 / 0.6 * x_h.square().sum(3), atol=0.02, rtol=0.06)
    assert torch.equal(thinned(features, 0.4), thinned(features, 0.4))
    one = thinned(features.map(lambda v: v[:1]), 0.4)
    assert torch.allclose(one, thinned(features, 0.4)[:, :1], atol=1e-6)


def test_the_rate_is_the_one_under_which_labels_are_likeliest() -> None:
    right = [made_up(channels=8, side=16, seed=seed, size=1.0) for seed in range(3)]
    sure = [replace(lesson, features=replace(lesson.features, weights=4 * lesson.features.weights)) for lesson in right]
    (rate, nll), (cautious, worse) = choose_rate(right), choose_rate(sure)
    assert min(RATES) < rate < 0.02
    assert cautious > 0.1
    assert nll < worse


def test_training_with_dropout_drops_weights_out_and_evaluation_does_not(picture: Picture, question: Question) -> None:
    torch.manual_seed(0)
    model = RuacModel(RuacConfig(sam=NanoConfig.of_size(64, width=32).to_dict(), head="exact"))
    names = set(model.state_dict())
    plain = model.eval().decode(picture.features, question.prompts).weights
    dropout_training(0.5).adapt(model)
    assert set(model.state_dict()) == names
    assert torch.equal(model.eval().decode(picture.features, question.prompts).weights, plain)
    dropped = model.train().decode(picture.features, question.prompts).weights
    gone = dropped == 0
    assert 0.2 < gone.float().mean() < 0.8
    torch.testing.assert_close(dropped[~gone], 2 * plain[~gone])
    with pytest.raises(ValueError, match="between 0 and 1"):
        dropout_training(1.0)


# as methods


def test_nothing_to_doubt_reads_like_the_plain_decoder(model: RuacModel, picture: Picture, question: Question) -> None:
    plain = question.plain.mean[0, :, 0]
    sure = Posterior(torch.zeros(16, 16))
    assert torch.allclose(laplace(sure)(picture)(question), plain, atol=1e-4)
    assert torch.allclose(dropout(1e-9, 2)(picture)(question), plain, atol=1e-3)
    assert torch.allclose(ensemble([model])(picture)(question), plain, atol=1e-3)
    doubtful = laplace(Posterior(torch.eye(16)))(picture)(question)
    assert ((doubtful > 0) == (plain > 0)).float().mean() > 0.99
    assert (doubtful.abs() <= plain.abs() + 1e-4).all()
    assert (doubtful.abs() < plain.abs() - 0.1).float().mean() > 0.3


@torch.inference_mode()
def test_an_ensemble_is_the_mean_probability_of_models_told_the_same(
    model: RuacModel, picture: Picture, question: Question, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    other = RuacModel(RuacConfig(sam=model.config.sam, head="exact", head_trained=False)).requires_grad_(False)
    shaken(other.sam, seed=3)
    other.save_pretrained(tmp_path / "other")
    two = members(model, [tmp_path / "other"])
    logits = ensemble(two)(picture)(question)
    theirs = ask(
        Picture(two[1], picture.image, two[1].encode(two[1].prepare(picture.image)[0][None], (picture.frame,))), question.prompts
    )
    expected = (question.full.mean.sigmoid() + theirs.full.mean.sigmoid())[0, :, 0] / 2
    assert (theirs.full.mean - question.full.mean).abs().max() > 0.5
    assert torch.allclose(logits.sigmoid(), expected, atol=1e-5)


@torch.inference_mode()
def test_heads_of_an_ensemble_share_the_decoders_features(
    model: RuacModel, picture: Picture, question: Question, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lively = RuacModel.around(model.sam)
    assert isinstance(lively.head, ExactHead)
    torch.nn.init.normal_(lively.head.surroundings[-1].weight)
    lively.config.head_trained = True
    save_head(lively, tmp_path / "head.safetensors")
    two = members(model, [tmp_path / "head.safetensors"])
    monkeypatch.setattr(RuacModel, "decode", lambda *_: pytest.fail("decoded again"))
    logits = ensemble(two)(picture)(question)
    low: MaskDistribution = lively(question.decoded.select(question.token[..., None]))
    theirs = low.resize(picture.frame, model.side).probability()
    assert torch.allclose(logits.sigmoid(), (question.plain.probability() + theirs)[0, :, 0] / 2, atol=1e-5)
    with pytest.raises(ValueError, match="agrees with itself"):
        members(model, [])


@pytest.mark.parametrize("name", list(FITS))
def test_each_is_fitted_written_opened_and_judged_on_the_decoders_own_masks(
    name: str, model: RuacModel, sets: list[FolderSet], tmp_path: Path
) -> None:
    file = FITS[name](model, sets, tmp_path / "fitted" / f"{name}.safetensors", lessons(6, rate=1e-2))
    again = FITS[name](model, sets, tmp_path / "again.safetensors", lessons(6, rate=1e-2))
    first, second = store.read(file, model), store.read(again, model)
    assert first.facts == second.facts
    assert all(torch.equal(first.tensors[key], second.tensors[key]) for key in first.tensors)
    methods = open_rivals(model, [file])
    assert list(methods) == [name]
    protocol = Protocol(clicks=(1, 2), max_objects=2)
    plain = {"plain": lambda picture: lambda question: question.plain.mean[0, :, 0]}
    with_rival, without = (evaluate_image(model, read(sets[0].samples[0]), protocol, m) for m in (plain | methods, plain))
    for clicks in protocol.clicks:
        assert with_rival.after[clicks].quality == without.after[clicks].quality
        histogram = with_rival.after[clicks].detection[name].image
        assert histogram.counts.sum() == without.after[clicks].detection["plain"].image.counts.sum() > 0
        assert np.isfinite(histogram.nll)


def test_files_that_do_not_fit_are_refused(model: RuacModel, tmp_path: Path) -> None:
    file = tmp_path / "rival.safetensors"
    store.write(file, store.Stored("dropout", {"rate": torch.tensor(0.1)}, {}), model)
    assert list(open_rivals(model, [file])) == ["dropout"]
    with pytest.raises(ValueError, match="a second file with the method 'dropout'"):
        open_rivals(model, [file, file])
    other = RuacModel(RuacConfig(sam=model.config.sam, head="exact"))
    with pytest.raises(ValueError, match="fitted to another mask decoder"):
        open_rivals(other, [file])
    store.write(file, store.Stored("guess", {"rate": torch.tensor(0.1)}, {}), model)
    with pytest.raises(ValueError, match="unknown method 'guess'; known are laplace"):
        open_rivals(model, [file])
    file.write_bytes(b"no")
    with pytest.raises(ValueError, match="not a safetensors file"):
        open_rivals(model, [file])
    with pytest.raises(FileNotFoundError, match="no fitted method"):
        open_rivals(model, [tmp_path / "nothing"])


def test_the_evidential_method_reads_the_head(picture: Picture, question: Question) -> None:
    torch.manual_seed(0)
    head = EvidentialHead(4, 32).requires_grad_(False)
    torch.nn.init.normal_(head.pixel[-1].weight, std=3)
    chosen = question.decoded.select(question.token[..., None])
    expected = head(chosen).resize(picture.frame, picture.model.side).probability()[0, :, 0]
    assert torch.allclose(evidential(head)(picture)(question).sigmoid(), expected, atol=1e-6)
    assert (expected - question.plain.probability()[0, :, 0]).abs().max() > 0.01
