"""Importance sampling of target images: its probabilities, and draws that can be resumed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg

from ddep.adaptation import METHODS
from ddep.config import add_ddep_config
from ddep.data import build_paired_loader, register_from_config
from ddep.data.importance import importance_weights, read_class_pixels
from ddep.data.pseudo_labels import PseudoLabels, SoftLabel, label_path, write_label
from ddep.errors import UserError
from ddep.tasks import load_config
from tests.engine.tiny_runs import per_pixel_config, shapes_root, write_images

# Of four images and three classes, the last of which no image shows.
PIXELS = np.array([[30, 0, 0], [10, 0, 0], [0, 7, 0], [0, 0, 0]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pseudo-labels of four images in ``tmp_path``, the last of which could not be read."""
    names = [str(tmp_path / f"{i}.png") for i in range(4)]
    labels = tmp_path / "labels"
    empty = SoftLabel(torch.ones(3, 1, 1) / 3, (1.0, 1.0))
    for name, pixels in zip(names[:3], PIXELS, strict=False):
        write_label(label_path(labels, str(tmp_path), name), empty, class_pixels=pixels)
    PseudoLabels(str(tmp_path), ["images:x"], 3, None, {}, names[3:]).write(labels)
    return labels


@pytest.mark.parametrize("uniform", [0.0, 0.25, 1.0])
def test_probabilities_are_those_of_a_class_and_then_an_image(uniform: float) -> None:
    weights = importance_weights(PIXELS, uniform)
    expected = np.zeros(4)
    for column in PIXELS.T:
        for i, pixels in enumerate(column):
            share = pixels / column.sum() if column.sum() else 1 / 4
            expected[i] += (uniform / 4 + (1 - uniform) * share) / 3
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert weights.sum() == pytest.approx(1)


def test_pixels_of_classes_come_from_pseudo_labels(tmp_path: Path, folder: Path) -> None:
    names = [str(tmp_path / f"{i}.png") for i in (2, 0, 3)]
    assert np.array_equal(read_class_pixels(str(folder), names), PIXELS[[2, 0, 3]])
    with pytest.raises(UserError, match=r"other\.png\.npz is missing; make the pseudo-labels"):
        read_class_pixels(str(folder), [str(tmp_path / "other.png")])


def test_sac_weighs_images_if_there_are_pseudo_labels(tmp_path: Path, folder: Path) -> None:
    cfg = get_cfg()
    add_ddep_config(cfg)
    sets = [[{"file_name": str(tmp_path / f"{i}.png")} for i in part] for part in ((0, 1), (2, 3))]
    assert METHODS["sac"].target_weights(cfg, sets) is None
    cfg.MODEL.ADAPTATION.PSEUDO_LABELS = str(folder)
    weights = METHODS["sac"].target_weights(cfg, sets)
    np.testing.assert_allclose(weights, importance_weights(PIXELS, 0.25))


def test_weighted_draws_resume(tmp_path: Path) -> None:
    images = write_images(tmp_path / "target", 4)
    with shapes_root(tmp_path):
        keys = {"DATASETS.TARGET": f"('images:{images}',)", "INPUT.MIN_SIZE_TRAIN": "(16,)"}
        words = [str(item) for pair in keys.items() for item in pair]
        cfg = load_config(per_pixel_config(tmp_path), words)
        register_from_config(cfg)

        def weigh(*_: object) -> np.ndarray:
            return np.array([0.6, 0.3, 0.1, 0.0])

        def targets(loader: object, batches: int) -> list[tuple[str, int]]:
            samples = [s for batch in islice(iter(loader), batches) for s in batch]
            return [(Path(s["file_name"]).stem, s["seed"]) for s in samples if "is_target" in s]

        whole = targets(build_paired_loader(cfg, "target", False, weigh), 100)
        loader = build_paired_loader(cfg, "target", False, weigh)
        first = targets(loader, 30)
        resumed = build_paired_loader(cfg, "target", False, weigh)
        resumed.load_state_dict(loader.state_dict())
        assert first + targets(resumed, 70) == whole
        counts = {name: [n for n, _ in whole].count(name) for name in "0123"}
        # 200 draws: five standard deviations.
        assert abs(counts["0"] - 120) < 35
        assert abs(counts["1"] - 60) < 33
        assert counts["3"] == 0
        other = build_paired_loader(cfg, "target", False, lambda *_: np.full(4, 0.25))
        with pytest.raises(UserError, match="checksum of the weights of target images is"):
            other.load_state_dict(loader.state_dict())
