"""TEST.AUG and TEST.SLIDE in runs of the whole program: evaluation, its files, two processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from PIL import Image
from pycocotools import mask as coco_mask
from torch.multiprocessing import start_processes
from torch.nn import functional as F

from ddep import Predictor
from ddep.checkpoint import Checkpointer
from ddep.distributed.data_parallel import distribute
from ddep.engine import main
from ddep.engine.trainer import Trainer
from ddep.errors import UserError
from ddep.inference.inference_model import inference_model
from ddep.tasks import load_config
from tests.engine.tiny_runs import (
    arguments,
    detection_config,
    one_thread,
    per_pixel_config,
    shapes_config,
    shapes_root,
)

pytestmark = pytest.mark.slow

__all__ = ["one_thread"]

SEMANTIC = ("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False)
SEMANTIC += ("INPUT.DATASET_MAPPER_NAME", "mask_former_semantic")
SLIDE = ("TEST.SLIDE.ENABLED", True, "TEST.SLIDE.CROP_SIZE", "[40, 48]")
SLIDE += ("TEST.SLIDE.STRIDE", "[40, 11]")
AUG = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "[40, 64]", "TEST.AUG.MAX_SIZE", 96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("inference_model")
    with shapes_root(folder):
        yield folder


@pytest.fixture(scope="module", params=["mask classification", "per pixel"])
def trained(request: pytest.FixtureRequest, folder: Path) -> tuple[str, tuple, dict[str, Any]]:
    """Config, words and plain results of a model that was trained for two steps."""
    if request.param == "per pixel":
        config, words = per_pixel_config(folder), ()
    else:
        config, words = shapes_config(folder), SEMANTIC
    words += ("OUTPUT_DIR", folder / request.param, "SOLVER.EMA.ENABLED", True)
    results = main(arguments("--config-file", config, "SOLVER.MAX_ITER", 2, *words))
    return config, (*words, "MODEL.WEIGHTS", folder / request.param / "model_final.pth"), results


def evaluate(config: str, *words: object) -> dict[str, Any]:
    return main(arguments("--config-file", config, "--eval-only", *words))


def test_windows_larger_than_the_images_change_nothing(trained: tuple, tmp_path: Path) -> None:
    config, words, results = trained
    whole = ("TEST.SLIDE.ENABLED", True, "OUTPUT_DIR", tmp_path)
    found = evaluate(config, *words, *whole)
    assert json.dumps(found) == json.dumps(results)  # in which NaN equals NaN


def test_evaluation_is_that_of_the_averaged_probabilities(trained: tuple, tmp_path: Path) -> None:
    config, words, plain = trained
    words = (*words, *AUG, *SLIDE, "OUTPUT_DIR", tmp_path)
    results = evaluate(config, *words)
    assert results["sem_seg"] != plain["sem_seg"] and results.keys() == {"sem_seg", "ema"}
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", *map(str, words)])
    model = build_model(cfg).eval()
    Checkpointer(model).load(cfg.MODEL.WEIGHTS)
    predictor = Predictor(cfg)
    written = json.loads((tmp_path / "inference" / "sem_seg_predictions.json").read_text())
    for record in DatasetCatalog.get("shapes_panoptic_val"):
        expected = looped(cfg, model, record["file_name"])
        found = np.full(expected.shape[1:], -1)
        for entry in written:
            if entry["file_name"] == record["file_name"]:
                mask = coco_mask.decode(entry["segmentation"]).astype(bool)
                found[mask] = entry["category_id"] - 1
        assert np.array_equal(predictor(record["file_name"]).semantic, found)
        # The rounding of sums decides where two classes are equal.
        first, second = expected.topk(2, dim=0).values
        clear = first - second > 1e-6
        assert clear.float().mean() > 0.99
        assert torch.equal(torch.from_numpy(found)[clear], expected.argmax(0)[clear])


@torch.no_grad()
def looped(cfg: CfgNode, model: torch.nn.Module, file_name: str) -> torch.Tensor:
    """Class probabilities of an image of 48x48: AUG and SLIDE, one window at a time."""
    picture = Image.open(file_name).convert("RGB")
    assert picture.size == (48, 48)

    def probabilities(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
        [output] = model([{"image": image, "height": height, "width": width}])
        per_pixel = cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor"
        return output["sem_seg"].softmax(0) if per_pixel else output["sem_seg"]

    total = 0
    for side in (40, 64):
        pixels = np.array(picture.resize((side, side), Image.Resampling.BILINEAR))
        for flipped in (False, True):
            image = torch.from_numpy(pixels[:, ::-1].copy() if flipped else pixels)
            image = image.permute(2, 0, 1)
            if side == 40:  # smaller than a window
                mean = probabilities(image, 48, 48)
            else:
                scores = torch.zeros(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 64, 64)
                count = torch.zeros(64, 64)
                for top, left in product([0, 24], [0, 11, 16]):
                    place = np.s_[..., top : top + 40, left : left + 48]
                    scores[place] += probabilities(image[place], 40, 48)
                    count[place] += 1
                mean = F.interpolate((scores / count)[None], (48, 48), mode="bilinear")[0]
            total = total + (mean.flip(2) if flipped else mean)
    return total / 4


def test_training_evaluates_so_and_goes_on(folder: Path, tmp_path: Path) -> None:
    """Several test sets, one of them smaller; the losses are those of a run without."""
    config = per_pixel_config(folder)
    words = ("SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 1)
    words += ("DATASETS.TEST", "('shapes_panoptic_val', 'shapes_panoptic_train')")
    outputs = tmp_path / "plain", tmp_path / "averaged"
    for output, others in zip(outputs, ((), SLIDE), strict=True):
        results = main(arguments("--config-file", config, *words, *others, "OUTPUT_DIR", output))
        assert list(results) == ["shapes_panoptic_val", "shapes_panoptic_train"]
    models = [torch.load(output / "model_final.pth")["model"] for output in outputs]
    assert all(torch.equal(weights, models[1][name]) for name, weights in models[0].items())


def test_two_processes_evaluate_as_one(folder: Path, tmp_path: Path) -> None:
    """Seven images, so one process calls its distributed model more often than the other."""
    words = ["MODEL.DEVICE", "cpu", "DATASETS.TEST", "('shapes_panoptic_train',)"]
    words += [*map(str, (*AUG, *SLIDE)), "OUTPUT_DIR", str(tmp_path / "one")]
    cfg = load_config(per_pixel_config(folder), words)
    model = build_model(cfg)
    expected = Trainer.test(cfg, model)["sem_seg"]
    cfg.OUTPUT_DIR = str(tmp_path / "two")
    start_processes(evaluate_in, args=(cfg, model, tmp_path), nprocs=2, start_method="fork")
    found = json.loads((tmp_path / "two" / "inference" / "results.json").read_text())["sem_seg"]
    assert found == pytest.approx(expected, nan_ok=True)


def evaluate_in(rank: int, cfg: CfgNode, model: torch.nn.Module, folder: Path) -> None:
    """What one of two processes does."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    Trainer.test(cfg, distribute(model))
    dist.barrier()
    dist.destroy_process_group()


def test_a_model_that_cannot_ends_in_a_line_before_anything_runs(folder: Path) -> None:
    words = ("OUTPUT_DIR", folder / "none", "MODEL.WEIGHTS", "", "TEST.SLIDE.ENABLED", True)
    with pytest.raises(UserError, match=r"TEST.SLIDE.ENABLED is True, but so is .*PANOPTIC_ON"):
        main(arguments("--config-file", shapes_config(folder), *words))
    assert not (folder / "none").exists()


def test_detectors_join_boxes_of_scales_and_flips(folder: Path, tmp_path: Path) -> None:
    config = detection_config(folder)
    words = ["MODEL.DEVICE", "cpu", "TEST.AUG.ENABLED", "True", "TEST.AUG.FLIP", "False"]
    cfg = load_config(config, [*words, "TEST.AUG.MIN_SIZES", "[48]"])
    model = build_model(cfg).eval()
    image = torch.randint(0, 256, (3, 60, 75), dtype=torch.uint8)
    inputs = {"image": image, "height": 60, "width": 75}
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((60, 48), Image.BILINEAR)
    resized = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    with torch.no_grad():
        [plain] = model([{**inputs, "image": resized}])
        [one] = inference_model(cfg, model)([inputs])
        cfg.TEST.AUG.FLIP = True
        [both] = inference_model(cfg, model)([inputs])
        cfg.TEST.AUG.MIN_SIZES = [48, 64]
        [mirrored] = inference_model(cfg, model)([{**inputs, "image": image.flip(-1)}])
        [upright] = inference_model(cfg, model)([inputs])
    plain, one, both = (output["instances"] for output in (plain, one, both))
    assert len(plain) > 0 and one.image_size == (60, 75)
    order = one.scores.argsort(descending=True), plain.scores.argsort(descending=True)
    one, plain = one[order[0]], plain[order[1]]
    torch.testing.assert_close(one.pred_boxes.tensor, plain.pred_boxes.tensor, rtol=0, atol=1e-3)
    torch.testing.assert_close(one.scores, plain.scores)
    assert (one.pred_masks != plain.pred_masks).float().mean() < 1e-3
    # With flips, an image and its mirror image have mirrored results.
    upright, mirrored = upright["instances"], mirrored["instances"]
    left, top, right, bottom = upright.pred_boxes.tensor.unbind(1)
    swapped = torch.stack([75 - right, top, 75 - left, bottom], 1)
    order = [x.scores.argsort(descending=True) for x in (upright, mirrored)]
    torch.testing.assert_close(
        mirrored.pred_boxes.tensor[order[1]], swapped[order[0]], rtol=0, atol=0.01
    )
    torch.testing.assert_close(mirrored.scores[order[1]], upright.scores[order[0]])
    assert len(both) > 0
    # Nothing found is a result, and evaluation runs.
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.9999
    model.roi_heads.box_predictor.test_score_thresh = 0.9999
    with torch.no_grad():
        [nothing] = inference_model(cfg, model)([inputs])
    assert len(nothing["instances"]) == 0
