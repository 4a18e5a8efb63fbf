"""The objective of a pass: which branch teaches whom, that attackers climb what the model descends, for every family."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from families import TINY, shaken, tiny_nano, tiny_sam2
from torch import nn

from ruac.model import RuacModel
from ruac.training.config import Attacking, Stage
from ruac.training.groups import attacking_parameters, parameter_groups
from ruac.training.objective import Chance, Objective, Outcome
from ruac.training.stream import Batch, batches
from ruac.training.variant import PLAIN, Judged, Variant

CHANCE = Chance(0, 0, 0)
RUAC = Stage(
    steps=10, images=4, objects=2, alignment_weight=0.1, kl_weight=5e-13, kl_begins=0.0, attack=Attacking(begins=0.0), warmup=1
)
FAMILIES = {**TINY, "nano": tiny_nano}


def model_of(family: str = "nano", head: str = "exact") -> RuacModel:
    torch.manual_seed(0)
    sam = FAMILIES[family]()
    # as transformers starts them, pictures hardly matter
    model = RuacModel.around(sam if family == "nano" else shaken(sam), head)
    model.config.head_trained = True
    return model


def batch_for(model: RuacModel, images: int = 4) -> Batch:
    """Two rectangles in noise, elsewhere in every picture."""
    g, side = torch.Generator().manual_seed(1), model.side
    ids = torch.zeros(images, side, side, dtype=torch.uint8)
    for i in range(images):
        ids[i, 4 + 2 * i : 24 + 2 * i, 6:30], ids[i, 30:50, 20 + 3 * i : 44 + 3 * i] = 1, 2
    ids[:, -3:] = 255
    pixels = torch.randint(0, 100, (images, 3, side, side), generator=g) + 120 * (ids == 1)[:, None] + 60 * (ids == 2)[:, None]
    return Batch(pixels.to(torch.uint8), ids, torch.tensor([[1, 2]]).expand(images, 2), torch.arange(images))


def objective_for(stage: Stage, model: RuacModel | None = None, variant: Variant = PLAIN, precision: str = "no") -> Objective:
    model = model_of() if model is None else model
    objective = Objective(model, replace(stage, image_size=model.side), seed=0, variant=variant, precision=precision)
    parameter_groups(objective, variant, 0.0)
    return objective


def branches(objective: Objective, batch: Batch, done: float = 1.0) -> list[Outcome]:
    """Forward and backward of all that there is to do."""
    outcomes, work = [], batch
    while work is not None:
        outcomes.append(objective(work, CHANCE, done))
        outcomes[-1].loss.backward()
        work = outcomes[-1].pending
    return outcomes


def gradients(objective: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def without_dropout(objective: Objective) -> Objective:
    for module in objective.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return objective


@pytest.mark.parametrize("train", ["all", "decoder", "head"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_learns_what_the_stage_names_and_its_attackers_learn_too(family, train):
    objective = objective_for(replace(RUAC, train=train), model_of(family))
    outcomes = branches(objective, batch_for(objective.model))
    assert len(outcomes) == 2
    assert all(torch.isfinite(value) for outcome in outcomes for value in (outcome.loss, *outcome.figures.values()))
    learnt = gradients(objective)
    assert any(name.startswith("model.sam.vision_encoder.") for name in learnt) == (train == "all")
    assert any(name.startswith("model.sam.mask_decoder.") for name in learnt) == (train != "head")
    assert any(name.startswith("model.head.") for name in learnt)
    assert {name.split(".")[1] for name in learnt if name.startswith("attack.")} == {"style", "deformation"}


def test_attackers_climb_what_the_model_descends():
    """Along its own gradient step, taken as an optimiser takes it, the model's loss falls and the attackers' step makes it rise."""
    attack = Attacking(begins=0.0, kind="cooperative", weight=1.0)
    objective = without_dropout(objective_for(replace(RUAC, attack=attack), model_of("sam2")))
    batch = batch_for(objective.model)
    before = branches(objective, batch)[1].loss.item()
    attackers = attacking_parameters(objective)
    there = {id(p) for p in attackers}
    defenders = [p for p in objective.parameters() if id(p) not in there and p.grad is not None]

    def after(step: float, parameters: list[nn.Parameter]) -> float:
        steps = [(p, p.grad) for p in parameters if p.grad is not None]
        length = torch.stack([gradient.norm() for _, gradient in steps]).norm()
        with torch.no_grad():
            for p, gradient in steps:
                p.sub_(step * gradient / length)
            loss = objective(objective(batch, CHANCE, 1.0).pending, CHANCE, 1.0).loss.item()
            for p, gradient in steps:
                p.add_(step * gradient / length)
        return loss

    assert after(0.05, attackers) > before + 1e-4
    assert after(-0.05, attackers) < before - 1e-4
    assert after(0.01, defenders) < before - 1e-3


@pytest.mark.parametrize("train", ["all", "decoder", "head"])
def test_attackers_are_shown_the_slope_of_the_clean_loss_where_the_stage_says_so(train):
    for slope in (True, False):
        objective = objective_for(replace(RUAC, train=train, attack=Attacking(begins=0.0, slope=slope)), model_of("sam2"))
        branches(objective, batch_for(objective.model))
        assert ({"attack.style.follow", "attack.deformation.follow"} <= gradients(objective).keys()) == slope


def test_the_slope_is_the_gradient_of_the_clean_loss_in_the_pictures():
    def smooth(judged: Judged) -> torch.Tensor:
        """Without the steps of the losses: which candidate is best, which IoU it has."""
        return (judged.model(judged.decoded).mean.sigmoid().mean((-2, -1)) * judged.truth.mean((-2, -1))).mean((1, 2))

    model = RuacModel.around(shaken(tiny_sam2()).double())
    objective = objective_for(RUAC, model.double(), Variant(loss=smooth))
    clean = objective(batch_for(objective.model), CHANCE, 1.0)
    clean.loss.backward()
    asked = clean.pending.asked
    slope, images = asked.images.grad, asked.images.detach()

    def loss(changed: torch.Tensor) -> float:
        """With the clicks as they are, which jump."""
        with torch.no_grad():
            return objective._branch(asked, objective._encoded(changed), attacked=False)[0].mean().item()

    step = 0.01 * slope.sign()
    rise = 0.8 * (loss(images + step) - loss(images - step)) / 2
    assert rise == pytest.approx((slope * step).sum().item(), rel=0.1)
    assert rise > 1e-7


def test_clean_and_attacked_share_one_unit_of_weight_and_before_the_attack_begins_the_clean_one_has_it_all():
    batch = batch_for(model_of())
    stage = replace(RUAC, attack=Attacking(kind="none", begins=0.5))
    clean, attacked = branches(objective_for(stage), batch, done=0.5)
    (early,) = branches(objective_for(stage), batch, done=0.4)
    assert clean.loss.item() == pytest.approx(0.8 * early.loss.item(), rel=1e-5)
    assert attacked.loss.item() == pytest.approx(0.2 * early.loss.item(), rel=1e-4)
    assert early.pending is None
    assert attacked.figures["attacked_loss1"].item() == pytest.approx(clean.figures["loss1"].item(), rel=1e-5)


def test_the_sum_of_both_gradients_is_that_of_the_weighted_sum():
    """Two backward passes in turn leave what one pass of the whole objective would have left."""
    stage = replace(RUAC, attack=Attacking(kind="deformation", begins=0.0, slope=False))
    objective = objective_for(stage)
    batch = batch_for(objective.model)
    branches(objective, batch)
    in_turn = gradients(objective)
    objective.zero_grad(set_to_none=True)
    clean = objective(batch, CHANCE, 1.0)
    (clean.loss + objective(clean.pending, CHANCE, 1.0).loss).backward()
    together = gradients(objective)
    assert in_turn.keys() == together.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(in_turn[name], gradient, rtol=1e-3, atol=1e-6 + 1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("kind", ["deformation", "pgd"])
@pytest.mark.parametrize("train", ["all", "head"])
def test_pictures_dealt_out_to_processes_leave_the_gradient_of_all_of_them(train, kind):
    """The mean over two hands of two pictures is the step of four: losses, clicks and attacks of a picture ignore the others."""
    stage = replace(RUAC, train=train, attack=Attacking(kind=kind, begins=0.0))
    if kind == "pgd":  # which starts from noise drawn for the whole batch
        stage = replace(stage, attack=None)
    objective = objective_for(stage)
    batch = batch_for(objective.model)
    whole = sum(outcome.loss.item() for outcome in branches(objective, batch))
    of_all = gradients(objective)
    objective.zero_grad(set_to_none=True)
    hands = [Batch(*(value[i::2] for value in vars(batch).values())) for i in range(2)]
    dealt = sum(outcome.loss.item() / 2 for hand in hands for outcome in branches(objective, hand))
    assert dealt == pytest.approx(whole, rel=1e-5)
    for name, gradient in gradients(objective).items():
        torch.testing.assert_close(gradient / 2, of_all[name], rtol=1e-3, atol=1e-6 + 1e-4 * float(gradient.abs().max()))


@contextmanager
def counting_saved_bytes() -> Iterator[list[int]]:
    saved: list[int] = []

    def pack(value: torch.Tensor) -> torch.Tensor:
        saved.append(value.nbytes)
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield saved


@pytest.mark.parametrize("family", ["sam", "sam2", "sam3_tracker"])
def test_recomputed_blocks_give_the_same_gradient_from_less_memory(family):
    found, kept = {}, {}
    for recompute in (False, True):
        objective = without_dropout(objective_for(replace(RUAC, train="decoder", recompute=recompute), model_of(family)))
        batch = batch_for(objective.model)
        clean = objective(batch, CHANCE, 1.0)
        with counting_saved_bytes() as saved:
            objective(clean.pending, CHANCE, 1.0).loss.backward()
        found[recompute], kept[recompute] = gradients(objective), sum(saved)
    assert found[True].keys() == found[False].keys()
    for name, gradient in found[True].items():
        torch.testing.assert_close(gradient, found[False][name], rtol=1e-4, atol=1e-7)
    assert kept[True] < kept[False]


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({"alignment_weight": 0.0}, False),
        ({"alignment": "none", "alignment_weight": 0.0}, True),
        ({"alignment": "paper"}, True),
        ({"alignment_of": "attacked", "attack": None, "kl_weight": 0.0}, False),
    ],
)
def test_the_head_learns_where_something_says_what_its_variance_should_be(changes, trained):
    objective = objective_for(replace(RUAC, **changes))
    branches(objective, batch_for(objective.model))
    # the mask's loss goes through the gain and back, which rounding makes a little more than nothing
    learns = {name for name, gradient in gradients(objective).items() if gradient.abs().max() > 1e-5}
    assert any(name.startswith("model.head.") for name in learns) == trained


def test_the_divergence_enters_when_it_begins_and_pulls_the_factors_of_both_heads():
    for head in ("exact", "paper"):
        stage = replace(RUAC, kl_weight=1e-6, kl_begins=0.5, attack=None)
        losses = []
        for done in (0.4, 0.5):
            objective = objective_for(stage, model_of(head=head))
            (outcome,) = branches(objective, batch_for(objective.model), done)
            losses.append(outcome.loss.item())
            assert ("kl1" in outcome.figures) == (done == 0.5)
        assert losses[1] - losses[0] == pytest.approx(
            1e-6 * (outcome.figures["kl1"] + outcome.figures["kl>1"]).item() / 2, rel=1e-2
        )


@pytest.mark.parametrize("kind", ["noise", "mixstyle", "patch", "pgd"])
def test_other_attacks_take_the_place_of_the_cooperative_one(kind):
    objective = objective_for(replace(RUAC, attack=Attacking(kind=kind, begins=0.0)), model_of("sam2"))
    clean, attacked = branches(objective, batch_for(objective.model))
    assert torch.isfinite(attacked.loss)
    assert attacked.figures["attacked_loss1"] != clean.figures["loss1"]
    assert bool(attacking_parameters(objective)) == (kind == "patch")


def test_the_table_of_positions_is_never_trained():
    for family in ("sam", "sam_hq"):
        objective = objective_for(RUAC, model_of(family))
        tables = [p for name, p in objective.named_parameters() if name.endswith(".positional_embedding")]
        assert tables
        assert not any(p.requires_grad for p in tables)


def test_pgd_climbs_the_loss_of_the_attacked_branch():
    objective = objective_for(replace(RUAC, attack=Attacking(kind="pgd", begins=0.0)), model_of("sam2"))
    clean, attacked = branches(objective, batch_for(objective.model))
    assert attacked.loss.item() / 0.2 > clean.loss.item() / 0.8 + 0.05


def test_bfloat16_is_for_the_model_and_not_for_its_losses():
    outcomes = {}
    for precision in ("no", "bf16"):
        seen: list[torch.dtype] = []

        def loss(judged: Judged, seen: list[torch.dtype] = seen) -> torch.Tensor:
            seen += [judged.decoded.pixels.dtype, judged.model(judged.decoded).mean.dtype]
            return judged.model(judged.decoded).mean.square().mean((1, 2, 3, 4))

        objective = objective_for(replace(RUAC, attack=None), variant=Variant(loss=loss), precision=precision)
        outcomes[precision] = branches(objective, batch_for(objective.model))[0].loss
        assert seen[:2] == [torch.bfloat16 if precision == "bf16" else torch.float32, torch.float32]
        assert outcomes[precision].dtype == torch.float32
    torch.testing.assert_close(outcomes["bf16"], outcomes["no"], rtol=0.1, atol=0.01)


def test_a_variant_chooses_what_is_trained_and_by_which_loss():
    variant = Variant(
        trains=lambda name: name.endswith("iou_prediction_head.proj_out.bias"),
        loss=lambda judged: judged.decoded.iou.mean((1, 2)),
    )
    objective = objective_for(replace(RUAC, attack=None), variant=variant)
    branches(objective, batch_for(objective.model))
    assert list(gradients(objective)) == ["model.sam.mask_decoder.iou_prediction_head.proj_out.bias"]


def test_pictures_of_a_step_are_the_same_for_any_number_of_processes_and_passes():
    class Numbers:
        stage = Stage(steps=3, images=8, accumulation=1)

        def __len__(self) -> int:
            return 24

        def __getitem__(self, index: int) -> Batch:
            return Batch(*(torch.tensor(index) for _ in range(4)))

    def seen(processes: int, accumulation: int) -> list[set[int]]:
        stream = Numbers()
        stream.stage = replace(Numbers.stage, accumulation=accumulation)
        steps: list[set[int]] = [set() for _ in range(2)]
        for process in range(processes):
            for i, batch in enumerate(batches(stream, 1, 0, process, processes)):  # pyright: ignore[reportArgumentType]
                assert len(batch.numbers) == 8 // processes // accumulation
                steps[i // accumulation] |= set(batch.numbers.tolist())
        return steps

    assert seen(1, 1) == seen(2, 1) == seen(2, 2) == seen(4, 1) == [set(range(8, 16)), set(range(16, 24))]
    with pytest.raises(ValueError, match="8 pictures a step do not divide among 3 processes and 1 passes"):
        seen(3, 1)
