"""Pictures of classes: what is drawn where, and in which colour."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from PIL import ImageDraw

from ddep.drawing.classes import draw_classes, draw_probabilities

NAMES = ["cat", "dog", "a name of a class that is too long for its line", "d", "e", "f"]
GREEN, RED, BLUE = (40, 140, 60), (190, 50, 50), (60, 100, 180)


@pytest.fixture
def written() -> list[str]:
    """What was written into a picture."""
    texts: list[str] = []
    write = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, place: tuple, text: str, *rest: object) -> None:
        texts.append(text)
        write(self, place, text, *rest)

    with mock.patch.object(ImageDraw.ImageDraw, "text", record):
        yield texts


def bars(picture: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """Lengths of the bars of a colour, from top to bottom."""
    rows = (picture[:, 240:] == colour).all(axis=2).sum(axis=1)
    runs = np.split(rows, np.flatnonzero(np.diff(rows)) + 1)
    return [int(run[0]) for run in runs if run[0] and len(run) >= 6]


def test_probabilities_are_sorted_bars_in_the_colour_of_the_truth(written: list[str]) -> None:
    image = np.full((50, 100, 3), 7, np.uint8)
    probabilities = torch.tensor([0.05, 0.5, 0.25, 0.15, 0.04, 0.01])
    picture = draw_probabilities(image, probabilities, NAMES, {1, 3})
    assert picture.shape == (240, 520, 3)
    assert (picture[60:180, :240] == 7).all()
    assert (picture[:59, :240] == 255).all()
    assert [text.split() for text in written[:2]] == [
        ["50", "%", "dog"],
        ["25", "%", *written[1].split()[2:]],
    ]
    assert written[1].endswith("...")
    assert bars(picture, GREEN) == pytest.approx([128, 38], abs=2)
    assert bars(picture, RED) == pytest.approx([64, 13, 10], abs=2)
    unknown = draw_probabilities(image, probabilities, NAMES, None)
    assert len(bars(unknown, BLUE)) == 5
    assert bars(unknown, RED) == []


def test_classes_without_a_name_have_their_number(written: list[str]) -> None:
    draw_probabilities(np.zeros((8, 8, 3), np.uint8), torch.tensor([0.1, 0.9]), ["cat"], None)
    assert [text.split() for text in written] == [["90", "%", "class", "1"], ["10", "%", "cat"]]


def test_true_classes_are_listed(written: list[str]) -> None:
    image = np.zeros((8, 4, 3), np.uint8)
    assert draw_classes(image, NAMES[:2]).shape == (240, 520, 3)
    draw_classes(image, [])
    draw_classes(image, [str(number) for number in range(12)])
    assert written == ["cat", "dog", "(no class)", *"01234567", "and 4 more"]
