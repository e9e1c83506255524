from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import BitMasks, Instances
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ddep.data.datasets import register_from_config
from ddep.data.image_reader import read_labels, read_panoptic
from ddep.errors import UserError
from ddep.evaluation.instance import MaskAPEvaluator
from ddep.evaluation.panoptic_files import PanopticFiles, evaluate_panoptic_files
from ddep.inference import Predictor, predict_files, result_files
from ddep.inference import predictor as predictor_module
from ddep.inference.journal import NAME
from ddep.inference.result_files import KINDS, parse_kinds, semantic_ids
from ddep.tasks import task_of
from tests.engine.tiny_runs import (
    denoising_config,
    one_thread,  # noqa: F401
    shapes_config,
    shapes_root,
    write_images,
)
from tests.inference.tiny_models import write_run

EVERYTHING = "pictures,semantic,panoptic,instances,logits"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("results")
    with shapes_root(folder):
        yield folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    keys = "MODEL.MASK_FORMER.TEST.INSTANCE_ON", True, "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", True
    return write_run(folder / "panoptic", shapes_config(folder), *keys)


@pytest.fixture(scope="module")
def shapes(folder: Path) -> Path:
    return folder / "datasets" / "shapes"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_things(name: str, path: Path) -> None:
    """Write the things of a panoptic data set as COCO's instance annotations."""
    annotations: list[dict[str, Any]] = []
    records = DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(name)
    numbers = {v: k for k, v in metadata.thing_dataset_id_to_contiguous_id.items()}
    for record in records:
        ids = read_panoptic(record["pan_seg_file_name"])
        for segment in record["segments_info"]:
            if segment["isthing"]:
                rle = mask.encode(np.asfortranarray(ids == segment["id"]).astype(np.uint8))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": record["image_id"],
                        "category_id": numbers[segment["category_id"]],
                        "segmentation": {**rle, "counts": rle["counts"].decode()},
                        "area": float(mask.area(rle)),
                        "bbox": mask.toBbox(rle).tolist(),
                        "iscrowd": 0,
                    }
                )
    categories = [{"id": number, "name": str(number)} for number in sorted(numbers.values())]
    images = [{"id": record["image_id"], "height": 48, "width": 48} for record in records]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def shifted_truth(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A model's outputs that are right up to a shift by three pixels."""
    records = {record["file_name"]: record for record in DatasetCatalog.get("shapes_panoptic_val")}
    outputs = []
    for one in inputs:
        record = records[one["file_name"]]
        labels = np.roll(read_labels(record["sem_seg_file_name"]), 3, axis=1)
        ids = torch.from_numpy(np.roll(read_panoptic(record["pan_seg_file_name"]), 3, axis=1))
        segments = record["segments_info"]
        things = [segment for segment in segments if segment["isthing"]]
        masks = torch.stack([ids == thing["id"] for thing in things])
        instances = Instances(ids.shape, pred_masks=masks)
        instances.pred_boxes = BitMasks(masks).get_bounding_boxes()
        numbers = torch.Generator().manual_seed(int(Path(one["file_name"]).stem))
        instances.scores = torch.rand(len(things), generator=numbers)
        instances.pred_classes = torch.tensor([thing["category_id"] for thing in things])
        scores = torch.from_numpy(np.eye(8, 256, dtype=np.float32)[:, labels])
        outputs.append({"sem_seg": scores, "panoptic_seg": (ids, segments), "instances": instances})
    return outputs


def test_files_of_a_validation_set_give_the_numbers_of_its_evaluation(
    run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "inference_model", lambda cfg, model: shifted_truth)
    predictor = Predictor(run)
    cfg, [name] = predictor.cfg, predictor.cfg.DATASETS.TEST
    register_from_config(cfg, instances=True)
    evaluator = task_of(cfg).build_evaluator(cfg, name, str(tmp_path / "evaluation"))
    things = tmp_path / "things.json"
    write_things(name, things)
    MetadataCatalog.get(name).set(json_file=str(things))
    evaluators = DatasetEvaluators([evaluator, MaskAPEvaluator(name, str(tmp_path / "evaluation"))])
    evaluators.reset()
    for position, record in enumerate(DatasetCatalog.get(name)):
        inputs = predictor.map_record(record, position)
        evaluators.process([inputs], shifted_truth([inputs]))
    expected = evaluators.evaluate()

    truth = shapes / "panoptic_val.json"
    output = tmp_path / "out"
    files = predict_files(run, [shapes / "val"], output, save=EVERYTHING, annotations=truth)
    assert len(files) == 4 * 2 and all(path.is_file() for path in files)
    assert not (output / NAME).exists()

    result = evaluate_panoptic_files(
        PanopticFiles(str(truth), str(shapes / "panoptic_val")),
        PanopticFiles(str(output / "panoptic.json"), str(output / "panoptic")),
        workers=1,
    ).to_json()
    for metric in ("PQ", "SQ", "RQ"):
        assert result["all"][metric] == expected["panoptic_seg"][metric]
    assert 10 < result["all"]["PQ"] < 99

    coco = COCO(str(things))
    found = COCOeval(coco, coco.loadRes(str(output / "instances.json")), "segm")
    found.evaluate()
    found.accumulate()
    found.summarize()
    assert 100 * found.stats[0] == expected["segm"]["AP"]
    assert 5 < expected["segm"]["AP"] < 99
    ids = {image["id"] for image in json.loads(truth.read_text())["images"]}
    assert {one["image_id"] for one in json.loads((output / "instances.json").read_text())} == ids

    confusion = np.zeros((256, 8), np.int64)
    for record in DatasetCatalog.get(name):
        stem = Path(record["file_name"]).stem
        predicted = read_labels(str(output / "semantic" / f"{stem}.png"))
        labels = read_labels(record["sem_seg_file_name"])
        np.add.at(confusion, (labels, predicted), 1)
        scores = np.load(output / "logits" / f"{stem}.npz")["sem_seg"]
        assert scores.dtype == np.float16 and scores.shape == (8, *labels.shape)
        direct = predictor(record["file_name"])
        assert np.array_equal(scores, direct.outputs["sem_seg"].half().numpy())
        assert np.array_equal(predicted, direct.semantic)
        picture = np.asarray(Image.open(output / "pictures" / f"{stem}.png"))
        assert np.array_equal(picture, direct.draw())
    confusion = confusion[:8]
    shown = confusion.sum(1) > 0
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    iou = confusion.diagonal()[shown] / union[shown]
    assert 100 * iou.mean() == pytest.approx(expected["sem_seg"]["mIoU"], rel=1e-12)


def test_a_run_that_was_stopped_goes_on_and_gives_equal_files(
    run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    images = [shapes / "train"]
    predict_files(run, images, whole, save=EVERYTHING)
    seen: list[str] = []
    original = Predictor.predict

    def counted(self: Predictor, inputs: list[dict[str, Any]]) -> list[Any]:
        seen.append(inputs[0]["file_name"])
        if len(seen) == 4:
            raise KeyboardInterrupt
        return original(self, inputs)

    monkeypatch.setattr(Predictor, "predict", counted)
    with pytest.raises(KeyboardInterrupt):
        predict_files(run, images, parts, save=EVERYTHING)
    assert not (parts / "panoptic.json").exists()
    journal = parts / NAME
    assert len(journal.read_text().splitlines()) == 1 + 3
    # A kill in the middle of a line and of a file; and a file that somebody removed.
    (parts / "semantic" / ".00006.png.999999.tmp").write_bytes(b"half")
    journal.write_text(journal.read_text()[:-5])
    first = Path(seen[0]).stem
    (parts / "semantic" / f"{first}.png").unlink()
    with pytest.raises(UserError, match=r"has results of other settings \(save\)"):
        predict_files(run, images, parts, save="semantic", resume=True)
    seen[:] = [*seen, "no more interrupts"]
    predict_files(run, images, parts, save=EVERYTHING, resume=True)
    assert len(seen) == 4 + 1 + 7 - 1  # all but the second
    assert contents(parts) == contents(whole)


def test_batches_of_equal_sizes(folder: Path, run: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index, width in enumerate([40, 50, 40, 40, 50, 60, 40]):
        pixels = np.random.default_rng(index).integers(0, 255, (40, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{index}.png")
    predict_files(run, [images], tmp_path / "one", save="logits,instances")
    predict_files(run, [images], tmp_path / "three", save="logits,instances", batch=3)
    for index in range(7):
        one, three = (
            np.load(tmp_path / name / "logits" / f"{index}.npz")["sem_seg"].astype(np.float32)
            for name in ("one", "three")
        )
        assert np.abs(one - three).max() < 0.01 * np.abs(one).max()
    content = json.loads((tmp_path / "three" / "images.json").read_text())["images"]
    assert [image["id"] for image in content] == list(range(7))
    assert content[5]["width"] == 60 and content[5]["file_name"].endswith("5.png")


def test_ids_of_images(folder: Path, run: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "a" / "inner", 2).parent
    (images / "inner" / "1.png").rename(images / "inner" / "x.png")
    annotations = tmp_path / "annotations.json"

    def ids(listed: dict[str, Any] | None) -> list[Any]:
        if listed is not None:
            entries = [{"file_name": name, "id": number} for name, number in listed.items()]
            annotations.write_text(json.dumps({"images": entries}))
        given = None if listed is None else annotations
        predict_files(run, [images], tmp_path / "out", save="panoptic", annotations=given)
        content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
        assert {one["file_name"] for one in content["annotations"]} == {
            "inner/0.png",
            "inner/x.png",
        }
        return [one["image_id"] for one in content["annotations"]]

    assert ids(None) == [1, 2]
    assert ids({"0.png": 17, "x.png": "street"}) == [17, "street"]
    assert ids({"inner/0.png": 4, "other/0.png": 5, "x.png": 6}) == [4, 6]
    with pytest.raises(UserError, match=r"has no image of the name of .*x\.png"):
        ids({"0.png": 17})
    with pytest.raises(UserError, match=r"has 2 images of the name of .*0\.png"):
        ids({"y/0.png": 1, "z/0.png": 2, "x.png": 3})
    with pytest.raises(UserError, match="gives two of the images one id"):
        ids({"0.png": 1, "x.png": 1})
    annotations.write_text('{"images": [{"id": 1}]}')
    with pytest.raises(UserError, match="images without id or file_name; expected COCO's format"):
        predict_files(run, [images], tmp_path / "out", annotations=annotations)


def test_ids_of_classes(run: Path, shapes: Path, tmp_path: Path) -> None:
    image = shapes / "val" / "00000.png"
    predict_files(run, [image], tmp_path / "own", save="semantic", ids="dataset")
    predict_files(run, [image], tmp_path / "counted", save="semantic")
    own, counted = (
        read_labels(str(tmp_path / name / "semantic" / "00000.png")) for name in ("own", "counted")
    )
    assert np.array_equal(own, counted + 1)  # the project's own sets count from 1

    cityscapes = semantic_ids(MetadataCatalog.get("cityscapes_fine_sem_seg_val"))
    assert cityscapes[[0, 13, 18]].tolist() == [7, 26, 33]  # road, car, bicycle
    assert np.array_equal(semantic_ids(MetadataCatalog.get("gta5_sem_seg_train")), cityscapes)
    assert np.array_equal(
        semantic_ids(MetadataCatalog.get("cityscapes_fine_panoptic_val")), cityscapes
    )
    coco = semantic_ids(MetadataCatalog.get("coco_2017_val_panoptic"))
    assert coco[[0, 79, 80, -1]].tolist() == [1, 90, 92, 200]
    with pytest.raises(UserError, match="--ids dataset: data set own has no ids of its own for"):
        semantic_ids(Metadata(name="own", stuff_classes=["a", "b"]))


def test_denoised_images(folder: Path, tmp_path: Path) -> None:
    config = denoising_config(tmp_path, write_images(tmp_path / "images"))
    run = write_run(tmp_path / "run", config)
    predict_files(run, [tmp_path / "images"], tmp_path / "out", save="denoised")
    predictor = Predictor(run)
    path = tmp_path / "images" / "1.png"
    [prediction] = predictor.predict([predictor.inputs(path, position=1)])
    written = np.asarray(Image.open(tmp_path / "out" / "denoised" / "1.png"))
    assert np.array_equal(written, prediction.denoised)
    message = "--save semantic: the model does not predict that; choose from pictures, denoised"
    with pytest.raises(UserError, match=message):
        predict_files(run, [path], tmp_path / "no", save="semantic")
    assert not (tmp_path / "no").exists()


def test_impossible_options(run: Path, shapes: Path, tmp_path: Path) -> None:
    def fails(message: str, **options: Any) -> None:
        with pytest.raises(UserError, match=message):
            predict_files(run, [shapes / "val"], tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    fails("--save has 'picture'; expected some of pictures,semantic,panoptic,ins", save="picture")
    fails("--save has ''", save="semantic,")
    fails("--save denoised: the model does not predict that", save="denoised")
    fails(
        "or set MODEL.MASK_FORMER.TEST.SEMANTIC_ON True",
        save="semantic",
        overrides=["MODEL.MASK_FORMER.TEST.SEMANTIC_ON", "False"],
    )
    fails("--batch is 0; expected at least 1", batch=0)
    fails("--ids is 'official'; expected contiguous or dataset", ids="official")
    assert parse_kinds("logits, pictures,logits") == ("pictures", "logits")
    assert set(KINDS) >= set(EVERYTHING.split(","))


def test_an_output_that_cannot_be_written(run: Path, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: its folder cannot be made"):
        predict_files(run, [shapes / "val"], tmp_path / "file" / "out")


def test_a_full_disk_leaves_what_is_finished(
    run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., None] = result_files.write_png
    left = [5]

    def write(path: Path, pixels: np.ndarray) -> None:
        left[0] -= 1
        if left[0] < 0:
            with result_files.new_file(path) as file:
                file.write(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
        original(path, pixels)

    monkeypatch.setattr(result_files, "write_png", write)
    output, kinds = tmp_path / "out", "semantic,panoptic"
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        predict_files(run, [shapes / "train"], output, save=kinds)
    files = contents(output)
    assert NAME in files and len(files) == 1 + 5 and not (output / "panoptic.json").exists()
    left[0] = 10**6
    predict_files(run, [shapes / "train"], output, save=kinds, resume=True)
    predict_files(run, [shapes / "train"], tmp_path / "whole", save=kinds)
    assert left[0] == 10**6 - (2 * 5 + 2 * 7)
    assert contents(output) == contents(tmp_path / "whole")


def test_an_image_for_which_there_is_no_memory_is_named(
    run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Predictor.predict

    def predict(self: Predictor, inputs: list[dict[str, Any]]) -> list[Any]:
        if any(one["file_name"].endswith("00003.png") for one in inputs):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
        return original(self, inputs)

    monkeypatch.setattr(Predictor, "predict", predict)
    output = tmp_path / "out"
    with pytest.raises(
        UserError, match=r"1 of 7 .* predicted: image .*00003\.png is too large for"
    ):
        predict_files(run, [shapes / "train"], output, save="panoptic", batch=2)
    assert len(json.loads((output / "panoptic.json").read_text())["annotations"]) == 6
    monkeypatch.setattr(Predictor, "predict", original)
    predict_files(run, [shapes / "train"], output, save="panoptic", batch=2, resume=True)
    assert len(json.loads((output / "panoptic.json").read_text())["annotations"]) == 7
