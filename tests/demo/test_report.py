from __future__ import annotations

from pathlib import Path

from ddep.demo.report import Run, conclusion, segmentation_table


def runs(pretrained: list[float], random: list[float]) -> dict[str, list[Run]]:
    keys = ["panoptic_seg/PQ", "panoptic_seg/SQ", "panoptic_seg/RQ", "sem_seg/mIoU"]
    return {
        start: [Run(Path(), dict.fromkeys(keys, value), "", 1.0) for value in values]
        for start, values in {"pretrained": pretrained, "random": random}.items()
    }


def test_table_has_mean_and_sample_standard_deviation() -> None:
    table = segmentation_table(runs([10, 20, 60], [1, 2, 3])).splitlines()
    assert table[2].split("|")[1:3] == [" pretrained start ", " 30.0 ± 26.5 "]  # sqrt(1400 / 2)
    assert table[3].split("|")[1:3] == [" random start     ", " 2.0 ± 1.0   "]


def test_conclusion_compares_seed_by_seed_whichever_way_it_goes() -> None:
    better = conclusion(runs([10, 20, 30], [8, 17, 26]))
    assert "+3.0 ± 1.0 points, for the better with 3 of 3" in better
    assert "do not show a difference" not in better
    worse = conclusion(runs([8, 17, 26], [10, 20, 30]))
    assert "-3.0 ± 1.0 points, for the better with 0 of 3" in worse
    assert "do not show a difference" not in worse
    assert "do not show a difference" in conclusion(runs([10, 20, 30], [13, 17, 29]))
