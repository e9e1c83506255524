"""Runs of VideoMaskFormer, from the command line's words to results and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from ddep.checkpoint import read_checkpoint
from ddep.engine import main
from ddep.errors import UserError
from ddep.tasks import load_config, task_of
from tests.engine.tiny_runs import (
    arguments,
    one_thread,
    shapes_config,
    shapes_root,
    video_config,
)

__all__ = ["one_thread"]

DECODER = "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME"


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    with shapes_root(tmp_path):
        yield video_config(tmp_path)


def test_clips_are_trained_and_videos_evaluated_and_drawn(config: str, tmp_path: Path) -> None:
    words = ("SOLVER.MAX_ITER", 2, "TEST.BEST_METRIC", "video_segm/AP", "TEST.EVAL_PERIOD", 1)
    trained = main(arguments("--config-file", config, *words))
    assert list(trained) == ["video_segm", "tracking"]
    folder = tmp_path / "video"
    assert (folder / "model_best.pth").exists()
    weights = ("MODEL.WEIGHTS", folder / "model_final.pth", "OUTPUT_DIR", tmp_path / "again")
    again = main(arguments("--config-file", config, "--eval-only", *weights))
    for measure, values in trained.items():
        assert again[measure] == pytest.approx(values, nan_ok=True)
    results = json.loads((tmp_path / "again" / "inference" / "results.json").read_text())
    assert results.keys() == trained.keys()
    # Of each of two videos, truth and predictions, four frames each; a frame is enlarged to 336.
    picture = Image.open(folder / "inference" / "video-segmentation.png")
    assert picture.size == (2 * 4 * (336 + 4), 2 * 336)
    # Clip by clip as well.
    clips = ("TEST.CLIP.FRAMES", 2)
    linked = main(arguments("--config-file", config, "--eval-only", *weights, *clips))
    assert linked.keys() == again.keys()


def test_few_labels(config: str, tmp_path: Path) -> None:
    words = ("SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "DATASETS.LABEL_COUNT", 3)
    main(arguments("--config-file", config, *words))
    lines = (tmp_path / "video" / "labelled_images.txt").read_text().splitlines()
    assert lines[0] == "[moving_shapes_train]"
    assert len(lines) == 4


def test_an_image_model_is_taken_but_for_the_classes(config: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    images = build_model(load_config(shapes_config(tmp_path), ["MODEL.DEVICE", "cpu"]))
    torch.save({"model": images.state_dict()}, tmp_path / "images.pth")
    words = ("SOLVER.MAX_ITER", 1, "SOLVER.BASE_LR", 0.0, "DATASETS.TEST", "()")
    main(arguments("--config-file", config, *words, "MODEL.WEIGHTS", tmp_path / "images.pth"))
    trained = read_checkpoint(str(tmp_path / "video" / "model_final.pth"))["model"]
    theirs = images.state_dict()
    assert trained.keys() == theirs.keys()
    other = [name for name in trained if not torch.equal(trained[name], theirs[name])]
    classes = "sem_seg_head.predictor.class_embed"
    assert other == [f"{classes}.weight", f"{classes}.bias", "criterion.empty_weight"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((DECODER, "auto"), rf"{DECODER} is 'auto' \(MultiScaleMaskedTransformerDecoder\), but "),
        (("INPUT.SAMPLING_FRAME_NUM", 0), "SAMPLING_FRAME_NUM is 0; expected at least 1"),
        (("MODEL.DDEP.MASK_LOSS", "dense"), "MODEL.DDEP.MASK_LOSS is 'dense'"),
        (("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3), "data set moving_shapes_train has 4"),
        (("DATASETS.TEST", "('shapes_panoptic_val',)"), "VideoMaskFormer predicts video_segm"),
        (
            ("DATASETS.TRAIN", "('shapes_panoptic_train',)"),
            "mask_former_video_instance needs labels for video_segm",
        ),
        (("TEST.AUG.ENABLED", True), "no scores of classes at pixels"),
    ],
)
def test_mistakes_are_one_line(config: str, words: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        main(arguments("--config-file", config, *words))
    assert "\n" not in str(caught.value)


def test_an_image_model_does_not_take_the_decoder_of_clips(tmp_path: Path) -> None:
    decoder = "VideoMultiScaleMaskedTransformerDecoder"
    cfg = load_config(shapes_config(tmp_path), [DECODER, decoder])
    with pytest.raises(UserError, match=f"{DECODER} is {decoder}, which is for clips"):
        task_of(cfg).check(cfg)
