"""Averages, comparisons and tables of results that are made up."""

import json
import math
from typing import cast

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from ruac.evaluate.bootstrap import DRAWS, bootstrap_means
from ruac.evaluate.comparison import RANKED, better_share, differences, mean_ranks
from ruac.evaluate.error_detection import RegionHistograms, histograms
from ruac.evaluate.judging import Judged, RegionPatches
from ruac.evaluate.metrics import MaskQuality
from ruac.evaluate.patches import patch_counts
from ruac.evaluate.pool import Pool
from ruac.evaluate.protocol import ImageResult
from ruac.evaluate.results import Origin, Row
from ruac.evaluate.summary import Cost, SetResults, summarise
from ruac.evaluate.table import markdown, overview

ORIGIN = Origin(weights="0" * 64, ruac="0.1.0", clicks=(1, 3), max_objects=10, seed=0, prompt="point")
KEYS = [f"{method}.auroc.{region}@{n}" for method in ("head", "plain") for region in ("image", "band") for n in (1, 3)]


def row(name: str, iou: float = 0.5, head: float | None = 0.9, plain: float | None = 0.8) -> Row:
    masks = {f"{measure}@{n}": (iou, iou) for measure in ("iou", "j_and_f") for n in (1, 3)}
    return Row(name, (1, 2), masks, {key: head if key.startswith("head") else plain for key in KEYS})


def judged_image(name: str, seed: int) -> ImageResult:
    """One object of random logits, by two methods."""
    generator = torch.Generator().manual_seed(seed)
    logits = {method: torch.randn(24, 30, generator=generator) * 4 for method in ("head", "plain")}
    mask, truth = logits["head"] > 0, torch.rand(24, 30, generator=generator) > 0.4
    valid, band = torch.ones_like(mask), torch.rand(24, 30, generator=generator) > 0.3
    detection = {method: histograms(logit, mask, truth, valid, band) for method, logit in logits.items()}
    patches = {method: RegionPatches(*(patch_counts(x, mask, truth, v) for v in (valid, band))) for method, x in logits.items()}
    quality = MaskQuality(0.25 + seed / 10, 0.5, 0.5)
    judged = Judged((quality,), (0.5,), {"head": (seed / 10,), "plain": (0.3,)}, detection, patches, {})
    return ImageResult(name, (1,), {1: judged, 3: judged}, (((3, 4, 1),),))  # type: ignore[arg-type]


def results(name: str, seeds: range, group: str = "zero-shot") -> SetResults:
    images = [judged_image(str(seed), seed) for seed in seeds]
    pools = [Pool.of(image) for image in images]
    rows = [Row.of(image, pool) for image, pool in zip(images, pools, strict=True)]
    return SetResults(name, group, rows, (), sum(pools, Pool()))


def test_groups_are_averages_of_their_sets_and_count_where_a_method_is_better() -> None:
    parts = [
        SetResults("trashcan", "zero-shot", [row("a", 0.2), row("b", 0.4)]),
        SetResults("camvid", "zero-shot", [row("a", 0.9, head=0.7)]),
        SetResults("crackforest", "stress", [row("a", 0.0, head=None, plain=None)]),
    ]
    summary = summarise("m", ORIGIN, parts)
    groups = {group.name: group for group in summary.groups}
    assert list(groups) == ["all", "stress", "zero-shot"]
    assert groups["zero-shot"].measures["iou@1"].mean == pytest.approx((0.3 + 0.9) / 2)
    assert groups["all"].measures["iou@1"].mean == pytest.approx((0.3 + 0.9 + 0) / 3)
    # where one set does not define it, the others count
    assert groups["all"].measures["head.auroc.image@1"].mean == pytest.approx(0.8)
    assert groups["all"].measures["difference.head.auroc.band@3"].mean == pytest.approx(0)
    places = ("image@1", "image@3", "band@1", "band@3")
    assert groups["all"].better == groups["zero-shot"].better == {f"head.auroc.{place}": 0.5 for place in places}
    assert math.isnan(groups["stress"].better["head.auroc.image@1"])
    assert json.loads(summary.to_json())["groups"][1]["better"]["head.auroc.image@1"] is None


def test_images_without_objects_do_not_count() -> None:
    summary = summarise("m", ORIGIN, [SetResults("x", "zero-shot", [Row("empty", (), {}, {}), row("a", 0.25)])])
    assert (summary.sets[0].images, summary.sets[0].objects) == (1, 2)
    assert summary.sets[0].measures["iou@1"].mean == 0.25
    with pytest.raises(ValueError, match="no image was evaluated"):
        summarise("m", ORIGIN, [SetResults("x", "zero-shot", [Row("empty", (), {}, {})])])


def test_a_measure_that_only_some_images_have_is_averaged_over_those() -> None:
    rows = [row("a"), Row("b", (1,), {"iou@1": (0.5,)}, {"head.human_pearson.image@1": 0.25}), row("c")]
    measures = summarise("m", ORIGIN, [SetResults("x", "zero-shot", rows)]).sets[0].measures
    assert measures["head.human_pearson.image@1"].mean == 0.25
    assert measures["head.auroc.image@1"].mean == pytest.approx(0.9)


def test_micro_measures_are_those_of_all_pixels_of_all_images_together() -> None:
    summary = summarise("m", ORIGIN, [results("a", range(3)), results("b", range(2, 6), group="stress")])
    first, second = [judged_image("", i) for i in range(3)], [judged_image("", i) for i in range(2, 6)]

    def together(images: list[ImageResult], region: str) -> float:
        total = sum((image.after[3].detection["head"] for image in images), RegionHistograms.empty())
        return getattr(total, region).read().auroc

    assert summary.sets[0].micro["head.auroc.image@3"] == pytest.approx(together(first, "image"), abs=1e-9)
    groups = {group.name: group for group in summary.groups}
    assert groups["all"].micro["head.auroc.band@3"] == pytest.approx(together(first + second, "band"), abs=1e-9)
    assert groups["stress"].micro == summary.sets[1].micro
    patches = sum((image.after[1].patches["plain"].image for image in second[1:]), second[0].after[1].patches["plain"].image)
    assert summary.sets[1].micro["plain.pavpu.image@1"] == patches.read().pavpu


def test_nothing_is_said_of_a_group_whose_pools_are_not_complete() -> None:
    parts = [results("a", range(3)), SetResults("b", "stress", results("b", range(3)).rows)]
    groups = {group.name: group for group in summarise("m", ORIGIN, parts).groups}
    assert groups["all"].micro == groups["stress"].micro == {}
    assert groups["zero-shot"].micro


def test_pools_do_not_depend_on_the_order_and_refuse_to_count_an_image_twice() -> None:
    pools = [Pool.of(judged_image(str(seed), seed)) for seed in range(5)]
    forth, back = sum(pools, Pool()), sum(pools[::-1], Pool())
    assert forth.tensors.keys() == back.tensors.keys()
    assert all((forth.tensors[name] == back.tensors[name]).all() for name in forth.tensors)
    assert forth.methods == ("head", "plain")
    assert forth.clicks == (1, 3)
    with pytest.raises(ValueError, match="image '2' would be counted twice"):
        forth + pools[2]


def test_agreement_is_that_of_the_objects_of_all_sets() -> None:
    summary = summarise("m", ORIGIN, [results("a", range(3)), results("b", range(2, 6))])
    seeds = np.array([0, 1, 2, 2, 3, 4, 5])
    everything = summary.groups[0].agreement
    assert everything["head.expected_iou.spearman@1"] == pytest.approx(1)
    assert everything["head.expected_iou.mae@3"] == pytest.approx(0.25)
    assert everything["head.expected_iou.bias@3"] == pytest.approx(-0.25)
    assert everything["predicted_iou.mae@3"] == pytest.approx(np.abs(0.25 + seeds / 10 - 0.5).mean())
    assert math.isnan(everything["predicted_iou.spearman@1"])


def test_differences_are_taken_to_plain_for_every_method() -> None:
    measures = {"head.ece.image@1": 0.3, "tta.ece.image@1": 0.1, "plain.ece.image@1": 0.2, "iou@1": 0.5, "tta.aurc.image@1": 0.1}
    found = differences(measures, ("head", "plain", "tta"))
    assert found == {"difference.head.ece.image@1": pytest.approx(0.1), "difference.tta.ece.image@1": pytest.approx(-0.1)}


def test_an_interval_of_a_difference_is_paired() -> None:
    """Both methods vary much from image to image, their difference hardly does."""
    rng = np.random.default_rng(0)
    level = rng.uniform(0.2, 0.8, 50)
    rows = [row(str(i), head=float(x + 0.1 + rng.normal(0, 1e-3)), plain=float(x)) for i, x in enumerate(level)]
    measures = summarise("m", ORIGIN, [SetResults("x", "zero-shot", rows)]).sets[0].measures
    gain, own = measures["difference.head.auroc.image@1"], measures["head.auroc.image@1"]
    assert own.high - own.low > 0.05
    assert gain.high - gain.low < 0.001
    assert gain.low < 0.1 < gain.high


def test_better_means_less_where_less_is_better() -> None:
    sets = [
        {"difference.tta.ece.image@1": -0.1, "difference.tta.auroc.image@1": 0.1, "difference.tta.brier.image@1": 1.0},
        {"difference.tta.ece.image@1": -0.2, "difference.tta.auroc.image@1": -0.1},
        {"difference.tta.ece.image@1": 0.0, "difference.tta.auroc.image@1": math.nan},
    ]
    assert better_share(sets, ("plain", "tta")) == {"tta.ece.image@1": pytest.approx(2 / 3), "tta.auroc.image@1": 0.5}


def test_ranks_are_means_over_sets_and_three_measures_and_equals_share_them() -> None:
    rng = np.random.default_rng(0)
    methods = ("a", "b", "c", "d")
    values = rng.integers(0, 3, (5, len(RANKED), len(methods))) / 10
    sets = [
        {
            f"{method}.{measure}.image@1": v
            for measure, row_of in zip(RANKED, table, strict=True)
            for method, v in zip(methods, row_of, strict=True)
        }
        for table in values
    ]
    sign = np.array([-1 if measure == "auroc" else 1 for measure in RANKED])[None, :, None]
    wanted = np.mean([[rankdata(line) for line in table] for table in sign * values], (0, 1))
    assert mean_ranks(sets, methods) == {
        f"{method}.image@1": pytest.approx(rank) for method, rank in zip(methods, wanted, strict=True)
    }
    sets[0]["a.ece.image@1"] = math.nan
    assert mean_ranks(sets[:1], methods)["a.image@1"] == pytest.approx(
        np.mean([rankdata((sign * values)[0, i])[0] for i in (0, 1)])
    )
    assert mean_ranks(sets, ("a",)) == {}


def test_bootstrap_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    draws = bootstrap_means(values, "a set")
    assert draws.mean() == pytest.approx(values.mean(), abs=0.001)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (high - low) / 2 == pytest.approx(1.96 * 0.1 / math.sqrt(400), rel=0.1)
    np.testing.assert_array_equal(draws, bootstrap_means(values, "a set"))
    assert abs(np.corrcoef(draws, bootstrap_means(values, "another set"))[0, 1]) < 0.15


def test_bootstrap_leaves_undefined_values_out() -> None:
    draws = bootstrap_means(np.array([0.5, math.nan, 0.5]), "x")
    assert set(draws[np.isfinite(draws)]) == {0.5}
    assert np.isnan(draws).mean() == pytest.approx(1 / 27, abs=0.02)


def test_measures_that_are_drawn_together_are_the_same_as_one_by_one() -> None:
    values = np.random.default_rng(0).normal(size=(20, 3))
    values[4, 1] = math.nan
    together = bootstrap_means(values, "x")
    assert together.shape == (DRAWS, 3)
    for i in range(3):
        np.testing.assert_allclose(together[:, i], bootstrap_means(values[:, i], "x"), rtol=0, atol=1e-12)


def test_tables_show_groups_first_and_a_dash_for_what_is_not_defined() -> None:
    parts = [SetResults("a|b", "zero-shot", [row("a", 0.25)]), SetResults("thin", "stress", [row("a", 0.5, None, None)])]
    summary = summarise("m", ORIGIN, parts)
    grid = overview(summary)
    assert [line[0] for line in grid.rows] == ["all", "stress", "zero-shot", "a|b", "thin"]
    assert grid.rows[0][:4] == ("all", "2", "37.5", "37.5")
    assert grid.rows[3][4:6] == ("90.0", "80.0")
    assert grid.rows[4][4:6] == ("–", "–")
    text = markdown(summary)
    assert "| a\\|b | 1 | 2 | 25.0 [25.0, 25.0] |" in text
    assert "- all: image@1 100.0 %, image@3 100.0 %, band@1 100.0 %, band@3 100.0 %" in text


def test_summary_md_has_what_every_method_costs_and_gains() -> None:
    cost = Cost("a machine", {"head": 1.08, "plain": 1.0})
    text = markdown(summarise("m", ORIGIN, [results("a", range(4))], cost))
    (line,) = [line for line in text.splitlines() if line.startswith("| head |")][:1]
    assert line.endswith("| 1.08 |")
    assert "on a machine" in text
    assert "micro AUROC" in text
    assert "model's own Spearman" in text
    assert "NoC" not in text


def test_summary_md_says_which_sets_of_a_suite_are_missing() -> None:
    origin = Origin("0" * 64, "0.1.0", (1, 3), 10, 0, "point", suite="sa23-ruac")
    text = markdown(summarise("m", origin, [SetResults("TrashCan", "objects", [row("a")])]))
    assert "Suite sa23-ruac: 1 of 23 sets; missing: " in text
    missing = cast(str, text.partition("missing: ")[2].partition("\n")[0])
    assert "TrashCan" not in missing
    assert len(missing.split(", ")) == 22


def test_clicks_to_a_good_mask_are_told_with_the_share_of_failures() -> None:
    image = ImageResult("a", (1, 2), {}, ((), ()), ((0.5, 0.82, 0.86), (0.9, 0.1, 0.1)))
    values = Row.of(image, Pool())
    assert values.masks["noc.80"] == (2, 1)
    assert values.masks["noc.90"] == (3, 1)
    assert values.masks["noc_failed.90"] == (1, 0)
    assert values.masks["iou@2"] == (0.82, 0.1)
    origin = Origin("0" * 64, "0.1.0", (1,), 10, 0, "point", noc=3)
    summary = summarise("m", origin, [SetResults("x", "zero-shot", [values])])
    assert summary.sets[0].measures["noc.85"].mean == 2
    assert "| x | 1.50 | 2.00 | 2.00 | 0.0 | 0.0 | 50.0 |" in markdown(summary)
