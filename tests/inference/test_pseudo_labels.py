from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import ImageList

from ddep.data.pseudo_labels import check_pseudo_labels, read_label
from ddep.errors import UserError
from ddep.inference import Predictor
from ddep.inference.journal import NAME
from ddep.inference.pseudo_labels import write_pseudo_labels
from ddep.inference.soft_predictor import SoftPredictor
from ddep.modeling.pixel_classifier import Predictions
from tests.engine.tiny_runs import (
    denoising_config,
    one_thread,  # noqa: F401
    per_pixel_config,
    shapes_config,
    shapes_root,
    write_images,
)
from tests.inference.tiny_models import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pseudo_labels")
    with shapes_root(folder):
        write_images(folder / "images", 4)
        yield folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    return write_run(folder / "per_pixel", per_pixel_config(folder), "INPUT.MIN_SIZE_TEST", 50)


@pytest.fixture(scope="module")
def name(folder: Path) -> str:
    return f"images:{folder / 'images'}"


@pytest.fixture(scope="module")
def labels(folder: Path, run: Path, name: str) -> Path:
    write_pseudo_labels(run, [name], folder / "labels")
    return folder / "labels"


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_labels_are_the_models_probabilities(folder: Path, run: Path, labels: Path) -> None:
    predictor = Predictor(run)
    model, sample = predictor.model, predictor.inputs(folder / "images" / "2.png")
    pixels = (sample["image"] - model.pixel_mean) / model.pixel_std
    height, width = pixels.shape[-2:]
    padded = torch.nn.functional.pad(pixels, (0, -width % 32, 0, -height % 32))
    with torch.no_grad():
        logits = model.sem_seg_head.layers(model.backbone(padded[None]))[0][0]
    expected = logits.softmax(0)[:, : -(-height // 4), : -(-width // 4)]
    label = read_label(labels / "images" / "2.png.npz")
    assert label.covered == (height / 4, width / 4)
    torch.testing.assert_close(label.probabilities, expected, atol=0.01, rtol=0)


def test_prototypes_are_means_over_images_of_class_means(
    folder: Path, run: Path, labels: Path
) -> None:
    predictor = Predictor(run)
    classifier = predictor.task.pixel_classifier(predictor.cfg, predictor.model)
    total: dict[int, list[np.ndarray]] = {}
    for path in sorted((folder / "images").iterdir()):
        with torch.no_grad():
            images = classifier.images([predictor.inputs(path)])
            predictions = classifier.predict(classifier.features(images.tensor))
        height, width = images.image_sizes[0]
        features: dict[int, list[np.ndarray]] = {}
        for y in range((height + 1) // 4):  # centres at 4 y + 2
            for x in range((width + 1) // 4):
                label = int(predictions.log_probabilities[0][0, :, y, x].argmax())
                feature = predictions.embeddings[0, :, y, x].double().numpy()
                features.setdefault(label, []).append(feature)
        for label, found in features.items():
            if len(found) >= 10:
                total.setdefault(label, []).append(np.mean(found, axis=0))
    with np.load(labels / "prototypes.npz") as archive:
        means, images = archive["means"], archive["images"]
    assert total and means.shape == (8, 32) and means.dtype == np.float32
    for label in range(8):
        found = total.get(label, [])
        assert images[label] == len(found)
        expected = np.mean(found, axis=0) if found else np.zeros(32)
        np.testing.assert_allclose(means[label], expected, atol=1e-5)


def test_a_stopped_run_continues_to_the_same_files(
    folder: Path, run: Path, labels: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = folder / "parts"
    seen: list[str] = []
    original = SoftPredictor.predict

    def counted(self: SoftPredictor, inputs: list[dict[str, Any]]) -> list[Any]:
        seen.append(Path(inputs[0]["file_name"]).name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(self, inputs)

    monkeypatch.setattr(SoftPredictor, "predict", counted)
    with pytest.raises(KeyboardInterrupt):
        write_pseudo_labels(run, [name], parts)
    assert not (parts / "pseudo_labels.json").exists()
    journal = parts / NAME
    journal.write_text(journal.read_text()[:-5])  # a kill in the middle of a line
    (parts / "images" / ".3.png.npz.999999.tmp").write_bytes(b"half")
    with pytest.raises(UserError, match=r"--resume: .*parts has results of other settings \(flip"):
        write_pseudo_labels(run, [name], parts, flip=True, resume=True)
    seen[:] = ["no more interrupts"] * 3
    write_pseudo_labels(run, [name], parts, resume=True)
    assert seen[3:] == ["1.png", "2.png", "3.png"]
    assert contents(parts) == contents(labels)


def test_mirrored_images_are_averaged_where_they_were() -> None:
    ramp = 5.0 * torch.arange(38).expand(3, 26, 38)  # the last column is half over the image

    class Columns(SoftPredictor):
        """Its first class has the probability that a pixel's colour says."""

        def __init__(self) -> None:
            self.flip = True
            self.classifier = SimpleNamespace(num_classes=2)
            self.calls: list[torch.Tensor] = []

        def _run(self, images: list[torch.Tensor]) -> tuple[ImageList, Predictions]:
            batch = ImageList.from_tensors(images, 32, pad_value=100.0)
            self.calls.append(images[0])
            p = torch.nn.functional.avg_pool2d(batch.tensor[:, :1] / 255, 4)
            return batch, Predictions(None, [torch.cat([p, 1 - p], 1).log()], p)

    soft = Columns()
    [found] = soft.predict([{"image": ramp}])
    assert torch.equal(soft.calls[1], ramp.flip(-1))
    assert found.label.covered == (6.5, 9.5)
    centres = 4 * torch.arange(10) + 1.5
    expected = (5 * centres / 255).expand(7, 10)
    torch.testing.assert_close(found.label.probabilities[0, :6, 1:9], expected[:6, 1:9])


def test_a_wrong_folder_is_one_line(folder: Path, run: Path, labels: Path, name: str) -> None:
    cfg = Predictor(run).cfg
    cfg.MODEL.ADAPTATION.PSEUDO_LABELS = str(labels)
    cfg.DATASETS.TARGET = (name,)
    check_pseudo_labels(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 7
    with pytest.raises(UserError, match=r"labels has 8 classes; expected 7, the value of MODEL"):
        check_pseudo_labels(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 8
    cfg.DATASETS.TARGET = (name, "images:/other")
    with pytest.raises(UserError, match="DATASETS.TARGET has images:/other, but .* is of images:"):
        check_pseudo_labels(cfg)
    cfg.DATASETS.TARGET = (name,)
    index = labels / "pseudo_labels.json"
    written = index.read_text()
    content = json.loads(written)
    content["classes"][1] = "zebra"
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match="has the class 'zebra' where data set shapes_panoptic_tr"):
        check_pseudo_labels(cfg)
    index.write_text(written)


def test_mistakes_are_one_line_before_anything_is_written(
    folder: Path, run: Path, name: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="--dataset: unknown data set 'nothing'"):
        write_pseudo_labels(run, ["nothing"], out)
    with pytest.raises(UserError, match="--batch is 0; expected at least 1"):
        write_pseudo_labels(run, [name], out, batch=0)
    denoiser = write_run(tmp_path / "denoiser", denoising_config(tmp_path, folder / "images"))
    with pytest.raises(UserError, match="DenoisingPretrainer gives pixels no classes"):
        write_pseudo_labels(denoiser, [name], out)
    assert not out.exists()


def test_unreadable_images_are_listed_and_mask_models_have_labels_too(
    folder: Path, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images", 3)
    (images / "1.png").write_bytes(b"no image")
    run = write_run(tmp_path / "masks", shapes_config(folder), "MODEL.SEM_SEG_HEAD.MASK_DIM", 16)
    index = write_pseudo_labels(run, [f"images:{images}"], tmp_path / "out", batch=2)
    assert index.unreadable == [str(images / "1.png")]
    files = sorted(path.name for path in (tmp_path / "out" / "images").iterdir())
    assert files == ["0.png.npz", "2.png.npz"]
    label = read_label(tmp_path / "out" / "images" / "2.png.npz")
    assert label.probabilities.shape == (8, 13, 12)
    with np.load(tmp_path / "out" / "prototypes.npz") as archive:
        assert archive["means"].shape == (8, 16)
    for path in images.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 3 images can be read; the first: "):
        write_pseudo_labels(run, [f"images:{images}"], tmp_path / "out")
    assert not (tmp_path / "out" / "pseudo_labels.json").exists()
