"""Geometry between an image and the network input."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ruac.features import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, Frame, Prompts, box_points

sizes = st.integers(1, 6000)


@given(sizes, sizes)
def test_every_image_fits_and_keeps_its_aspect_to_half_a_stride(height, width):
    frame = Frame.fit(height, width, side=512, stride=4)
    rows, columns = frame.inside
    assert max(rows, columns) == 512
    assert rows % 4 == columns % 4 == 0
    scale = 512 / max(height, width)
    assert abs(rows - height * scale) <= 4
    assert abs(columns - width * scale) <= 4


@given(sizes, sizes, st.floats(0, 1), st.floats(0, 1))
def test_points_come_back_from_the_input_where_they_were(height, width, u, v):
    frame = Frame.fit(height, width, side=512, stride=4)
    point = torch.tensor([u * (width - 1), v * (height - 1)], dtype=torch.float64)
    there = frame.to_input(point)
    torch.testing.assert_close(frame.to_original(there), point, rtol=1e-9, atol=1e-6)
    assert -0.5 <= there[0] <= frame.inside[1] - 0.5
    assert -0.5 <= there[1] <= frame.inside[0] - 0.5


def test_pixel_centres_map_to_pixel_centres():
    frame = Frame.fit(100, 200, side=400, stride=4)
    assert frame.to_input(torch.tensor([0.0, 0.0])).tolist() == [0.5, 0.5]


def test_a_box_becomes_its_two_labelled_corners():
    points, labels = box_points(torch.tensor([[[1.0, 2.0, 30.0, 40.0]]]))
    assert points.tolist() == [[[[1, 2], [30, 40]]]]
    assert labels.tolist() == [[[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]]]


def test_prompts_gather_clicks():
    prompts = Prompts.none(1, 2).with_points(torch.ones(1, 2, 1, 2), torch.ones(1, 2, 1, dtype=torch.long))
    prompts = prompts.with_points(torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, dtype=torch.long))
    assert prompts.points.shape == (1, 2, 2, 2)
    assert prompts.labels.tolist() == [[[1, 0], [1, 0]]]
