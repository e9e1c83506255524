"""Few labels: the choice of images, and its list."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ddep.data import check_training_sets
from ddep.data.labels import (
    check_label_keys,
    choose_labelled,
    draw_names,
    relative_names,
    write_label_list,
)
from ddep.data.records import load_training_sets
from ddep.data.video_frames import name_frame
from ddep.errors import UserError

NAMES = st.lists(
    st.text("abc019_-./", min_size=1).map(lambda name: f"x{name}y"), min_size=1, unique=True
)
SEEDS = st.integers(0, 2**32 - 1)


def records(root: str, names: list[str]) -> list[dict]:
    return [{"file_name": f"{root}/{name}"} for name in names]


def names_of(chosen: list[dict]) -> list[str]:
    return [record["file_name"].rsplit("/", 1)[1] for record in chosen]


TEN = [f"{i}.jpg" for i in range(10)]


@given(NAMES, SEEDS, st.data())
@settings(max_examples=50, deadline=None)
def test_a_smaller_choice_is_part_of_a_larger_one(
    names: list[str], seed: int, data: st.DataObject
) -> None:
    names = sorted(names)
    small, large = sorted(data.draw(st.integers(0, len(names))) for _ in range(2))
    fewer, more = draw_names(names, small, seed), draw_names(names, large, seed)
    assert fewer <= more <= set(names)
    assert (len(fewer), len(more)) == (small, large)


@given(SEEDS, st.floats(0.01, 1), st.floats(0.01, 1), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_choice_depends_only_on_seed_and_names(
    config, seed: int, one: float, other: float, numbers: random.Random
) -> None:
    """Not on the fraction, the folder of the data, or the order in which they are listed."""
    names = [f"{town}/{i}.jpg" for town in ("bonn", "aachen") for i in range(40)]
    shuffled = numbers.sample(names, len(names))
    few, many = sorted((one, other))
    cfg = config("DATASETS.LABEL_SEED", seed, "DATASETS.LABEL_FRACTION", few)
    [fewer] = choose_labelled(cfg, ["a"], [records("/data", names)])
    cfg.DATASETS.LABEL_FRACTION = many
    [more] = choose_labelled(cfg, ["a"], [records("/home/me/other place", shuffled)])
    assert len(fewer) == round(few * 80) and len(more) == round(many * 80)
    chosen = {record["file_name"].removeprefix("/home/me/other place/") for record in more}
    assert {record["file_name"].removeprefix("/data/") for record in fewer} <= chosen
    # The set's own order is kept.
    assert [r["file_name"].removeprefix("/data/") for r in fewer] == sorted(
        (r["file_name"].removeprefix("/data/") for r in fewer), key=names.index
    )


def test_the_permutation_is_the_same_for_ever() -> None:
    """Published subsets must stay what they are; these are NumPy's frozen MT19937 numbers."""
    names = [f"{i:02d}" for i in range(20)]
    assert sorted(draw_names(names, 5, 0)) == ["01", "08", "10", "18", "19"]
    assert sorted(draw_names(names, 3, 7)) == ["01", "02", "17"]


def test_every_image_has_the_same_chance() -> None:
    counts = Counter(itertools.chain.from_iterable(draw_names(TEN, 3, s) for s in range(2000)))
    assert sum(counts.values()) == 6000
    assert chisquare([counts[name] for name in TEN]).pvalue > 0.01


def test_each_set_is_limited_separately(config) -> None:
    sets = [records("/a", TEN), records("/b", TEN + ["x.jpg"] * 2), records("/c", TEN[:5])]
    cfg = config("DATASETS.LABEL_COUNT", 4)
    chosen = choose_labelled(cfg, ["a", "b", "c"], sets)
    assert [len(set(names_of(part))) for part in chosen] == [4, 4, 4]
    cfg = config("DATASETS.LABEL_FRACTION", 0.4)
    assert [len(part) for part in choose_labelled(cfg, ["a", "c"], sets[::2])] == [4, 2]


def test_several_records_of_an_image_are_one_image(config) -> None:
    twice = records("/a", TEN * 2)
    [chosen] = choose_labelled(config("DATASETS.LABEL_COUNT", 3), ["a"], [twice])
    assert len(chosen) == 6 and set(Counter(names_of(chosen)).values()) == {2}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["LABEL_FRACTION", 0.0], r"LABEL_FRACTION is 0\.0; expected a number above 0"),
        (["LABEL_FRACTION", 1.5], r"LABEL_FRACTION is 1\.5; expected a number above 0 and up to 1"),
        (["LABEL_FRACTION", float("nan")], "LABEL_FRACTION is nan"),
        (["LABEL_FRACTION", None], "LABEL_FRACTION is None"),
        (["LABEL_COUNT", -1], "LABEL_COUNT is -1; expected a number of images"),
        (["LABEL_SEED", -1], "LABEL_SEED is -1; expected 0 to 4294967295"),
        (
            ["LABEL_FRACTION", 0.5, "DATASETS.LABEL_COUNT", 3],
            "LABEL_FRACTION and DATASETS.LABEL_COUNT are given; expected at most",
        ),
        (["LABEL_LIST", "no.txt"], r"LABEL_LIST no\.txt does not exist; expected a list"),
        (["LABEL_LIST", "."], r"LABEL_LIST \. is a folder"),
    ],
)
def test_impossible_keys(config, overrides, message) -> None:
    cfg = config("DATASETS.TRAIN", ("a",))
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        cfg.DATASETS[key.removeprefix("DATASETS.")] = value
    for check in (check_label_keys, check_training_sets):
        with pytest.raises(UserError, match=message):
            check(cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("LABEL_COUNT", 11, "LABEL_COUNT is 11, but data set a has 10 images; expected at most 10"),
        ("LABEL_FRACTION", 0.01, "0.01 of the 10 images of data set a is less .* at least 0.1"),
    ],
)
def test_more_images_than_there_are_or_none(config, key, value, message) -> None:
    with pytest.raises(UserError, match=message):
        choose_labelled(config(f"DATASETS.{key}", value), ["a"], [records("/a", TEN)])


def test_names_are_relative_to_the_deepest_common_folder() -> None:
    assert relative_names(["/d/x/b/1.png", "/d/x/c/2.png"]) == {
        "/d/x/b/1.png": "b/1.png",
        "/d/x/c/2.png": "c/2.png",
    }
    assert relative_names(["/d/x/1.png"]) == {"/d/x/1.png": "1.png"}
    assert relative_names(["/1.png", "/a/2.png"]) == {"/1.png": "1.png", "/a/2.png": "a/2.png"}
    assert relative_names(["d/1.png", "d/e/2.png"])["d/e/2.png"] == "e/2.png"
    frames = [name_frame(f"/d/{name}.mp4", 25, 1_000_000) for name in "ab"]
    assert list(relative_names(frames).values()) == ["a.mp4#000025", "b.mp4#000025"]


def test_a_written_list_gives_the_same_images_elsewhere(config, tmp_path: Path) -> None:
    names, roots = ["a", "b"], ("/data/a", "/data/b")
    sets = [records(root, TEN) for root in roots]
    cfg = config("DATASETS.LABEL_COUNT", 3, "DATASETS.LABEL_SEED", 5)
    chosen = choose_labelled(cfg, names, sets)
    path = tmp_path / "list.txt"
    write_label_list(str(path), names, chosen, sets)
    lines = path.read_text().splitlines()
    assert lines == ["[a]", *sorted(names_of(chosen[0])), "[b]", *sorted(names_of(chosen[1]))]
    given = config("DATASETS.LABEL_LIST", str(path))
    # A set that is named twice has one section.
    again = choose_labelled(
        given, ["b", "a", "b"], [records(f"/x/{n}", TEN[::-1]) for n in ("b", "a", "b")]
    )
    assert [set(names_of(part)) for part in again] == [set(names_of(chosen[i])) for i in (1, 0, 1)]
    write_label_list(str(path), ["a", "a"], chosen[:1] * 2, sets[:1] * 2)
    assert path.read_text().splitlines() == lines[:4]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("1.jpg\nnone.jpg\n0.png\n", ["a"], "has 2 names that are not in data set a, such as 0.pn"),
        ("[c]\n1.jpg\n", ["a"], "line 1: data set c is not in DATASETS.TRAIN, which has a"),
        ("1.jpg\n[b]\n1.jpg\n", ["a", "b"], "line 1: a file name without a data set"),
        ("[a]\n1.jpg\n[b]\n\n", ["a", "b"], "names no image of data set b"),
        ("\n", ["a"], "names no image of data set a"),
        (b"\xff", ["a"], "not UTF-8 text"),
    ],
)
def test_wrong_lists(config, tmp_path: Path, text, names, message) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    cfg = config("DATASETS.LABEL_LIST", str(path))
    with pytest.raises(UserError, match=rf"LABEL_LIST .*list\.txt.*{message}") as error:
        choose_labelled(cfg, names, [records(f"/{name}", TEN) for name in names])
    assert "\n" not in str(error.value)


def test_a_list_for_one_set_needs_no_section(config, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("  3.jpg \n\n1.jpg\r\n")
    cfg = config("DATASETS.LABEL_LIST", str(path))
    [chosen] = choose_labelled(cfg, ["a"], [records("/a", TEN)])
    assert names_of(chosen) == ["1.jpg", "3.jpg"]


@pytest.fixture
def objects():
    """A data set of ten images, of which the first five show objects."""
    found = {"bbox": [1, 1, 5, 5], "bbox_mode": 0, "category_id": 0}
    content = [
        {**record, "annotations": [found] if i < 5 else []}
        for i, record in enumerate(records("/a", TEN))
    ]
    DatasetCatalog.register("test_few", lambda: content)
    yield "test_few"
    DatasetCatalog.pop("test_few")
    MetadataCatalog.pop("test_few", None)


def test_images_without_objects_count_as_labelled(config, objects, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cfg = config(
        *("DATASETS.TRAIN", (objects,), "INPUT.DATASET_MAPPER_NAME", "mask_former_instance"),
        *("DATASETS.LABEL_COUNT", 6, "OUTPUT_DIR", str(out)),
    )
    [used] = load_training_sets(cfg)
    listed = (out / "labelled_images.txt").read_text().splitlines()[1:]
    assert len(listed) == 6
    assert names_of(used) == [name for name in TEN[:5] if name in listed]
    (tmp_path / "empty.txt").write_text("7.jpg\n8.jpg\n")
    cfg.DATASETS.LABEL_COUNT = 0
    cfg.DATASETS.LABEL_LIST = str(tmp_path / "empty.txt")
    with pytest.raises(UserError, match="no image of data set test_few .* shows an object"):
        load_training_sets(cfg)


def test_denoising_uses_all_images(config, objects, tmp_path: Path) -> None:
    cfg = config(
        *("DATASETS.TRAIN", (objects,), "INPUT.DATASET_MAPPER_NAME", "ddep_denoising"),
        *("DATASETS.LABEL_COUNT", 1, "OUTPUT_DIR", str(tmp_path / "out")),
    )
    [used] = load_training_sets(cfg)
    assert names_of(used) == TEN
    assert not (tmp_path / "out").exists()
