from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from ddep.evaluation import ResultsTable

NAN = math.nan
RESULTS = {
    "city": {"sem_seg": {"mIoU": 50.0, "IoU-road": 80.0, "IoU-tram": NAN, "mACC": 60.0}},
    "game": {
        "sem_seg": {"mIoU": 30.0, "IoU-road": 60.0, "IoU-tram": NAN, "mACC": np.float64(41.5)},
        "segm": {"AP": 1 / 3, "AP-tram": 7.0},
    },
    "rain": {"sem_seg": {"mIoU": 10.0, "IoU-road": NAN, "IoU-tram": NAN, "mACC": 20.0}},
}
# task, metric, of each set, mean: metrics of all classes first.
EXPECTED = [
    ("sem_seg", "mIoU", 50, 30, 10, 30),
    ("sem_seg", "mACC", 60, 41.5, 20, 40.5),
    ("sem_seg", "IoU-road", 80, 60, NAN, 70),
    ("sem_seg", "IoU-tram", NAN, NAN, NAN, NAN),
    ("segm", "AP", NAN, 1 / 3, NAN, 1 / 3),
    ("segm", "AP-tram", NAN, 7, NAN, 7),
]


def test_rows() -> None:
    table = ResultsTable(RESULTS)
    assert table.header == ["task", "metric", "city", "game", "rain", "mean"]
    assert [row[:2] for row in table.rows] == [row[:2] for row in EXPECTED]
    for found, expected in zip(table.rows, EXPECTED, strict=True):
        assert found[2] == pytest.approx(expected[2:], nan_ok=True)


def test_csv_has_all_digits() -> None:
    header, *rows = csv.reader(io.StringIO(ResultsTable(RESULTS).to_csv()))
    assert header == ["task", "metric", "city", "game", "rain", "mean"]
    assert [tuple(row[:2]) for row in rows] == [row[:2] for row in EXPECTED]
    for row, expected in zip(rows, EXPECTED, strict=True):
        numbers = [float(cell) if cell else NAN for cell in row[2:]]
        np.testing.assert_array_equal(numbers, expected[2:])


def test_markdown() -> None:
    lines = ResultsTable(RESULTS).to_markdown().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == ["task", "metric", "city", "game", "rain", "mean"]
    assert cells[4] == ["sem_seg", "IoU-road", "80.000", "60.000", "", "70.000"]
    assert cells[6] == ["segm", "AP", "", "0.333", "", "0.333"]
    assert len(lines) == 2 + len(EXPECTED)


def test_without_a_mean() -> None:
    table = ResultsTable(RESULTS, mean=False)
    assert table.header == ["task", "metric", "city", "game", "rain"]
    for found, expected in zip(table.rows, EXPECTED, strict=True):
        assert found[2] == pytest.approx(expected[2:5], nan_ok=True)
