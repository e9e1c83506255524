from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from ddep import Prediction, Predictor
from ddep.data.image_reader import UnreadableImageError, read_image
from ddep.errors import UserError
from ddep.tasks import load_config
from tests.engine.tiny_runs import (
    classification_config,
    denoising_config,
    detection_config,
    one_thread,  # noqa: F401
    shapes_config,
    shapes_root,
    write_images,
)
from tests.inference.tiny_models import write_run

ALL_RESULTS = [
    *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
    *("MODEL.MASK_FORMER.TEST.SEMANTIC_ON", True),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("predictor")
    with shapes_root(folder):
        yield folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """The folder of a panoptic model's run."""
    return write_run(folder / "panoptic", shapes_config(folder), *ALL_RESULTS)


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return Predictor(run)


@pytest.fixture(scope="module")
def image(folder: Path) -> Path:
    return folder / "datasets" / "shapes" / "val" / "00000.png"


def assert_equal(found: Prediction, expected: Prediction) -> None:
    """To the bit, and not trivially: the prediction has several segments."""
    assert torch.equal(found.outputs["sem_seg"], expected.outputs["sem_seg"])
    assert np.array_equal(found.panoptic[0], expected.panoptic[0])
    assert found.panoptic[1] == expected.panoptic[1]
    assert torch.equal(found.instances.pred_masks, expected.instances.pred_masks)
    assert np.array_equal(found.image, expected.image)
    assert expected.outputs["sem_seg"].std() > 0


def test_images_in_memory_give_what_files_give(predictor: Predictor, image: Path) -> None:
    expected = predictor(image)
    pixels = read_image(str(image))
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    for same in (str(image), Image.open(image), pixels, planes, np.asfortranarray(pixels)):
        assert_equal(predictor(same), expected)
    # RGB is the order of arrays: the model sees another image in the other.
    other = predictor(pixels[..., ::-1]).outputs["sem_seg"]
    assert not torch.equal(other, expected.outputs["sem_seg"])


def test_the_order_of_the_network_does_not_matter(run: Path, image: Path) -> None:
    predictor = Predictor(run, overrides=["INPUT.FORMAT", "BGR"])
    assert_equal(predictor(read_image(str(image))), predictor(image))


def test_a_list_gives_the_list_of_the_same_predictions(predictor: Predictor, image: Path) -> None:
    small = np.full((20, 30, 3), 90, np.uint8)
    found = predictor([image, small])
    assert_equal(found[0], predictor(image))
    assert_equal(found[1], predictor(small))
    assert found[1].semantic.shape == (20, 30)
    assert predictor([]) == []


def test_results_are_arrays_of_the_image_size(predictor: Predictor, image: Path) -> None:
    prediction = predictor(image)
    assert prediction.image.shape == (48, 48, 3) and prediction.image.dtype == np.uint8
    assert prediction.semantic.shape == (48, 48) and prediction.semantic.dtype == np.int64
    scores = prediction.outputs["sem_seg"]
    row, column = 5, 40
    assert prediction.semantic[row, column] == int(scores[:, row, column].argmax())
    ids, segments = prediction.panoptic
    assert ids.shape == (48, 48) and ids.dtype == np.int32
    assert {segment["id"] for segment in segments} == set(np.unique(ids)) - {0}
    assert prediction.instances is prediction.boxes is not None
    assert prediction.classes is None and prediction.denoised is None
    picture = prediction.draw()
    assert picture.dtype == np.uint8 and picture.shape == (7 * 48, 7 * 48, 3)


def test_pictures_are_saved_by_their_ending(
    predictor: Predictor, image: Path, tmp_path: Path
) -> None:
    prediction = predictor(image)
    prediction.save(tmp_path / "new" / "a.png")
    assert np.array_equal(read_image(str(tmp_path / "new" / "a.png")), prediction.draw())
    prediction.save(tmp_path / "a.JPG")
    assert Image.open(tmp_path / "a.JPG").format == "JPEG"
    with pytest.raises(UserError, match=r"a\.tif ends in '\.tif'; expected \.png, \.jpg, \.jpeg"):
        prediction.save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.JPG/b\.png cannot be written: its folder cannot be"):
        prediction.save(tmp_path / "a.JPG" / "b.png")


def test_detectors_classifiers_and_denoisers(folder: Path, image: Path) -> None:
    detector = write_run(folder / "detector", detection_config(folder), "MODEL.MASK_ON", False)
    found = Predictor(detector)(image)
    assert found.boxes.has("scores") and found.instances is None and found.semantic is None

    classifier = write_run(folder / "classifier", classification_config(folder))
    probabilities = Predictor(classifier)(image).classes
    assert probabilities.shape == (8,) and probabilities.dtype == np.float32
    assert (probabilities > 0).all() and (probabilities < 1).all()

    config = denoising_config(folder, write_images(folder / "images"))
    denoiser = Predictor(write_run(folder / "denoiser", config, "INPUT.FORMAT", "BGR"))
    found = denoiser(image)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    bgr = found.outputs["denoised"].numpy().transpose(1, 2, 0) * std + mean
    assert np.abs(found.denoised - bgr[..., ::-1].clip(0, 255)).max() <= 0.51
    assert np.array_equal(denoiser([image, image])[1].denoised, found.denoised)
    assert not np.array_equal(denoiser.inputs(image, 1)["noise"], found.inputs["noise"])


def test_weights_device_and_overrides(run: Path, image: Path, tmp_path: Path) -> None:
    weights = torch.load(run / "model_final.pth")
    moved = {name: tensor + 0.1 for name, tensor in weights["model"].items()}
    torch.save({"model": moved}, tmp_path / "other.pth")
    expected = Predictor(run)(image).outputs["sem_seg"]
    config = str(run / "config.yaml")
    words = ["MODEL.WEIGHTS", str(run / "model_final.pth")]
    for same in (
        Predictor(config, run / "model_final.pth", device="cpu"),
        Predictor(config, overrides=words),
        Predictor(load_config(config, words)),
        Predictor(load_config(config), run / "model_final.pth"),
        Predictor(run, overrides=["MODEL.DEVICE", "cuda"]),
    ):
        assert torch.equal(same(image).outputs["sem_seg"], expected)
    for other in (
        Predictor(run, tmp_path / "other.pth"),
        Predictor(run, overrides=["MODEL.WEIGHTS", str(tmp_path / "other.pth")]),
    ):
        assert not torch.equal(other(image).outputs["sem_seg"], expected)
    assert (
        "sem_seg"
        not in Predictor(run, overrides=["MODEL.MASK_FORMER.TEST.SEMANTIC_ON", "False"])(
            image
        ).outputs
    )


def test_sliding_windows_are_used(run: Path, image: Path) -> None:
    words = ["MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "False"]
    words += ["MODEL.MASK_FORMER.TEST.INSTANCE_ON", "False"]
    whole = Predictor(run, overrides=words)(image).outputs["sem_seg"]
    slide = ["TEST.SLIDE.ENABLED", "True", "TEST.SLIDE.STRIDE", "(16, 16)", "TEST.SLIDE.CROP_SIZE"]
    large = Predictor(run, overrides=[*words, *slide, "(64, 64)"])(image).outputs["sem_seg"]
    small = Predictor(run, overrides=[*words, *slide, "(32, 32)"])(image).outputs["sem_seg"]
    assert torch.equal(large, whole) and not torch.equal(small, whole)


def test_mistakes_are_named(run: Path, image: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist; expected the folder of a run"):
        Predictor(tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"final\.pth is a checkpoint; expected the folder of a run"
    ):
        Predictor(run / "model_final.pth")
    with pytest.raises(UserError, match=r"has no config\.yaml; expected the folder of a run"):
        Predictor(tmp_path)
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(UserError, match="neither last_checkpoint nor model_final.pth: its run wro"):
        Predictor(tmp_path)
    (tmp_path / "last_checkpoint").write_text("gone.pth")
    with pytest.raises(UserError, match=r"gone\.pth does not exist.*; name another file of weight"):
        Predictor(tmp_path)
    with pytest.raises(UserError, match="unknown config key MODEL.NONE"):
        Predictor(run, overrides=["MODEL.NONE", "1"])
    message = (
        r"class_embed.weight of shape \(9, 32\) instead of \(5, 32\) "
        r"\(MODEL.SEM_SEG_HEAD.NUM_CLASSES is 4\); give the checkpoint that"
    )
    cfg = load_config(str(run / "config.yaml"), ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4"])
    cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = False
    MetadataCatalog.get("four_classes").set(stuff_classes=list("abcd"))
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("four_classes",)
    with pytest.raises(UserError, match=message):
        Predictor(cfg, run / "model_final.pth")


def test_images_of_all_kinds(predictor: Predictor, image: Path, tmp_path: Path) -> None:
    """One pixel, very long, 16 bits, opacity, palette, and turned as its EXIF data say."""
    pixel = predictor(np.full((1, 1, 3), 200, np.uint8))
    assert pixel.semantic.shape == (1, 1) and pixel.draw().shape == (300, 300, 3)
    long = predictor(np.zeros((1, 20000), np.uint8))
    assert long.semantic.shape == (1, 20000) and long.draw().shape == (1, 20000, 3)

    original = Image.open(image)
    grey = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * 20
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "alpha.png": original.convert("RGBA"),
        "palette.png": original.convert("P"),
        "bits.png": Image.fromarray(grey),
        "grey.png": original.convert("L"),
        "turned.png": original.resize((30, 48)),
    }
    for name, kind in kinds.items():
        kind.save(tmp_path / name, **({"exif": exif} if name == "turned.png" else {}))
        assert_equal(predictor(Image.open(tmp_path / name)), predictor(tmp_path / name))
    assert predictor(Image.open(tmp_path / "turned.png")).semantic.shape == (30, 48)
    assert_equal(predictor(np.asarray(kinds["alpha.png"])), predictor(image))
    assert_equal(predictor(np.asarray(kinds["grey.png"])), predictor(tmp_path / "grey.png"))

    bomb = Image.new("1", (20000, 20000))
    bomb.save(tmp_path / "bomb.png")
    with pytest.raises(UnreadableImageError, match="bomb.png cannot be read: it has more than"):
        predictor(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="an image is 20000x20000; expected at most 178956970"):
        predictor(bomb)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((4, 5, 3)), "numbers of dtype float64; expected .* values 0 to 255"),
        (torch.zeros(3, 4, 5), "numbers of dtype float32"),
        (np.zeros((3, 4, 5), np.uint8), r"an array of shape \(3, 4, 5\); expected \(H, W, 3\)"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), r"a tensor of shape \(4, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), "an image is 5x0; expected at least one pixel"),
        (7, "an image is a int; expected"),
    ],
)
def test_arrays_of_another_form_are_refused(
    predictor: Predictor, wrong: object, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        predictor(wrong)


def test_the_import_takes_nothing_but_the_package() -> None:
    """``from ddep import Predictor`` imports modules of ddep alone after ``import ddep``, and
    ``import ddep`` leaves inference alone."""
    program = """
import sys, ddep
before = set(sys.modules)
assert not [name for name in before if name.startswith("ddep.inference")]
from ddep import Predictor
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
heavy = ["pandas", "gradio", "onnx", "onnxruntime", "transformers", "torchmetrics", "wandb"]
print(*[name for name in heavy if name in sys.modules])
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    allowed, heavy = output.split("\n")[:2]
    assert heavy == ""
    assert set(allowed.split()) <= {"ddep", "detectron2"}
