from __future__ import annotations

from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets import labelled_for
from ddep.data.datasets.declaration import find_declaration
from ddep.data.datasets.mots20 import TEST, TRAIN
from ddep.evaluation import MEASURES, TrackingEvaluator, VideoAPEvaluator
from tests.data.datasets.imitation_sequences import HEIGHT, WIDTH, write_sequence


def encode(top: int, left: int, height: int, width: int) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    code = mask_util.encode(mask)
    return {"size": code["size"], "counts": code["counts"].decode()}


def line(frame: int, track: int, kind: int, mask: dict) -> str:
    return f"{frame} {track} {kind} {HEIGHT} {WIDTH} {mask['counts']}"


LEFT, RIGHT, REGION, STRIP = (
    encode(*box) for box in ((0, 0, 20, 10), (0, 25, 20, 10), (20, 0, 10, 20), (20, 30, 10, 5))
)
LINES = [
    line(1, 2001, 2, LEFT),
    line(2, 2001, 2, LEFT),
    line(4, 2001, 2, LEFT),
    line(2, 2002, 2, RIGHT),
    line(1, 10000, 10, REGION),
    line(1, 10000, 10, STRIP),
    line(3, 1001, 1, LEFT),  # a car
]


@pytest.fixture
def sequences(root: Path) -> Path:
    """Four videos of four frames, of which the first has labels."""
    for name in TRAIN:
        lines = LINES if name == TRAIN[0] else []
        write_sequence(root / "MOTS20/train" / name, 4, lines)
    for name in TEST:
        write_sequence(root / "MOTS20/test" / name, 2, None)
    return root


def test_videos(sequences: Path) -> None:
    records = DatasetCatalog.get("mots20_train")
    assert [record["video_name"] for record in records] == list(TRAIN)
    first, second, third, fourth = records[0]["annotations"]
    assert [(a["id"], a["iscrowd"], a["area"]) for a in first] == [(2001, 0, 200), (10000, 1, 250)]
    assert [(a["id"], a["bbox"]) for a in second] == [
        (2001, [0, 0, 10, 20]),
        (2002, [25, 0, 10, 20]),
    ]
    assert (third, len(fourth)) == ([], 1)
    assert second[1]["segmentation"] == RIGHT
    first_half, second_half = (
        DatasetCatalog.get(f"mots20_{name}")[0]["annotations"]
        for name in ("train_half", "val_half")
    )
    assert first_half + second_half == records[0]["annotations"]


def test_names_and_labels(sequences: Path) -> None:
    assert labelled_for("mots20_val_half") == ("video_segm", "tracking")
    assert labelled_for("mots20_images_train") == ("bbox", "segm")
    for name in ("video_segm", "tracking"):
        MEASURES[name].check("mots20_train")
        MEASURES[name].check("mots20_test")
    for name in ("segm", "bbox"):
        MEASURES[name].check("mots20_images_train")
    assert MetadataCatalog.get("mots20_test").labels_are_secret
    assert "MOTS.zip" in find_declaration("mots20_test")[1]
    assert len(DatasetCatalog.get("mots20_images_train")) == 16


def test_evaluation(sequences: Path) -> None:
    """Tracking leaves out what is in the region to ignore, but no mistake elsewhere."""
    none = [None] * 4
    outputs = {
        "pred_scores": [0.9, 0.8, 0.7, 0.6],
        "pred_labels": [0] * 4,
        "pred_masks": [
            [LEFT, LEFT, None, LEFT],
            [None, RIGHT, None, None],
            [encode(20, 0, 10, 39), *none[1:]],  # 25 of its 39 columns are inside
            [encode(8, 12, 8, 10), *none[1:]],
        ],
    }
    nothing = {"pred_scores": [], "pred_labels": [], "pred_masks": []}
    results = {}
    for kind in (TrackingEvaluator, VideoAPEvaluator):
        evaluator = kind("mots20_train", str(sequences / "results"))
        for record in DatasetCatalog.get("mots20_train"):
            number = record["video_id"]
            evaluator.process([{"video_id": number}], [outputs if number == 1 else nothing])
        results |= evaluator.evaluate()
    tracking = results["tracking"]
    assert [tracking[name] for name in ("FP", "FN", "Frag", "MT")] == [1, 0, 0, 2]
    assert tracking["sMOTA"] == tracking["MOTA"] == pytest.approx(75)
    assert results["video_segm"]["AP"] == pytest.approx(100)
    written = (sequences / "results/tracking/MOTS20-02.txt").read_text().splitlines()
    assert written[0] == line(1, 1, 2, LEFT)
