"""Loaders of videos: batches of clips, few labels, unreadable frames, samplers by class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data import build_test_loader, build_train_loader, register_from_config
from ddep.data.class_presence import find_classes
from ddep.data.labels import LABELLED_IMAGES
from ddep.data.samplers import build_train_sampler
from ddep.errors import UserError
from tests.data.datasets.imitation_videos import COMPRESSED, HEIGHT, Videos


@pytest.fixture
def videos(tmp_path: Path) -> Iterator[Videos]:
    """A video of three frames with a dog and a crowd, and one of one frame with a cat."""
    videos = Videos(tmp_path / "data")
    cat = {"id": 3, "video_id": 2, "category_id": 4, "segmentations": [COMPRESSED]}
    videos.content["annotations"].append(cat)
    videos.write()
    yield videos
    DatasetCatalog.pop("own_video", None)
    MetadataCatalog.pop("own_video", None)


@pytest.fixture
def make(videos: Videos, config, tmp_path: Path) -> Callable[..., CfgNode]:
    def make_config(*overrides: Any) -> CfgNode:
        cfg = config(
            *("DATASETS.CUSTOM", videos.custom(), "DATASETS.TRAIN", ("own_video",)),
            *("DATASETS.TEST", ("own_video",), "OUTPUT_DIR", str(tmp_path / "out"), "SEED", 1),
            *("INPUT.DATASET_MAPPER_NAME", "mask_former_video_instance", "INPUT.FORMAT", "RGB"),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2, "INPUT.MIN_SIZE_TRAIN", (HEIGHT,)),
            *("INPUT.MIN_SIZE_TEST", HEIGHT, "SOLVER.IMS_PER_BATCH", 2),
            *("DATALOADER.NUM_WORKERS", 0, *overrides),
        )
        register_from_config(cfg)
        return cfg

    return make_config


def drawn(cfg: CfgNode, number: int) -> list[int]:
    """The videos of the first ``number`` batches."""
    return [s["video_id"] for batch in islice(build_train_loader(cfg), number) for s in batch]


def test_batches_of_clips(make) -> None:
    for batch in islice(build_train_loader(make("INPUT.SAMPLING_FRAME_NUM", 3)), 4):
        assert [len(sample["image"]) for sample in batch] == [3, 3]
        assert {len(frame) for sample in batch for frame in sample["instances"]} <= {0, 1}


def test_clips_can_be_drawn_again(make) -> None:
    cfg = make("INPUT.RANDOM_FLIP", "flip_by_clip")
    loader = build_train_loader(cfg)
    for _ in islice(loader, 3):
        pass
    state = loader.state_dict()
    expected = [sample["frame_indices"] for batch in islice(loader, 5) for sample in batch]
    resumed = build_train_loader(cfg)
    resumed.load_state_dict(state)
    assert [s["frame_indices"] for batch in islice(resumed, 5) for s in batch] == expected


def test_labels_are_counted_by_videos(make, tmp_path: Path) -> None:
    cfg = make("DATASETS.LABEL_COUNT", 1)
    chosen = set(drawn(cfg, 5))
    assert len(chosen) == 1
    path = tmp_path / "out" / LABELLED_IMAGES
    name = {5: "a/0.png", 2: "b/0.png"}[chosen.pop()]
    assert path.read_text() == f"[own_video]\n{name}\n"
    assert drawn(make("DATASETS.LABEL_LIST", str(path)), 5) == drawn(cfg, 5)


def test_videos_without_objects_are_left_out(make, videos: Videos) -> None:
    del videos.content["annotations"][0]  # the crowd is left
    videos.write()
    assert set(drawn(make(), 5)) == {2}
    assert set(drawn(make("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False), 5)) == {2, 5}


def test_a_video_with_a_missing_frame_is_skipped(make, videos: Videos) -> None:
    for frame in range(3):
        (videos.images / f"a/{frame}.png").unlink()
    loader = build_train_loader(make())
    assert {sample["video_id"] for batch in islice(loader, 5) for sample in batch} == {2}
    assert list(loader.unreadable) == [str(videos.images / "a/0.png")]
    with pytest.raises(UserError, match=r"1 training images cannot be read, but .*a/\d\.png"):
        drawn(make("INPUT.MAX_UNREADABLE", 0), 5)


def test_evaluation(make) -> None:
    [first], [second] = build_test_loader(make(), "own_video")
    assert (first["length"], second["length"]) == (3, 1)
    assert all(isinstance(frame, torch.Tensor) for frame in first["image"])


def test_worker_processes_read_frames_on_demand(make) -> None:
    cfg = make("TEST.CLIP.FRAMES", 2, "DATALOADER.NUM_WORKERS", 1)
    [first], [second] = build_test_loader(cfg, "own_video")
    assert first["image"][2].shape == second["image"][0].shape == (3, HEIGHT, 8)


def test_samplers_by_class(make) -> None:
    cfg = make()
    records = DatasetCatalog.get("own_video")
    assert [classes.tolist() for classes in find_classes(cfg, records)] == [[1], [0]]
    cfg = make(
        *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        *("DATALOADER.REPEAT_THRESHOLD", 1.0),
    )
    # All videos show class 0, the crowd's, and three of five show class 1.
    sampler = build_train_sampler(cfg, [records * 2 + records[:1]])
    indices = list(islice(sampler.indices(0, 0), 3000))
    assert indices.count(0) / indices.count(1) == pytest.approx((5 / 3) ** 0.5, rel=0.1)
    assert indices.count(0) / indices.count(2) == pytest.approx(1, rel=0.1)


def test_denoising_takes_all_frames(make, videos: Videos) -> None:
    cfg = make("INPUT.DATASET_MAPPER_NAME", "ddep_denoising", "INPUT.CROP.ENABLED", False)
    expected = {str(videos.images / name) for name in ("a/0.png", "a/1.png", "a/2.png", "b/0.png")}
    batches = islice(build_train_loader(cfg), 8)
    assert {sample["file_name"] for batch in batches for sample in batch} == expected
    loader = build_test_loader(cfg, "own_video")
    assert [sample["file_name"] for [sample] in loader] == sorted(expected)
