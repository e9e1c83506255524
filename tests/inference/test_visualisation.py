from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from ddep.config import load_config
from ddep.errors import UserError
from ddep.inference import draw_outputs
from ddep.inference.visualisation import MIN_SIDE

CONFIG = "configs/demo/shapes_panoptic.yaml"
SKY, GRASS = 4, 6


@pytest.fixture
def image(tmp_path) -> str:
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((40, 60, 3), 128, dtype=np.uint8)).save(path)
    return str(path)


def mean_colours(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour of the left and the right third, away from names, which stand in the middle."""
    strip = picture[: len(picture) // 6].astype(float)
    third = strip.shape[1] // 3
    return strip[:, :third].mean((0, 1)), strip[:, -third:].mean((0, 1))


@pytest.mark.parametrize("kind", ["panoptic_seg", "sem_seg"])
def test_segments_are_drawn_in_their_colours_where_they_are(image: str, kind: str) -> None:
    right = torch.arange(60).expand(40, 60) >= 30
    if kind == "panoptic_seg":
        segments = [
            {"id": 1, "category_id": SKY, "isthing": False},
            {"id": 2, "category_id": GRASS, "isthing": False},
        ]
        outputs = {"panoptic_seg": (1 + right.int(), segments)}
    else:
        scores = torch.zeros(8, 40, 60)
        scores[SKY][~right] = 1
        scores[GRASS][right] = 1
        outputs = {"sem_seg": scores}
    picture = draw_outputs(load_config(CONFIG), {"file_name": image}, outputs)
    scale = -(-MIN_SIDE // 40)
    assert picture.shape == (40 * scale, 60 * scale, 3)
    assert picture.dtype == np.uint8
    left, right = mean_colours(picture)
    colours = np.array(MetadataCatalog.get("shapes_panoptic_val").stuff_colors, dtype=float)
    # Half transparent over grey: from side to side, colours change as those of the classes do.
    found, expected = right - left, colours[GRASS] - colours[SKY]
    cosine = np.dot(found, expected) / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.95


def test_denoising_is_drawn_noisy_denoised_clean() -> None:
    cfg = load_config("configs/demo/shapes_pretrain.yaml", ["INPUT.FORMAT", "BGR"])
    mean = np.array(cfg.MODEL.PIXEL_MEAN)[:, None, None]
    std = np.array(cfg.MODEL.PIXEL_STD)[:, None, None]
    generator = np.random.default_rng(0)
    clean = generator.uniform(60, 190, (3, 5, 7))
    noise = generator.standard_normal((3, 5, 7))
    estimate = generator.uniform(60, 190, (3, 5, 7))
    sigma = 0.2
    noisy = ((clean - mean) / std + sigma * noise) / np.sqrt(1 + sigma**2)
    picture = draw_outputs(
        cfg,
        {"image": torch.tensor(noisy), "noise": torch.tensor(noise), "sigma": sigma},
        {"denoised": torch.tensor((estimate - mean) / std)},
    )
    expected = np.concatenate([clean + sigma * noise * std, estimate, clean], axis=2)
    expected = expected[::-1].transpose(1, 2, 0)  # BGR to RGB
    assert picture.shape == (5, 21, 3)
    assert np.abs(picture - expected.clip(0, 255)).max() <= 0.51


@pytest.mark.parametrize("names", ["()", "('nowhere',)"])
def test_classes_must_be_known(image: str, names: str) -> None:
    cfg = load_config(CONFIG, ["DATASETS.TEST", names, "DATASETS.TRAIN", "()"])
    with pytest.raises(UserError, match=r"DATASETS.TEST and DATASETS.TRAIN are (empty|nowhere);"):
        draw_outputs(cfg, {"file_name": image}, {"sem_seg": torch.zeros(8, 40, 60)})
