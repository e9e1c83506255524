"""Video data sets: YouTube-VIS's format, official layouts, and DATASETS.CUSTOM."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from ddep.data.datasets import labelled_for, register_from_config
from ddep.data.datasets.video import load_videos
from ddep.data.records import check_training_sets
from ddep.errors import UserError
from tests.data.datasets.imitation_videos import (
    AREA,
    BOX,
    CATEGORIES,
    COMPRESSED,
    COUNTS,
    HEIGHT,
    POLYGON,
    WIDTH,
    Videos,
)


def test_records(videos: Videos) -> None:
    first, second = videos.load()
    frames = [str(videos.images / f"a/{i}.png") for i in range(3)]
    annotations = first.pop("annotations")
    assert first == {
        "file_name": frames[0],
        "file_names": frames,
        "height": HEIGHT,
        "width": WIDTH,
        "length": 3,
        "video_id": 5,
    }
    assert (second["video_id"], second["length"], second["annotations"]) == (2, 1, [[]])
    dog = {"id": 1, "category_id": 1, "iscrowd": 0, "bbox": BOX, "area": AREA}
    cat = {"id": 7, "category_id": 0, "iscrowd": 1, "bbox": BOX, "area": 11}
    mode = {"bbox_mode": BoxMode.XYWH_ABS}
    assert annotations == [
        [{**dog, **mode, "segmentation": COMPRESSED}],
        [{**cat, **mode, "segmentation": POLYGON}],
        [{**dog, **mode, "segmentation": COUNTS}],
    ]


def test_a_file_without_annotations(videos: Videos) -> None:
    for nothing in (None, []):
        videos.content["annotations"] = nothing
        assert "annotations" not in videos.load(labelled=False)[0]
    del videos.content["annotations"]
    assert len(videos.load(labelled=False)) == 2
    with pytest.raises(UserError, match=r"train\.json has no list 'annotations'; .*YouTube-VIS's"):
        videos.load()


def video(**changes: Any) -> Callable[[dict], object]:
    return lambda c: c["videos"][0].update(changes)


def track(**changes: Any) -> Callable[[dict], object]:
    return lambda c: c["annotations"][0].update(changes)


MISTAKES: dict[str, tuple[Callable[[dict], object], str]] = {
    "no videos": (lambda c: c["videos"].clear(), ": lists no videos; get"),
    "no list of videos": (
        lambda c: c.update(videos=None),
        " has no list 'videos'; expected a JSON file in YouTube-VIS's format, with videos and",
    ),
    "video without id": (lambda c: c["videos"][0].pop("id"), ": a video has no id: .*; expected"),
    "video that is a number": (lambda c: c["videos"].append(3), ": a video has no id: 3; expect"),
    "no frames": (video(file_names=[]), r": video 5 has file_names \[\]; expected a list"),
    "frames without names": (video(file_names=[1, 2, 3]), r": video 5 has file_names \[1, 2, 3\]"),
    "length": (video(length=4), ": video 5 has length 4, but 3 file_names; they must be"),
    "height": (video(height="6"), ": video 5 has height '6'; expected a number of pixels"),
    "two videos of an id": (video(id=2), ": two videos have the id 2; give each its own"),
    "id that is text": (video(id="5"), ": a video has the id '5'; expected a whole number"),
    "track without number": (track(id=-1), ": an annotation has the id -1; expected a whole num"),
    "annotation without id": (
        lambda c: c["annotations"][0].pop("id"),
        ": an annotation has no id: .*; expected id, video_id, category_id, segmentations",
    ),
    "unknown video": (track(video_id=3), ": annotation 1 is of video 3, which is not listed"),
    "unknown class": (
        track(category_id=5),
        ": annotation 1 has category 5, which is not listed; expected one of 4, 9",
    ),
    "fewer masks than frames": (
        track(segmentations=[None, None]),
        ": annotation 1 has 2 segmentations, but video 5 has 3 frames; expected one of each frame",
    ),
    "more boxes than frames": (track(bboxes=[BOX] * 4), ": annotation 1 has 4 bboxes, but video 5"),
    "areas that are no list": (track(areas=3), ": annotation 1 has int areas, but video 5 has 3"),
    "twice in a frame": (
        lambda c: c["annotations"].append(c["annotations"][0]),
        ": annotation 1 is twice in frame a/0.png; expected once: give every track an id",
    ),
    "mask of another size": (
        track(segmentations=[{"size": [8, 6], "counts": [48]}, None, None]),
        r": annotation 1 has a mask of .* \[8, 6\] in frame a/0\.png; expected \[6, 8\]",
    ),
    "mask that is a number": (
        track(segmentations=[7, None, None]),
        ": annotation 1 has a segmentation 7; expected polygons, COCO run lengths or null",
    ),
    "polygon of numbers": (
        track(segmentations=[[1, 2], None, None]),
        r": annotation 1 has a segmentation \[1, 2\]; expected polygons",
    ),
    "other classes": (
        lambda c: c["categories"][0].update(name="cow"),
        ": category 9 is cow; expected dog; this is the file of another data set",
    ),
    "a class less": (
        lambda c: c["categories"].pop(),
        ": category 4 is None; expected cat; this is the file of another data set",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(videos: Videos, name: str) -> None:
    change, message = MISTAKES[name]
    change(videos.content)
    with pytest.raises(UserError, match=rf"^\S*train\.json{message}") as raised:
        videos.load()
    assert "\n" not in str(raised.value)


def test_broken_files(videos: Videos) -> None:
    videos.write()
    videos.json.write_text(videos.json.read_text()[:-9])
    with pytest.raises(UserError, match=r"train\.json is not a JSON file: .*; get or make it"):
        load_videos(videos.images, videos.json, CATEGORIES, labelled=True)
    with pytest.raises(UserError, match=r"none\.json cannot be read: No such file or directory"):
        load_videos(videos.images, videos.json.with_name("none.json"), CATEGORIES, labelled=True)
    videos.images.rename(videos.images.with_name("moved"))
    with pytest.raises(UserError, match=r"frames/a/0\.png does not exist, nor does the first fram"):
        videos.load()


def test_own_videos(videos: Videos, config) -> None:
    videos.write()
    for classes in ({}, {"classes": ["cat", "dog"]}):
        cfg = config(
            *("DATASETS.CUSTOM", videos.custom(**classes), "DATASETS.TRAIN", ("own_video",)),
            *("INPUT.DATASET_MAPPER_NAME", "mask_former_video_instance"),
        )
        register_from_config(cfg)
        check_training_sets(cfg)
        metadata = MetadataCatalog.get("own_video")
        assert metadata.thing_classes == ["cat", "dog"]
        assert metadata.thing_dataset_id_to_contiguous_id == {4: 0, 9: 1}
        assert (metadata.evaluator_type, labelled_for("own_video")) == ("ytvis", ("video_segm",))
        assert [record["video_id"] for record in DatasetCatalog.get("own_video")] == [5, 2]


OWN_MISTAKES: dict[str, tuple[Callable[[Videos], object], dict, str]] = {
    "other classes": (
        lambda v: None,
        {"classes": ["dog", "cat"]},
        "class 0 is 'dog' by classes, and 'cat' by the categories of json",
    ),
    "annotations of images": (
        lambda v: v.content["annotations"].__setitem__(0, {"segmentation": [], "image_id": 3}),
        {},
        "json .*train.json has instance annotations; expected video ones",
    ),
    "no masks": (
        lambda v: v.content["annotations"][0].pop("segmentations"),
        {},
        "annotation 1 of json .* lacks segmentations, which YouTube-VIS's format has of video ann",
    ),
    "a JSON file of images": (
        lambda v: v.content.pop("videos"),
        {},
        "json .*train.json has no list 'videos'; expected a JSON file in YouTube-VIS's format",
    ),
    "no frame": (
        lambda v: None,
        {"images": "."},
        "a/0.png does not exist, nor does the first frame of another video",
    ),
    "a mask too few": (
        lambda v: v.content["annotations"][0]["segmentations"].pop(),
        {},
        ".*train.json: annotation 1 has 2 segmentations, but video 5 has 3 frames",
    ),
    "an unknown key": (
        lambda v: None,
        {"labels": "x"},
        "unknown key labels; kind video has images",
    ),
}


@pytest.mark.parametrize("name", OWN_MISTAKES)
def test_mistakes_in_own_videos(videos: Videos, config, name: str) -> None:
    change, keys, message = OWN_MISTAKES[name]
    change(videos)
    videos.write()
    cfg = config("DATASETS.CUSTOM", videos.custom(**keys), "DATASETS.TRAIN", ("own_video",))
    start = r"^DATASETS\.CUSTOM, entry 1 \(own_video\): "
    with pytest.raises(UserError, match=f"{start}.*{message}") as raised:
        register_from_config(cfg)
    assert "\n" not in str(raised.value)


# Name, folder of frames, JSON file, number of classes, and some of them by their ids in the file.
OFFICIAL = [
    (f"ytvis_{year}_{split}", f"ytvis_{year}/{folder}/JPEGImages", f"ytvis_{year}/{folder}.json")
    for year in (2019, 2021)
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test"))
] + [
    (f"ovis_{split}", f"ovis/{folder}", f"ovis/annotations_{folder}.json")
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test"))
]
CLASSES = {
    "ytvis_2019": (40, {1: "person", 23: "leopard", 40: "tennis_racket"}),
    "ytvis_2021": (40, {1: "airplane", 26: "person", 40: "zebra"}),
    "ovis": (25, {1: "Person", 13: "Giant_panda", 25: "Vehical"}),
}


@pytest.mark.parametrize(("name", "images", "json_file"), OFFICIAL)
def test_official_layouts(root: Path, config, name: str, images: str, json_file: str) -> None:
    metadata = MetadataCatalog.get(name)
    assert (metadata.image_root, metadata.json_file) == (str(root / images), str(root / json_file))
    number, some = CLASSES[name.rpartition("_")[0]]
    numbers = metadata.thing_dataset_id_to_contiguous_id
    assert list(numbers.items()) == [(i + 1, i) for i in range(number)]
    assert {i: metadata.thing_classes[numbers[i]] for i in some} == some
    assert len(set(map(tuple, metadata.thing_colors))) == number == len(set(metadata.thing_classes))
    frame = root / images / "v" / "00000.jpg"
    frame.parent.mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(frame)
    found = {
        "videos": [{"id": 1, "file_names": ["v/00000.jpg"], "height": HEIGHT, "width": WIDTH}],
        "annotations": None,
        "categories": [{"id": i + 1, "name": c} for i, c in enumerate(metadata.thing_classes)],
    }
    is_train = name.endswith("train")
    if is_train:
        annotation = {"id": 3, "video_id": 1, "category_id": 23, "segmentations": [POLYGON]}
        found["annotations"] = [annotation]
    (root / json_file).write_text(json.dumps(found))
    [record] = DatasetCatalog.get(name)
    assert record["file_name"] == str(frame)
    assert ("annotations" in record) is is_train
    assert labelled_for(name) == ("video_segm",)
    mapper = ("INPUT.DATASET_MAPPER_NAME", "mask_former_video_instance")
    cfg = config("DATASETS.TRAIN", (name,), *mapper)
    if is_train:
        check_training_sets(cfg)
        return
    expected = f"DATASETS.TRAIN has {name}, whose labels only its server has; choose another set"
    with pytest.raises(UserError, match=expected):
        check_training_sets(cfg)


def test_colours_are_those_of_mask2former_video() -> None:
    for name, colour in (("ytvis_2019_val", [72, 0, 118]), ("ytvis_2021_val", [72, 0, 118])):
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_colors[metadata.thing_classes.index("giraffe")] == colour


def test_a_missing_data_set_says_how_to_get_it(root: Path, config) -> None:
    with pytest.raises(UserError, match="ytvis_2019_train: .*JPEGImages does not exist; unpack"):
        register_from_config(config("DATASETS.TRAIN", ("ytvis_2019_train",)))
