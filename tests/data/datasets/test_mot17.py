from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from ddep.data.datasets import labelled_for
from ddep.data.datasets.declaration import find_declaration
from ddep.data.datasets.mot17 import TEST, TRAIN
from ddep.errors import UserError
from ddep.evaluation import MEASURES, BoxAPEvaluator, TrackingEvaluator
from tests.data.datasets.imitation_sequences import HEIGHT, WIDTH, write_sequence

# frame, track, left, top, width, height, considered, class, visibility
LINES = [
    "1,1,5,6,10,12,1,1,1.0",
    "2,1,6,6,10,12,1,1,1.0",
    "3,1,7,6,10,12,1,1,0.3",
    "2,4,25,6,10.5,12,1,1,1",
    "3,4,25,6,10,12,0,1,1",  # not considered
    "1,8,1,20,8,8,0,8,1",  # distractor
    "3,9,30,20,8,8,0,3,1",  # car
]


@pytest.fixture
def sequences(root: Path) -> Path:
    """Seven videos of five frames; the first has labels, and two detectors have the others."""
    for number in TRAIN:
        detector = "SDP" if number == "13" else "FRCNN"
        lines = LINES if number == "02" else []
        write_sequence(root / f"MOT17/train/MOT17-{number}-{detector}", 5, lines)
    shutil.copytree(root / "MOT17/train/MOT17-02-FRCNN", root / "MOT17/train/MOT17-02-DPM")
    for number in TEST:
        write_sequence(root / f"MOT17/test/MOT17-{number}-FRCNN", 2, None)
    return root


def test_videos(sequences: Path) -> None:
    records = DatasetCatalog.get("mot17_train")
    assert [r["video_name"] for r in records] == [
        *(f"MOT17-{number}-FRCNN" for number in TRAIN[:-1]),
        "MOT17-13-SDP",
    ]
    assert len({r["video_id"] for r in records}) == len(TRAIN)
    video = records[0]
    assert (video["height"], video["width"], video["length"]) == (HEIGHT, WIDTH, 5)
    assert video["file_names"][4] == f"{sequences}/MOT17/train/MOT17-02-FRCNN/img1/000005.jpg"
    first, second, third, *rest = video["annotations"]
    # Pixels are counted from 1 in the file.
    assert [(a["id"], a["bbox"], a["area"]) for a in second] == [
        (1, [5, 5, 10, 12], 120),
        (4, [24, 5, 10.5, 12], 126),
    ]
    crowds = [(a["id"], a["distractor"]) for frame in (first, third) for a in frame if a["iscrowd"]]
    assert crowds == [(8, True), (4, False), (9, False)]
    assert rest == [[], []]


def test_halves(sequences: Path) -> None:
    whole, first, second = (
        DatasetCatalog.get(f"mot17_{name}")[0] for name in ("train", "train_half", "val_half")
    )
    assert (first["length"], second["length"]) == (2, 3)
    for key in ("file_names", "annotations"):
        assert first[key] + second[key] == whole[key]
    assert second["file_name"] == whole["file_names"][2]


def test_images(sequences: Path) -> None:
    records = DatasetCatalog.get("mot17_images_train_half")
    assert len(records) == 2 * len(TRAIN)
    assert records[1]["image_id"] == "MOT17-02-FRCNN/000002.jpg"
    assert [a["id"] for a in records[1]["annotations"]] == [1, 4]
    evaluator = BoxAPEvaluator("mot17_images_train_half", str(sequences / "results"))
    evaluator.reset()
    for record in records:
        boxes = [a["bbox"] for a in record["annotations"] if not a["iscrowd"]]
        boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances(
            (HEIGHT, WIDTH),
            pred_boxes=Boxes(torch.from_numpy(boxes)),
            scores=torch.ones(len(boxes)),
            pred_classes=torch.zeros(len(boxes), dtype=torch.int64),
        )
        evaluator.process([record], [{"instances": instances}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)


def test_names_and_labels(sequences: Path) -> None:
    assert labelled_for("mot17_val_half") == labelled_for("mot17_test") == ("tracking",)
    assert labelled_for("mot17_images_train") == ("bbox",)
    assert MetadataCatalog.get("mot17_val_half").thing_classes == ["pedestrian"]
    assert "annotations" not in DatasetCatalog.get("mot17_test")[0]
    MEASURES["tracking"].check("mot17_val_half")
    assert "MOT17.zip" in find_declaration("mot17_images_val_half")[1]
    shutil.rmtree(sequences / "MOT17/train/MOT17-04-FRCNN")
    with pytest.raises(UserError, match=r"MOT17-04-FRCNN/seqinfo\.ini cannot be read"):
        DatasetCatalog.get("mot17_train")


def test_tracking(sequences: Path) -> None:
    """The true boxes, one on the distractor, one on the car and one on the pedestrian that is not
    considered: the distractor's is left out, the others are mistakes."""
    evaluator = TrackingEvaluator("mot17_train", str(sequences / "results"))
    tracks = [
        [[4, 5, 10, 12], [5, 5, 10, 12], [6, 5, 10, 12], None, None],
        [None, [24, 5, 10.5, 12], [24, 5, 10, 12], None, None],
        [[0, 19, 8, 8], None, None, None, None],
        [None, None, [29, 19, 8, 8], None, None],
    ]
    output = {"pred_scores": [0.9] * 4, "pred_labels": [0] * 4, "pred_boxes": tracks}
    empty = {"pred_scores": [], "pred_labels": [], "pred_boxes": []}
    for record in DatasetCatalog.get("mot17_train"):
        number = record["video_id"]
        evaluator.process([{"video_id": number}], [output if number == 1 else empty])
    results = evaluator.evaluate()["tracking"]
    assert [results[name] for name in ("FP", "FN", "IDSW", "MT")] == [2, 0, 0, 2]
    assert results["MOTA"] == pytest.approx(50)
    written = (sequences / "results/tracking/MOT17-02-FRCNN.txt").read_text().splitlines()
    assert written[0] == "1,1,5.00,6.00,10.00,12.00,0.9000,-1,-1,-1"
    assert len(written) == 7
