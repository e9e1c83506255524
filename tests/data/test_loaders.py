from __future__ import annotations

import itertools
import logging
import multiprocessing
import pickle
import subprocess
import traceback
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger
from PIL import Image

from ddep.data.image_reader import UnreadableImageError
from ddep.data.loaders import build_test_loader, build_train_loader
from ddep.data.mappers import MAPPERS, build_mapper
from ddep.errors import UserError, one_line

COUNT = 8


@pytest.fixture
def register():
    """Registers records under a name until the test ends."""
    names = []

    def enter(name: str, records: list[dict], **metadata) -> None:
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(**metadata)
        names.append(name)

    yield enter
    for name in names:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


@pytest.fixture
def records(tmp_path):
    """Images of one grey value each, 20 times their number, with labels; half are landscape."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(COUNT):
        size = (20, 30) if i % 2 else (30, 20)
        Image.fromarray(np.full(size, 20 * i, np.uint8)).save(folder / f"{i}.jpg")
        Image.fromarray(np.full(size, i % 2, np.uint8)).save(folder / f"{i}.png")
    return [
        {"file_name": str(folder / f"{i}.jpg"), "sem_seg_file_name": str(folder / f"{i}.png")}
        for i in range(COUNT)
    ]


@pytest.fixture
def semantic(config, register, records):
    """A config for those images, with KEY, VALUE, ... overrides."""
    register("test_grey", records)

    def make(*overrides):
        return config(
            *("DATASETS.TRAIN", ("test_grey",), "DATASETS.TEST", ("test_grey",)),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2, "INPUT.MIN_SIZE_TRAIN", (20,)),
            *("INPUT.MIN_SIZE_TEST", 20, "SOLVER.IMS_PER_BATCH", 2, "SEED", 3),
            *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.ASPECT_RATIO_GROUPING", False),
            *overrides,
        )

    return make


def batches(cfg, count: int) -> list[list[dict]]:
    return list(itertools.islice(build_train_loader(cfg), count))


def order(cfg, count: int) -> list[int]:
    return [int(Path(s["file_name"]).stem) for batch in batches(cfg, count) for s in batch]


def complaint(kind: type[UserError], loader: Iterable) -> str:
    """The line that iterating ends with."""
    try:
        for _ in itertools.islice(loader, 30):
            pass
    except kind as error:
        # Otherwise the loader lives on, and its processes get five seconds each when it dies.
        traceback.clear_frames(error.__traceback__)
        return one_line(error)
    raise AssertionError("no error")


def break_image(record: dict) -> None:
    path = Path(record["file_name"])
    path.write_bytes(path.read_bytes()[:-10])


def test_every_image_comes_once_per_epoch(semantic):
    drawn = order(semantic(), 2 * COUNT // 2)
    assert sorted(drawn[:COUNT]) == sorted(drawn[COUNT:]) == list(range(COUNT))


def test_the_order_depends_only_on_the_seed(semantic):
    torch.manual_seed(0)
    np.random.seed(0)
    first = order(semantic(), 8)
    torch.manual_seed(1)
    assert order(semantic(), 8) == first
    assert order(semantic("DATALOADER.NUM_WORKERS", 2), 8) == first
    assert order(semantic("SEED", 4), 8) != first
    np.random.seed(1)
    unseeded = [order(semantic("SEED", -1), 8) for _ in range(3)]
    assert unseeded[0] != unseeded[1] or unseeded[1] != unseeded[2]


def same(first: list[list[dict]], second: list[list[dict]]) -> bool:
    """Whether the samples' images and noise are equal to the last bit."""
    return all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in ("image", "noise") if k in a)
        for batches in zip(first, second, strict=True)
        for a, b in zip(*batches, strict=True)
    )


@pytest.mark.parametrize(
    ("mapper", "share"),
    [("ddep_denoising", 0.0), ("mask_former_semantic", 0.0), ("mask_former_semantic", 0.5)],
)
def test_resumed_to_the_last_bit(semantic, records, tmp_path, mapper, share):
    """Sizes, crops, colours, noise, replaced images and groups: all as without a stop."""
    break_image(records[5])
    augmented = (
        *("INPUT.DATASET_MAPPER_NAME", mapper, "INPUT.COLOR_AUG_SSD", True),
        *("INPUT.MIN_SIZE_TRAIN", (16, 20, 24), "INPUT.CROP.ENABLED", True),
        *("INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (12, 12)),
        *("DATALOADER.ASPECT_RATIO_GROUPING", True, "SOLVER.IMS_PER_BATCH", 4),
        *("DATALOADER.CLASS_UNIFORM.SHARE", share, "OUTPUT_DIR", str(tmp_path)),
    )
    loader = build_train_loader(semantic(*augmented, "SEED", -1))
    first = list(itertools.islice(loader, 5))
    state = loader.state_dict()
    expected = list(itertools.islice(loader, 6))
    assert state["waiting"] and state["unreadable"]
    for workers in (0, 2):
        keys = ("SEED", -1, "DATALOADER.NUM_WORKERS", workers)
        resumed = build_train_loader(semantic(*augmented, *keys))
        resumed.load_state_dict(state)
        assert same(list(itertools.islice(resumed, 6)), expected)
    assert not same(first, expected[:5])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("SEED", 4), "SEED is 4, but the resumed run has 3"),
        (("DATASETS.TRAIN", ("test_grey", "test_grey")), r"TRAIN is \['test_grey', 'test_grey'\]"),
        (("DATASETS.LABEL_COUNT", 5), r"images in each set is \[5\], but .* has \[8\]"),
        (("DATASETS.TRAIN_WEIGHTS", (2.0,)), r"TRAIN_WEIGHTS is \[2.0\], but .* has \[\]"),
        (("DATALOADER.SAMPLER_TRAIN", "ClassUniformSampler"), "SAMPLER_TRAIN is ClassUniform"),
        (("DATALOADER.CLASS_UNIFORM.SHARE", 0.5), "SHARE is 0.5, but the resumed run has None"),
    ],
)
def test_resumed_with_another_config(semantic, tmp_path, overrides, message):
    state = build_train_loader(semantic()).state_dict()
    other = build_train_loader(semantic("OUTPUT_DIR", str(tmp_path), *overrides))
    with pytest.raises(UserError, match=message):
        other.load_state_dict(state)


def test_samples_belong_to_their_images(semantic):
    for batch in batches(semantic("DATALOADER.NUM_WORKERS", 2), 4):
        assert len(batch) == 2
        for sample in batch:
            number = int(Path(sample["file_name"]).stem)
            assert (sample["image"].float() - 20 * number).abs().max() <= 2
            assert sample["instances"].gt_classes.tolist() == [number % 2]


def test_aspect_ratio_grouping(semantic):
    for batch in batches(semantic("DATALOADER.ASPECT_RATIO_GROUPING", True), 6):
        assert len({sample["width"] > sample["height"] for sample in batch}) == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("grouping", [True, False])
def test_truncated_image_is_skipped_and_named_in_the_log(
    semantic, records, tmp_path, workers, grouping
):
    break_image(records[5])
    setup_logger(str(tmp_path / "log.txt"), name="ddep")
    keys = (
        *("DATALOADER.NUM_WORKERS", workers, "DATALOADER.ASPECT_RATIO_GROUPING", grouping),
        *("INPUT.MAX_UNREADABLE", 1),
    )
    try:
        drawn = order(semantic(*keys), 16)
    finally:
        logger = logging.getLogger("ddep")
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
    assert set(drawn) == set(range(COUNT)) - {5} and len(drawn) == 32
    lines = (tmp_path / "log.txt").read_text().splitlines()
    named = [line for line in lines if records[5]["file_name"] in line]
    assert len(named) == 1 and "WARNING: skipped: image" in named[0]
    assert "image file is truncated" in named[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_images(semantic, records, workers):
    for record in records[:4]:
        break_image(record)
    keys = ("DATALOADER.NUM_WORKERS", workers, "INPUT.MAX_UNREADABLE")
    message = complaint(UserError, build_train_loader(semantic(*keys, 2)))
    assert message.startswith("3 training images cannot be read, but INPUT.MAX_UNREADABLE allows 2")
    assert "the last: image " in message and "truncated" in message
    assert len(batches(semantic(*keys, 4), 20)) == 20


def test_wrong_labels_stop_training_with_one_line(semantic, records):
    Image.fromarray(np.full((30, 20), 7, np.uint8)).save(records[2]["sem_seg_file_name"])
    message = complaint(UserError, build_train_loader(semantic("DATALOADER.NUM_WORKERS", 2)))
    assert message.startswith(f"label image {records[2]['sem_seg_file_name']} has the ids 7;")
    assert "\n" not in message


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader(semantic, records, workers):
    before = pickle.dumps(records)
    keys = ("INPUT.DATASET_MAPPER_NAME", "ddep_denoising", "DATALOADER.NUM_WORKERS", workers)
    runs = [list(build_test_loader(semantic(*keys), "test_grey")) for _ in range(2)]
    assert pickle.dumps(records) == before
    for first, again in zip(*runs, strict=True):
        assert len(first) == 1 and torch.equal(first[0]["noise"], again[0]["noise"])
    numbers = [int(Path(batch[0]["file_name"]).stem) for batch in runs[0]]
    assert numbers == list(range(COUNT))
    noises = torch.stack([batch[0]["noise"].flatten() for batch in runs[0]])
    generators = [torch.Generator().manual_seed(position) for position in range(COUNT)]
    shapes = [batch[0]["noise"].shape for batch in runs[0]]
    expected = [torch.randn(s, generator=g) for s, g in zip(shapes, generators, strict=True)]
    assert torch.equal(noises, torch.stack([e.flatten() for e in expected]))


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_never_skips(semantic, records, workers):
    break_image(records[5])
    loader = build_test_loader(semantic("DATALOADER.NUM_WORKERS", workers), "test_grey")
    message = complaint(UnreadableImageError, loader)
    assert message.startswith(f"image {records[5]['file_name']} cannot be read: ")


def test_evaluation_outlives_signals_and_draws_no_random_numbers(semantic):
    before, others = torch.get_rng_state(), set(multiprocessing.active_children())
    batches = iter(build_test_loader(semantic("DATALOADER.NUM_WORKERS", 1), "test_grey"))
    next(batches)
    [worker] = set(multiprocessing.active_children()) - others
    subprocess.run(["sh", "-c", f"kill -INT {worker.pid}; kill -TERM {worker.pid}"], check=True)
    assert len(list(batches)) == COUNT - 1
    assert torch.equal(torch.get_rng_state(), before)


def test_images_without_objects_are_dropped_where_they_have_annotations(config, register, records):
    polygon = [[1.0, 1.0, 15.0, 1.0, 15.0, 15.0]]
    found = {"bbox": [1, 1, 15, 15], "bbox_mode": 0, "category_id": 0, "segmentation": polygon}
    labelled = [
        {**record, "annotations": [found] if i < 3 else []} for i, record in enumerate(records)
    ]
    register("test_objects", labelled, thing_classes=["a"])
    register("test_plain", records)
    cfg = config(
        *("DATASETS.TRAIN", ("test_objects",), "INPUT.DATASET_MAPPER_NAME", "mask_former_instance"),
        *("INPUT.MIN_SIZE_TRAIN", (20,), "SOLVER.IMS_PER_BATCH", 1, "DATALOADER.NUM_WORKERS", 0),
        *("SEED", 0, "DATALOADER.ASPECT_RATIO_GROUPING", False),
    )
    assert set(order(cfg, 12)) == {0, 1, 2}
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    assert set(order(cfg, 12)) == {0, 1, 2}
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert set(order(cfg, COUNT)) == set(range(COUNT))
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    cfg.INPUT.DATASET_MAPPER_NAME = "ddep_denoising"
    cfg.DATASETS.TRAIN = ("test_objects", "test_plain")
    assert len(order(cfg, 2 * COUNT)) == 2 * COUNT


@pytest.fixture
def spawn():
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
def test_spawned_worker(semantic, records, caplog, spawn):
    """As on systems whose processes do not fork; it also reports unreadable images."""
    break_image(records[5])
    drawn = order(semantic("DATALOADER.NUM_WORKERS", 1, "INPUT.COLOR_AUG_SSD", True), 8)
    assert set(drawn) == set(range(COUNT)) - {5}
    named = [message for message in caplog.messages if message.startswith("skipped:")]
    assert len(named) == 1 and records[5]["file_name"] in named[0]


@pytest.mark.parametrize("name", MAPPERS)
@pytest.mark.parametrize("is_train", [True, False])
def test_mappers_can_be_sent_to_another_process(config, name, is_train):
    cfg = config("INPUT.DATASET_MAPPER_NAME", name, "INPUT.COLOR_AUG_SSD", True)
    mapper = pickle.loads(pickle.dumps(build_mapper(cfg, is_train)))
    assert type(mapper) is MAPPERS[name] and mapper.is_train is is_train


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("SOLVER.IMS_PER_BATCH", 0), "SOLVER.IMS_PER_BATCH is 0; expected a multiple"),
        (("DATASETS.TRAIN", ()), "DATASETS.TRAIN is empty"),
        (("DATASETS.TRAIN", ("test_none",)), "DATASETS.TRAIN has 'test_none', which is not"),
        (("DATALOADER.SAMPLER_TRAIN", "Best"), "DATALOADER.SAMPLER_TRAIN is 'Best'"),
        (
            ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
            "RepeatFactorTrainingSampler, which needs instance annotations",
        ),
    ],
)
def test_wrong_values(semantic, overrides, message):
    with pytest.raises(UserError, match=message):
        build_train_loader(semantic(*overrides))


def test_data_sets_that_cannot_be_loaded_or_combined(semantic, register, records):
    register("test_bare", [])
    with pytest.raises(UserError, match="data set test_bare cannot be loaded: it has no images;"):
        build_test_loader(semantic(), "test_bare")
    register("test_cats", records, stuff_classes=["cat", "dog"])
    register("test_dogs", records, stuff_classes=["dog", "cat"])
    with pytest.raises(UserError, match="test_cats and test_dogs, whose stuff_classes differ"):
        build_train_loader(semantic("DATASETS.TRAIN", ("test_cats", "test_dogs")))
