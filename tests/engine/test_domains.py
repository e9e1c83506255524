"""Few labels, several training sets and several test sets, in runs of the whole program."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ddep.data.datasets.semantic import register_semantic
from ddep.engine import main, setup
from ddep.errors import UserError
from tests.engine.tiny_runs import arguments, denoising_config, write_config

pytestmark = pytest.mark.slow

CLASSES = ["ground", "sky"]
SETS = ("tiny_day_train", "tiny_night_train", "tiny_day_val", "tiny_night_val")


@pytest.fixture
def domains(tmp_path: Path) -> Iterator[Path]:
    """Bright and dark images; the sky is above the middle, and only in one of the dark ones."""
    numbers = np.random.default_rng(0)
    for name in SETS:
        images, labels = tmp_path / name / "images", tmp_path / name / "labels"
        images.mkdir(parents=True)
        labels.mkdir()
        for i in range(6 if name.endswith("train") else 2):
            shows_sky = "day" in name or i == 0
            ids = np.zeros((40, 44), np.uint8)
            ids[:20] = 1 if shows_sky else 255
            level = 100 if "day" in name else 0
            pixels = numbers.integers(level, level + 60, (40, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{i}.jpg")
            Image.fromarray(ids).save(labels / f"{i}.png")
        register_semantic(name, images, labels, CLASSES)
    yield tmp_path
    for name in SETS:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


@pytest.fixture
def config(domains: Path) -> str:
    return write_config(
        domains,
        "domains",
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__SEM_SEG_HEAD={"NUM_CLASSES": 2},
        DATASETS__TRAIN=list(SETS[:2]),
        DATASETS__TEST=list(SETS[2:]),
        SOLVER__MAX_ITER=2,
        OUTPUT_DIR=str(domains / "out"),
    )


def test_a_run_on_two_domains_ends_in_one_table(
    domains: Path, config: str, capsys: pytest.CaptureFixture
) -> None:
    words = ["DATASETS.TRAIN_WEIGHTS", "(0.75, 0.25)", "DATASETS.LABEL_COUNT", 3]
    words += ["DATALOADER.SAMPLER_TRAIN", "ClassUniformSampler", "DATASETS.LABEL_SEED", 1]
    results = main(arguments("--config-file", config, *words))
    assert list(results) == list(SETS[2:])
    console = capsys.readouterr().out
    folder = domains / "out" / "inference"
    assert json.loads((folder / "results.json").read_text()).keys() == results.keys()

    header, *rows = csv.reader((folder / "results.csv").read_text().splitlines())
    assert header == ["task", "metric", *SETS[2:], "mean"]
    cells = {(task, metric): row for task, metric, *row in rows}
    for metric in ("mIoU", "pACC", "IoU-ground", "IoU-sky"):
        numbers = [results[name]["sem_seg"][metric] for name in SETS[2:]]
        found = list(map(float, cells["sem_seg", metric]))
        assert found == pytest.approx([*numbers, np.mean(numbers)])
    table = (folder / "results.md").read_text()
    assert table in console and "Results on 2 data sets:" in console
    assert console.count("| IoU-sky ") == 1

    listed = (domains / "out" / "labelled_images.txt").read_text().split("\n")
    assert listed[0] == f"[{SETS[0]}]" and listed[4] == f"[{SETS[1]}]" and len(listed) == 9
    assert f"{SETS[1]}: 3 of 6 images count as labelled" in console
    # Without number and seed, the list gives the same images.
    given = domains / "given.txt"
    given.write_text("\n".join(listed))
    words = ["DATASETS.LABEL_LIST", given, "OUTPUT_DIR", domains / "again"]
    main(arguments("--config-file", config, *words, "DATASETS.TEST", "()"))
    again = (domains / "again" / "labelled_images.txt").read_text()
    assert again == "\n".join(listed)


def test_one_data_set_needs_no_table(domains: Path, config: str) -> None:
    results = main(arguments("--config-file", config, "DATASETS.TEST", f"['{SETS[2]}']"))
    assert "mIoU" in results["sem_seg"]
    folder = domains / "out" / "inference"
    assert (folder / "results.json").is_file() and not list(folder.glob("results.[mc]*"))
    assert not (domains / "out" / "labelled_images.txt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["DATASETS.LABEL_FRACTION", 2], "LABEL_FRACTION is 2.0; expected"),
        (["DATASETS.LABEL_LIST", "none.txt"], r"LABEL_LIST none\.txt does not exist"),
        (["DATASETS.TRAIN_WEIGHTS", "(1, 2, 3)"], "TRAIN_WEIGHTS has 3 numbers and .* 2 data"),
        (["DATALOADER.SAMPLER_TRAIN", "Best"], "SAMPLER_TRAIN is 'Best'; expected one of"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3], "tiny_day_val, which has 2 classes, but .* is 3"),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(
    domains: Path, config: str, words: list[object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        setup(arguments("--config-file", config, *words))
    assert not (domains / "out").exists()


def test_training_sets_of_different_classes(domains: Path, config: str) -> None:
    folder = domains / SETS[1]
    register_semantic(SETS[1], folder / "images", folder / "labels", CLASSES[::-1])
    message = "tiny_day_train and tiny_night_train, whose stuff_classes differ"
    with pytest.raises(UserError, match=message):
        setup(arguments("--config-file", config))
    assert not (domains / "out").exists()


def test_test_sets_of_other_classes_are_mentioned(
    domains: Path, config: str, capsys: pytest.CaptureFixture
) -> None:
    folder = domains / SETS[3]
    register_semantic(SETS[3], folder / "images", folder / "labels", ["ground", "clouds"])
    setup(arguments("--config-file", config))
    console = capsys.readouterr().out
    assert "class 1 is sky in tiny_day_train and clouds in tiny_night_val" in console
    assert "ground" not in console
    register_semantic(SETS[3], folder / "images", folder / "labels", [*CLASSES, "sea"])
    setup(arguments("--config-file", config))
    assert "those from sea on are never predicted" in capsys.readouterr().out


def test_more_labels_than_images(domains: Path, config: str) -> None:
    message = "LABEL_COUNT is 7, but data set tiny_day_train has 6 images"
    with pytest.raises(UserError, match=message):
        main(arguments("--config-file", config, "DATASETS.LABEL_COUNT", 7))
    assert not (domains / "out" / "labelled_images.txt").exists()


def test_denoising_ignores_labels_and_says_so(domains: Path, capsys: pytest.CaptureFixture) -> None:
    config = denoising_config(domains, domains / SETS[0] / "images")
    words = ["DATASETS.LABEL_COUNT", 100, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1]
    main(arguments("--config-file", config, *words))
    assert "denoising uses no labels: ignored, all images are used" in capsys.readouterr().out
    assert not (domains / "pretrain" / "labelled_images.txt").exists()
