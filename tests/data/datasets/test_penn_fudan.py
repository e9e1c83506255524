from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO

from ddep.data.datasets.penn_fudan import prepare_penn_fudan, split_names
from ddep.errors import UserError


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten images, NAME00 to NAME09, with 0 to 3 people."""
    folder = tmp_path / "source"
    rng = np.random.default_rng(0)
    for index in range(10):
        mask = np.zeros((30 + index, 40), dtype=np.uint8)
        for person in range(index % 4):
            mask[5:25, 10 * person + 1 : 10 * person + 8 + person] = person + 1
        name = f"NAME{index:02d}"
        ending = "jpg" if index % 2 else "png"
        save(
            folder / "PNGImages" / f"{name}.{ending}",
            rng.integers(0, 255, (*mask.shape, 3), np.uint8),
        )
        save(folder / "PedMasks" / f"{name}_mask.png", mask)
    return folder


def check_consistent(root: Path, masks: Path) -> dict[str, int]:
    """Compare all labels with the masks they were made of; count people by split."""
    people = {}
    for split in ("train", "val"):
        coco = COCO(str(root / "penn_fudan" / f"instances_{split}.json"))
        instances = DatasetCatalog.get(f"penn_fudan_instance_{split}")
        panoptic = DatasetCatalog.get(f"penn_fudan_panoptic_{split}")
        assert [r["file_name"] for r in instances] == [r["file_name"] for r in panoptic]
        people[split] = 0
        for record, pan in zip(instances, panoptic, strict=True):
            name = Path(record["file_name"]).stem
            mask = np.asarray(Image.open(masks / f"{name}_mask.png"))
            number = int(mask.max())
            people[split] += number
            assert (record["height"], record["width"]) == mask.shape
            assert record["image_id"] == pan["image_id"]

            annotations = coco.loadAnns(coco.getAnnIds(imgIds=record["image_id"]))
            assert len(annotations) == len(record["annotations"]) == number
            for person, annotation in enumerate(annotations, start=1):
                truth = mask == person
                np.testing.assert_array_equal(coco.annToMask(annotation), truth)
                assert annotation["area"] == truth.sum()
                y, x = np.nonzero(truth)
                corner_and_size = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
                assert annotation["bbox"] == corner_and_size
                assert record["annotations"][person - 1]["category_id"] == 0

            sem_seg = np.asarray(Image.open(pan["sem_seg_file_name"]))
            np.testing.assert_array_equal(sem_seg, (mask == 0).astype(np.uint8))
            ids = np.asarray(Image.open(pan["pan_seg_file_name"])).astype(int) @ [1, 256, 65536]
            things = [s for s in pan["segments_info"] if s["isthing"]]
            (background,) = (s for s in pan["segments_info"] if not s["isthing"])
            assert background["category_id"] == 1
            np.testing.assert_array_equal(ids == background["id"], mask == 0)
            assert len(things) == number
            for segment in things:
                assert segment["category_id"] == 0
                (person,) = np.unique(mask[ids == segment["id"]])
                assert segment["area"] == (mask == person).sum() == (ids == segment["id"]).sum()
    return people


def test_prepared_labels(source: Path, root: Path) -> None:
    counts = prepare_penn_fudan(source, root / "penn_fudan")
    assert {split: numbers["images"] for split, numbers in counts.items()} == {"train": 8, "val": 2}
    people = check_consistent(root, source / "PedMasks")
    assert people == {split: numbers["people"] for split, numbers in counts.items()}
    assert sum(people.values()) == 13
    for record in DatasetCatalog.get("penn_fudan_panoptic_train"):
        copied = Path(record["file_name"])
        assert copied.read_bytes() == (source / "PNGImages" / copied.name).read_bytes()


def test_metadata(root: Path) -> None:
    instance = MetadataCatalog.get("penn_fudan_instance_val")
    assert instance.evaluator_type == "coco"
    assert instance.thing_classes == ["pedestrian"]
    assert instance.json_file == str(root / "penn_fudan" / "instances_val.json")
    panoptic = MetadataCatalog.get("penn_fudan_panoptic_val")
    assert panoptic.evaluator_type == "panoptic_seg"
    assert panoptic.stuff_classes == ["pedestrian", "background"]
    assert panoptic.thing_classes == ["pedestrian"]
    assert panoptic.thing_dataset_id_to_contiguous_id == {1: 0}
    assert panoptic.stuff_dataset_id_to_contiguous_id == {1: 0, 2: 1}


def test_the_split_is_fixed() -> None:
    names = [f"FudanPed{i:05d}" for i in range(1, 75)] + [f"PennPed{i:05d}" for i in range(1, 97)]
    split = split_names(names)
    assert {key: len(value) for key, value in split.items()} == {"train": 136, "val": 34}
    assert sorted(split["train"] + split["val"]) == sorted(names)
    assert split == split_names(reversed(names))
    digest = hashlib.sha256(" ".join(split["val"]).encode()).hexdigest()
    assert digest.startswith("84509b84")
    assert 5 < sum(name.startswith("Fudan") for name in split["val"]) < 29


def test_twice_and_in_place(source: Path, root: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")}

    target = root / "penn_fudan"
    prepare_penn_fudan(source, target)
    first = contents(target)
    prepare_penn_fudan(source, target)
    assert contents(target) == first
    original = contents(source)
    prepare_penn_fudan(source, source)
    assert contents(source) == {**original, **first}


def test_mistakes_in_the_source(source: Path, root: Path) -> None:
    target = root / "penn_fudan"
    prepare_penn_fudan(source, target)
    mask = source / "PedMasks" / "NAME03_mask.png"
    pixels = np.asarray(Image.open(mask))

    save(mask, np.where(pixels > 0, 255, 0).astype(np.uint8))
    with pytest.raises(UserError, match=rf"{mask}: the ids of its people are \[255\]; expected 0"):
        prepare_penn_fudan(source, target)
    splits = split_names(f"NAME{index:02d}" for index in range(10))
    [split] = [split for split, names in splits.items() if "NAME03" in names]
    with pytest.raises(UserError, match=rf"panoptic_{split}\.json cannot be read"):
        DatasetCatalog.get(f"penn_fudan_panoptic_{split}")

    save(mask, pixels[:, 1:])
    with pytest.raises(UserError, match=f"{mask}: 39x33 pixels, but its image .* has 40x33"):
        prepare_penn_fudan(source, target)
    mask.unlink()
    with pytest.raises(UserError, match=f"NAME03.jpg: its label {mask} is missing"):
        prepare_penn_fudan(source, target)
    with pytest.raises(UserError, match="PNGImages is not a folder; expected Penn-Fudan:"):
        prepare_penn_fudan(source / "PNGImages", target)


@pytest.mark.slow
def test_real_penn_fudan(shared_data: Path, root: Path) -> None:
    source = shared_data / "penn_fudan"
    counts = prepare_penn_fudan(source, root / "penn_fudan")
    assert {split: numbers["images"] for split, numbers in counts.items()} == {
        "train": 136,
        "val": 34,
    }
    people = check_consistent(root, source / "PedMasks")
    assert people == {split: numbers["people"] for split, numbers in counts.items()}
    assert sum(people.values()) == 423
