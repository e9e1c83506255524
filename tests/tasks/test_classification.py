"""Runs of classifiers, from the command line's words to results and pictures."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from ddep.checkpoint import read_checkpoint
from ddep.engine import main
from ddep.errors import UserError
from ddep.inference import predict_files
from ddep.tasks import load_config
from tests.engine.tiny_runs import (
    arguments,
    classification_config,
    one_thread,
    shapes_root,
    write_config,
)

__all__ = ["one_thread"]
ROOT = Path(__file__).parents[2]


def write_classes(folder: Path, classes: dict[str, int]) -> str:
    """A folder of images for each class, which have a brightness of their own."""
    numbers = np.random.default_rng(0)
    for position, (name, images) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for index in range(images):
            pixels = numbers.integers(0, 60, (30, 36 + index, 3)) + 90 * position
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return f"classes:{folder}"


def folders_config(tmp_path: Path, train: str, test: str, classes: int = 3) -> str:
    return write_config(
        tmp_path,
        "folders",
        MODEL__META_ARCHITECTURE="ImageClassifier",
        MODEL__CLASSIFIER={"NUM_CLASSES": classes, "LABEL_SMOOTHING": 0.1},
        DATASETS__TRAIN=[train],
        DATASETS__TEST=[test],
        INPUT__RANDOM_RESIZED_CROP={"SIZE": 32},
        INPUT__CENTER_CROP_TEST=32,
        SOLVER__BASE_LR=0.01,
        SOLVER__IMS_PER_BATCH=8,
        SOLVER__MAX_ITER=20,
        OUTPUT_DIR=str(tmp_path / "output"),
    )


def test_folders_of_classes_are_learned_evaluated_and_drawn(tmp_path: Path) -> None:
    train = write_classes(tmp_path / "train", {"dark": 6, "grey": 6, "light": 6})
    test = write_classes(tmp_path / "test", {"dark": 3, "grey": 2, "light": 3})
    config = folders_config(tmp_path, train, test)
    words = ("TEST.BEST_METRIC", "classification/top1", "TEST.EVAL_PERIOD", 10)
    trained = main(arguments("--config-file", config, *words))["classification"]
    assert trained.keys() == {"top1", "precision", "recall", "f1"}
    assert trained["top1"] > 80
    folder = tmp_path / "output"
    assert (folder / "model_best.pth").exists()
    weights = ("MODEL.WEIGHTS", folder / "model_final.pth")
    evaluated = main(
        arguments("--config-file", config, "--eval-only", *weights, "OUTPUT_DIR", tmp_path / "eval")
    )
    assert evaluated["classification"] == trained
    results = json.loads((tmp_path / "eval" / "inference" / "results.json").read_text())
    assert results["classification"] == trained
    assert np.asarray(Image.open(folder / "inference" / "classification.png")).shape == (
        4 * 240,
        2 * 520,
        3,
    )
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", *map(str, weights)])
    written = predict_files(cfg, [tmp_path / "test"], tmp_path / "pictures")
    assert len(written) == 8
    picture = np.asarray(Image.open(tmp_path / "pictures" / "light" / "0.png"))
    assert picture.shape == (240, 520, 3)


def test_pictures_do_not_need_the_data_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = write_classes(tmp_path / "train", {"dark": 2, "light": 2})
    config = folders_config(tmp_path, images, images, classes=2)
    main(arguments("--config-file", config, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()"))
    (tmp_path / "train").rename(tmp_path / "moved")
    logging.getLogger("ddep").propagate = True  # which the run has switched off
    words = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", str(tmp_path / "output" / "model_final.pth")]
    written = predict_files(load_config(config, words), [tmp_path / "moved"], tmp_path / "pictures")
    assert len(written) == 4
    assert "says what the classes are called: pictures have their numbers" in caplog.text


def test_few_labels(tmp_path: Path) -> None:
    images = write_classes(tmp_path / "train", {"dark": 6, "grey": 6, "light": 6})
    config = folders_config(tmp_path, images, images)
    words = ("SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "DATASETS.LABEL_FRACTION", 0.5)
    main(arguments("--config-file", config, *words))
    lines = (tmp_path / "output" / "labelled_images.txt").read_text().splitlines()
    assert lines[0] == f"[{images}]"
    assert len(lines) == 10
    assert all(re.fullmatch(r"(dark|grey|light)/\d\.png", line) for line in lines[1:])


@pytest.fixture
def two_sets(tmp_path: Path) -> tuple[str, str]:
    return (
        write_classes(tmp_path / "train", {"dark": 1, "grey": 1, "light": 1}),
        write_classes(tmp_path / "test", {"dark": 1, "grey": 1, "other": 1}),
    )


def test_mistakes_are_one_line(two_sets: tuple[str, str], tmp_path: Path) -> None:
    train, test = two_sets
    config = folders_config(tmp_path, train, test)

    def error(*words: object) -> str:
        with pytest.raises(UserError) as caught:
            main(arguments("--config-file", config, "SOLVER.MAX_ITER", 1, *words))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert error().startswith(f"class 2 is light in {train} and other in {test}; evaluate on")
    one = ("MODEL.CLASSIFIER.NUM_CLASSES", 4)
    assert f"NUM_CLASSES is 4, but data set {test} has 3 classes" in error(*one)
    message = error(*one, "DATASETS.TEST", "()")
    assert f"MODEL.CLASSIFIER.NUM_CLASSES is 4; data set {train} has 3 (classes) classes" in message
    message = error("INPUT.DATASET_MAPPER_NAME", "mask_former_semantic")
    assert "INPUT.DATASET_MAPPER_NAME is 'mask_former_semantic', but" in message
    assert "INPUT.RANDOM_RESIZED_CROP.SIZE is -1" in error("INPUT.RANDOM_RESIZED_CROP.SIZE", -1)
    assert "INPUT.CENTER_CROP_TEST is 50" in error("INPUT.CENTER_CROP_TEST", 50)
    message = error("DATASETS.TRAIN", f"('images:{tmp_path / 'train'}',)")
    assert "labels for nothing" in message
    assert "needs labels for classification" in message
    message = error("DATASETS.TEST", f"('images:{tmp_path / 'train'}',)")
    assert "nothing to evaluate on data set images:" in message


def test_several_classes_need_a_model_for_them(tmp_path: Path) -> None:
    with shapes_root(tmp_path):
        words = ("MODEL.CLASSIFIER.MULTI_LABEL", False, "SOLVER.MAX_ITER", 1)
        with pytest.raises(UserError, match=r"MULTI_LABEL is False, but images of data set shapes"):
            main(arguments("--config-file", classification_config(tmp_path), *words))


def test_a_class_is_drawn_uniformly(tmp_path: Path) -> None:
    images = write_classes(tmp_path / "train", {"dark": 1, "grey": 1, "light": 12})
    config = folders_config(tmp_path, images, images)
    words = ("SOLVER.MAX_ITER", 1, "DATALOADER.SAMPLER_TRAIN", "ClassUniformSampler")
    results = main(arguments("--config-file", config, *words))
    assert results["classification"]["top1"] >= 0
    log = (tmp_path / "output" / "log.txt").read_text()
    assert "ClassUniformSampler" in log


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with configs/, and generated shapes as the data sets."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    with shapes_root(tmp_path):
        yield tmp_path


def test_the_three_trainings_that_the_documentation_shows(here: Path) -> None:
    """A classifier, denoising with its encoder frozen, and fine-tuning of both."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    [_, text] = text.split("python datasets/prepare.py shapes --subjects 4000\n")
    commands = re.findall(r"^    python train_net\.py (.*)", text, re.MULTILINE)[:3]
    small = {"SOLVER.MAX_ITER": 2, "SOLVER.IMS_PER_BATCH": 2, "DATASETS.TEST": "()"}
    words = [word for pair in small.items() for word in pair]
    for command in commands[:2]:
        main(arguments(*command.split(), *words))
    # What fine-tuning starts from is what it ends with if it learns nothing.
    main(arguments(*commands[2].split(), *words, "SOLVER.BASE_LR", 0.0))
    classifier, denoiser, segmenter = (
        read_checkpoint(str(here / "output" / folder / "model_final.pth"))["model"]
        for folder in (
            "demo_shapes_classification",
            "demo_shapes_pretrain",
            "demo_shapes_panoptic",
        )
    )
    decoder = [name for name in denoiser if name.startswith("sem_seg_head.pixel_decoder.")]
    encoder = [name for name in classifier if name.startswith("backbone.")]
    # Batch statistics go on changing in fine-tuning.
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learned = [name for name in (*encoder, *decoder) if not name.endswith(statistics)]
    assert min(len(encoder), len(decoder)) > 20
    for name in encoder:
        assert torch.equal(classifier[name], denoiser[name]), name
    for name in learned:
        assert torch.equal(denoiser[name], segmenter[name]), name
    assert MetadataCatalog.get("shapes_classes_subjects").multi_label
