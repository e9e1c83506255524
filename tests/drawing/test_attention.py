from __future__ import annotations

import numpy as np

from ddep.drawing.attention import QueryRow, SamplingPanel, draw_attention, heat_map

GREY = np.full((40, 60, 3), 128, dtype=np.uint8)


def test_a_heat_map_lies_over_the_part_of_the_map_that_the_image_covers() -> None:
    """A map of 2 x 4 over a padded image of 80 x 80: the image covers half its height."""
    weights = np.zeros((2, 4))
    weights[0, 2] = 1.0  # columns 40 to 60 of the padded image
    weights[1, 0] = 1.0  # below the image
    allowed = np.ones((2, 4), dtype=bool)
    allowed[0, 0] = False
    picture = heat_map(GREY, weights, allowed, (40 / 80, 60 / 80)).astype(int)
    forbidden, low, high = picture[:, :20], picture[:, 20:40], picture[:, 40:]
    for part in (forbidden, low, high):
        assert (part == part[0, 0]).all()
    assert forbidden[0, 0].tolist() == [204] * 3  # pale grey
    assert high[0, 0, 0] - low[0, 0, 0] > 30  # red grows,
    assert low[0, 0, 2] - high[0, 0, 2] > 30  # blue shrinks


def test_a_map_with_equal_weights_or_a_single_cell_is_drawn() -> None:
    for shape in ((1, 1), (3, 5)):
        one = heat_map(GREY, np.full(shape, 0.2), np.ones(shape, dtype=bool), (1, 1))
        assert (one == one[0, 0]).all()
        assert one[0, 0, 0] > one[0, 0, 2]


def test_sampling_points_are_drawn_where_they_are() -> None:
    """The image covers a part of the padded image, of whose size points are fractions."""
    image = np.zeros((200, 400, 3), dtype=np.uint8)
    points = np.array([[[[0.25, 0.5]], [[0.7, 0.1]]]])  # 1 head, 2 levels, 1 point
    panel = SamplingPanel("layer 1", points, np.array([[[0.5], [0.5]]]))
    levels = ["1/32", "1/16"]
    picture = draw_attention(
        image, image, (0.8, 0.9), at=(0.45, 0.4), levels=levels, sampling=[panel]
    ).astype(int)
    panel_top = picture.shape[0] - 10 - 200  # the panel is 400 wide, and 10 from all edges
    shown = picture[panel_top : panel_top + 200, 10:410]
    for (x, y), colour in (((0.25, 0.5), (255, 210, 60)), ((0.7, 0.1), (255, 90, 160))):
        near = np.abs(shown - colour).sum(-1) < 30
        rows, columns = near.nonzero()
        assert abs(columns.mean() - x / 0.9 * 400) < 1.5
        assert abs(rows.mean() - y / 0.8 * 200) < 1.5
    rows, columns = (np.abs(shown - (255, 40, 40)).sum(-1) < 30).nonzero()
    assert abs(columns.mean() - 0.5 * 400) < 1.5 and abs(rows.mean() - 0.5 * 200) < 1.5


def test_a_row_for_each_query_and_a_column_for_each_layer() -> None:
    """A wide, low image: cells are 190 pixels wide."""
    image = np.full((10, 100, 3), 100, dtype=np.uint8)
    ones = np.ones((2, 2))
    query = QueryRow("car 90 %", np.ones((10, 100), bool), [ones] * 5, [ones > 0] * 5)
    layers = [f"layer {number}" for number in range(5)]
    one, two = (
        draw_attention(image, image, (1, 1), layers=layers, queries=[query] * number)
        for number in (1, 2)
    )
    assert one.shape[1] == 6 * (190 + 10) + 10
    assert two.shape[0] - one.shape[0] == 19 + 20 + 10  # the cell, its title and a margin
    nothing = draw_attention(image, image, (1, 1))
    assert nothing.shape == (40 + 20, 400 + 20, 3)
    none_kept = draw_attention(image, image, (1, 1), layers=layers)
    assert none_kept.shape[1] > nothing.shape[1]  # a line says so
