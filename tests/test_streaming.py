import math
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from ruac.evaluate.clicks import click_effort
from ruac.evaluate.error_detection import histograms
from ruac.evaluate.metrics import mask_quality
from ruac.evaluate.object_quality import object_quality
from ruac.evaluate.patches import patch_counts
from ruac.evaluate.streaming import (
    ClicksMetric,
    ErrorDetectionMetric,
    MaskQualityMetric,
    ObjectQualityMetric,
    PatchMetric,
)

Batch = tuple[Tensor, ...]
TARGETS = (0.5, 0.85)


def pixels(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    logit = 3 * torch.randn(2, 11, 13, generator=generator)
    chances = torch.rand(3, 2, 11, 13, generator=generator)
    return logit, (logit > 0) ^ (chances[0] < 0.1), torch.sigmoid(logit) > chances[1], chances[2] < 0.9


def ious(seed: int) -> Batch:
    true = torch.rand(4, generator=torch.Generator().manual_seed(seed))
    return (true**2, true)


def clicked(seed: int) -> Batch:
    return (torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)),)


def masks(seed: int) -> Batch:
    _, mask, truth, valid = pixels(seed)
    return mask, truth, valid[0]


CASES: dict[str, tuple[Callable[[], Metric], Callable[[int], Batch]]] = {
    "error detection": (ErrorDetectionMetric, pixels),
    "patches": (PatchMetric, pixels),
    "object quality": (ObjectQualityMetric, ious),
    "clicks": (lambda: ClicksMetric(TARGETS), clicked),
    "mask quality": (MaskQualityMetric, masks),
}
every_metric = pytest.mark.parametrize("name", CASES)


def updated(name: str, seeds: range) -> Metric:
    make, batch = CASES[name]
    metric = make()
    for seed in seeds:
        metric.update(*batch(seed))
    return metric


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert found
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, equal_nan=True, rtol=1e-6, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}"
        )


def joined(batch: Callable[[int], Batch], seeds: range) -> Batch:
    return tuple(torch.cat(tensors) for tensors in zip(*map(batch, seeds), strict=True))


def test_batches_of_pixels_give_the_read_outs_of_all_pixels_together() -> None:
    logit, mask, truth, valid = joined(pixels, range(3))
    exact = histograms(logit, mask, truth, valid, valid).image.read()
    found = updated("error detection", range(3)).compute()
    assert found.keys() == asdict(exact).keys()
    for name, value in asdict(exact).items():
        assert float(found[name]) == pytest.approx(value, abs=1e-6), name
    assert exact.pixels == int(valid.sum()) > 700


def test_batches_of_patches_give_the_read_outs_of_all_patches_together() -> None:
    exact = patch_counts(*joined(pixels, range(3))).read()
    found = updated("patches", range(3)).compute()
    assert int(found["patches"]) == exact.patches == 3 * 2 * 3 * 4
    assert float(found["pavpu"]) == pytest.approx(exact.pavpu, abs=1e-6)
    np.testing.assert_array_equal(found["pavpu_at"], exact.pavpu_at)


def test_batches_of_objects_give_the_read_outs_of_all_objects_together() -> None:
    predicted, true = joined(ious, range(3))
    exact = object_quality(predicted, true)
    found = updated("object quality", range(3)).compute()
    assert exact.objects == 12
    for name, value in asdict(exact).items():
        assert float(found[name]) == pytest.approx(value, abs=1e-6), name


def test_batches_of_clicks_give_the_means_over_all_objects() -> None:
    (table,) = joined(clicked, range(3))
    found = updated("clicks", range(3)).compute()
    assert list(found) == ["noc@50", "noc@85", "failure_rate@50", "failure_rate@85"]
    for target in TARGETS:
        exact = click_effort(table, target)
        assert float(found[f"noc@{100 * target:g}"]) == pytest.approx(exact.noc, abs=1e-6)
        assert float(found[f"failure_rate@{100 * target:g}"]) == pytest.approx(exact.failure_rate, abs=1e-6)
    assert 0 < found["failure_rate@85"] < 1


def test_number_of_clicks_is_told_for_the_usual_targets() -> None:
    metric = ClicksMetric()
    metric.update(torch.tensor([[0.79, 0.86, 0.88]]))
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == {
        "noc@80": 2,
        "noc@85": 2,
        "noc@90": 3,
        "failure_rate@80": 0,
        "failure_rate@85": 0,
        "failure_rate@90": 1,
    }


def test_batches_of_masks_give_the_means_over_all_masks() -> None:
    found = updated("mask quality", range(3)).compute()
    qualities = []
    for seed in range(3):
        mask, truth, valid = (tensor.numpy() for tensor in masks(seed))
        qualities += [mask_quality(*pair, valid) for pair in zip(mask, truth, strict=True)]
    assert len(qualities) == 6
    for name in ("iou", "dice", "boundary_f", "j_and_f"):
        assert float(found[name]) == pytest.approx(np.mean([getattr(one, name) for one in qualities]), abs=1e-9)


@every_metric
def test_reset_forgets(name: str) -> None:
    metric = updated(name, range(2))
    metric.reset()
    metric.update(*CASES[name][1](5))
    assert_equal(metric.compute(), updated(name, range(5, 6)).compute())


@every_metric
def test_a_copy_by_pickle_goes_on_as_the_original(name: str) -> None:
    metric = pickle.loads(pickle.dumps(updated(name, range(2))))
    metric.update(*CASES[name][1](2))
    assert_equal(metric.compute(), updated(name, range(3)).compute())


@every_metric
def test_forward_gives_the_batch_and_keeps_the_whole(name: str) -> None:
    metric = updated(name, range(1))
    assert_equal(metric(*CASES[name][1](1)), updated(name, range(1, 2)).compute())
    assert_equal(metric.compute(), updated(name, range(2)).compute())


@pytest.mark.parametrize("name", ["error detection", "patches"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_in_half_precision_are_taken_as_they_are(name: str, dtype: torch.dtype) -> None:
    metric, exact = CASES[name][0](), CASES[name][0]()
    logit, *rest = pixels(0)
    # a model in half precision may hold its metrics
    metric.half().update(logit.to(dtype), *rest)
    exact.update(logit.to(dtype).float(), *rest)
    assert_equal(metric.compute(), exact.compute())


def test_pixel_states_do_not_grow() -> None:
    small, large = updated("error detection", range(1)), updated("error detection", range(5))
    sizes = [{name: getattr(metric, name).shape for name in ("counts", "expected", "nll")} for metric in (small, large)]
    assert sizes[0] == sizes[1]


def test_metrics_of_the_same_batches_make_a_collection() -> None:
    metrics = MetricCollection({"pixels": ErrorDetectionMetric(), "patches": PatchMetric()})
    metrics.update(*pixels(0))
    found = metrics.compute()
    assert float(found["auroc"]) == float(updated("error detection", range(1)).compute()["auroc"])
    assert float(found["pavpu"]) == float(updated("patches", range(1)).compute()["pavpu"])


def test_nothing_seen_is_undefined_or_refused() -> None:
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert math.isnan(MaskQualityMetric().compute()["iou"])
    with pytest.warns(UserWarning, match="before the ``update`` method"), pytest.raises(ValueError, match="no pixel"):
        ErrorDetectionMetric().compute()


def _half_of_the_batches(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    # three batches here and two there
    found = {name: updated(name, range(rank, 5, 2)).compute() for name in CASES}
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_half_of_the_batches, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in CASES:
            assert_equal(found[name], updated(name, range(5)).compute())
