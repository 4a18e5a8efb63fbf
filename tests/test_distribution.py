"""Read-outs of logit mean and variance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from ruac.distribution import MaskDistribution, bernoulli_entropy
from ruac.features import Frame


def test_entropy_equals_scipys_and_is_in_bits():
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
    p = torch.sigmoid(logits).numpy()
    expected = [entropy([q, 1 - q], base=2) for q in p]
    np.testing.assert_allclose(bernoulli_entropy(logits).numpy(), expected, rtol=1e-9)
    assert bernoulli_entropy(torch.zeros(())).item() == pytest.approx(1)


def test_entropy_keeps_its_order_where_probabilities_round_to_one():
    far = bernoulli_entropy(torch.tensor([20.0, 40.0, 60.0, 80.0]))
    assert (far[:-1] > far[1:]).all()
    assert (far > 0).all()


def test_probability_is_close_to_the_expected_sigmoid_of_a_normal_logit():
    mean = torch.linspace(-4, 4, 9, dtype=torch.float64)
    variance = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)[:, None].expand(3, 9)
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(64))
    exact = (torch.sigmoid(mean[:, None] + variance[..., None].sqrt() * nodes) * weights).sum(-1) / weights.sum()
    approximate = MaskDistribution(mean.expand(3, 9), variance).probability()
    assert (approximate - exact).abs().max() < 0.02


@given(st.floats(-30, 30), st.floats(0, 1000))
@settings(deadline=None)
def test_variance_only_ever_adds_doubt(mean, variance):
    sure = MaskDistribution(torch.tensor(mean), torch.tensor(0.0))
    unsure = MaskDistribution(torch.tensor(mean), torch.tensor(variance))
    assert unsure.entropy() >= sure.entropy() - 1e-6
    assert unsure.expected_error() >= sure.expected_error() - 1e-7
    assert (unsure.probability() > 0.5) == (sure.probability() > 0.5) or abs(mean) < 1e-3
    assert 0 <= unsure.entropy() <= 1 + 1e-6


def test_resize_cuts_the_padding_off_and_keeps_constant_maps_constant():
    frame = Frame.fit(300, 400, side=64, stride=4)
    mean = torch.full((2, 3, 16, 16), 5.0)
    mean[..., frame.inside[0] // 4 :, :] = -100.0  # the padding
    resized = MaskDistribution(mean, torch.ones_like(mean)).resize(frame, 64)
    assert resized.mean.shape == (2, 3, 300, 400)
    assert (resized.mean == 5).all()
    assert (resized.variance == 1).all()


def test_moments_are_resized_before_the_entropy_is_read():
    """Half way between two sure, opposite pixels lies a coin toss: entropies of the ends would average to certainty."""
    mean = torch.tensor([-20.0, 20.0]).expand(1, 1, 2, 2)
    frame = Frame(original=(2, 7), inside=(8, 8))
    assert MaskDistribution(mean, torch.zeros_like(mean)).resize(frame, 8).entropy()[0, 0, 0, 3] == pytest.approx(1)
