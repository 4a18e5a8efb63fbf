import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ruac.evaluate.clicks import click_effort


def test_an_object_counts_from_the_first_time_that_it_reaches_the_target() -> None:
    found = click_effort([[0.9, 0.2, 0.2], [0.5, 0.85, 0.7], [0.1, 0.2, 0.9], [0.1, 0.2, 0.3]], 0.85)
    assert found.clicks.tolist() == [1, 2, 3, 3]
    assert found.failed.tolist() == [False, False, False, True]
    assert found.noc == 2.25
    assert found.failure_rate == 0.25


@given(arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 20)), elements=st.floats(0, 1)), st.floats(0, 1))
def test_effort_agrees_with_clicking_through_every_object(ious: np.ndarray, target: float) -> None:
    clicks, failures = 0, 0
    for course in ious:
        for value in course:
            clicks += 1
            if value >= target:
                break
        else:
            failures += 1
    found = click_effort(ious, target)
    assert found.noc == pytest.approx(clicks / len(ious), abs=1e-12)
    assert found.failure_rate == pytest.approx(failures / len(ious), abs=1e-12)


@pytest.mark.parametrize("ious", [[], [0.5, 0.6], [[]]])
def test_anything_but_a_table_is_refused(ious: list) -> None:
    with pytest.raises(ValueError, match="table of objects"):
        click_effort(ious, 0.9)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        click_effort([[math.nan]], 0.9)
