"""The denoising evaluator: its numbers against torchmetrics, its pictures pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from PIL import Image
from torchmetrics.functional.image import peak_signal_noise_ratio

from ddep.errors import UserError
from ddep.evaluation import DenoisingEvaluator
from ddep.noise import add_noise

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def evaluator(tmp_path, formulation="scaled", image_format="RGB") -> DenoisingEvaluator:
    return DenoisingEvaluator(
        "some_images",
        formulation=formulation,
        pixel_mean=MEAN,
        pixel_std=STD,
        image_format=image_format,
        output_dir=str(tmp_path),
    )


def pixels(normalised: torch.Tensor) -> torch.Tensor:
    """Pixel values 0..255, in float64."""
    mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (MEAN, STD))
    return normalised.double() * std + mean


def example(seed: int, height: int, width: int, sigma: float, formulation: str):
    generator = torch.Generator().manual_seed(seed)
    clean, noise, guess, error = torch.randn(4, 3, height, width, generator=generator)
    noisy = add_noise(clean, noise, sigma, formulation)
    inputs = {"image": noisy, "noise": noise, "sigma": sigma}
    outputs = {"noise": noise + 0.3 * guess, "denoised": clean + 0.1 * error}
    return inputs, outputs, clean


@pytest.mark.parametrize("formulation", ["scaled", "additive"])
def test_metrics_are_means_over_images(tmp_path, formulation):
    """Images of different size and noise count alike."""
    examples = [
        example(0, 20, 30, 0.3, formulation),
        example(1, 8, 5, 2.0, formulation),
        example(2, 16, 16, 0.8, formulation),
    ]
    subject = evaluator(tmp_path, formulation)
    subject.reset()
    subject.process([examples[0][0]], [examples[0][1]])
    subject.process([e[0] for e in examples[1:]], [e[1] for e in examples[1:]])
    results = subject.evaluate()["denoising"]
    expected = {"noise_mse": [], "psnr_noisy": [], "psnr_denoised": []}
    for inputs, outputs, clean in examples:
        error = outputs["noise"].double() - inputs["noise"].double()
        expected["noise_mse"].append((error**2).mean())
        noisy = clean + inputs["sigma"] * inputs["noise"]
        for key, x in (("psnr_noisy", noisy), ("psnr_denoised", outputs["denoised"])):
            expected[key].append(
                peak_signal_noise_ratio(pixels(x), pixels(clean), data_range=255.0)
            )
    assert results == pytest.approx({k: np.mean(v) for k, v in expected.items()}, rel=1e-5)


def test_predicting_nothing(tmp_path):
    """Zero noise: an error of 1, and the image stays as noisy as it was."""
    inputs, _, _ = example(0, 128, 128, 0.48, "additive")
    subject = evaluator(tmp_path, "additive")
    nothing = torch.zeros_like(inputs["noise"])
    subject.process([inputs], [{"noise": nothing, "denoised": inputs["image"]}])
    results = subject.evaluate()["denoising"]
    assert results["noise_mse"] == pytest.approx(1, abs=0.02)
    assert results["psnr_denoised"] == pytest.approx(results["psnr_noisy"], abs=1e-4)
    # sigma 0.48 is about 27.7 grey levels here.
    assert results["psnr_noisy"] == pytest.approx(20 * np.log10(255 / (0.48 * 57.6)), abs=0.1)


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_picture_grid(tmp_path, image_format):
    """A row for each of the first eight images: noisy, denoised, clean."""
    order = slice(None) if image_format == "RGB" else slice(None, None, -1)
    subject = evaluator(tmp_path, image_format=image_format)
    rng = np.random.default_rng(0)
    shown = []
    for i in range(10):
        rgb = rng.integers(60, 200, (3, 6, 4 + i % 2))
        clean = (torch.from_numpy(rgb[order].copy()) - torch.tensor(MEAN).view(3, 1, 1)) / (
            torch.tensor(STD).view(3, 1, 1)
        )
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(i))
        inputs = {"image": add_noise(clean, noise, 0.4, "scaled"), "noise": noise, "sigma": 0.4}
        subject.process([inputs], [{"noise": noise, "denoised": clean * 0.5}])
        versions = [pixels(x).numpy()[order] for x in (clean + 0.4 * noise, clean * 0.5)]
        shown.append([*versions, rgb])
    with EventStorage() as storage:
        subject.evaluate()
    picture = np.asarray(Image.open(tmp_path / "denoising.png"))
    # Two pixels of border around each picture; all cells are as large as the largest picture.
    assert picture.shape == (8 * (6 + 2) + 2, 3 * (5 + 2) + 2, 3)
    for row in range(8):
        for column, expected in enumerate(shown[row]):
            top, left = 2 + row * 8, 2 + column * 7
            cell = picture[top : top + 6, left : left + expected.shape[2]].transpose(2, 0, 1)
            assert np.abs(cell - np.clip(expected, 0, 255)).max() <= 0.51
    ((name, image, _),) = storage._vis_data
    assert name == "denoising/some_images"
    np.testing.assert_array_equal(image, picture.transpose(2, 0, 1))


def test_works_outside_training(tmp_path):
    """Without event storage, the picture is only written."""
    inputs, outputs, _ = example(0, 8, 8, 0.5, "scaled")
    subject = evaluator(tmp_path / "new" / "folder")
    subject.process([inputs], [outputs])
    subject.evaluate()
    assert Image.open(tmp_path / "new" / "folder" / "denoising.png").size == (32, 12)


def test_processes_add_up(tmp_path, monkeypatch):
    """The mean is over the images of all processes, however they are shared out."""
    examples = [example(i, 8, 8, 0.5, "scaled") for i in range(3)]
    alone, first, second = (evaluator(tmp_path) for _ in range(3))
    for subject, part in ((alone, examples), (first, examples[:1]), (second, examples[1:])):
        subject.process([e[0] for e in part], [e[1] for e in part])
    expected = alone.evaluate()
    monkeypatch.setattr(comm, "gather", lambda scores: [scores, second._scores])
    assert first.evaluate() == {"denoising": pytest.approx(expected["denoising"])}
    monkeypatch.setattr(comm, "gather", lambda _: [])
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert second.evaluate() is None


def test_reset_forgets(tmp_path):
    subject = evaluator(tmp_path)
    inputs, outputs, _ = example(0, 8, 8, 0.5, "scaled")
    subject.process([inputs], [outputs])
    subject.reset()
    with pytest.raises(UserError, match="data set some_images has no images to evaluate"):
        subject.evaluate()
