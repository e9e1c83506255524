"""ImageNet in whole runs: imitations of it, unpacked and packed, are trained on and evaluated."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddep.engine import main
from tests.data.image_index.trees import Tar, Tree, write_tree
from tests.engine.tiny_runs import arguments, metrics, one_thread, write_config

pytestmark = pytest.mark.slow

__all__ = ["one_thread"]


def photograph(seed: int) -> bytes:
    """A small JPEG file."""
    pixels = np.random.default_rng(seed).integers(0, 255, (44, 52, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def classes() -> dict[str, Tree]:
    """Two classes of two images each."""
    return {
        name: {f"{name}_{i}.JPEG": photograph(i) for i in range(2)}
        for name in ("n01440764", "n01443537")
    }


VAL = {f"ILSVRC2012_val_{i:08d}.JPEG": photograph(i) for i in range(1, 4)}
# $DETECTRON2_DATASETS, the set to train on, the one to evaluate, and how many images that has.
IMITATIONS: dict[str, tuple[Tree, str, str, int]] = {
    "1k, folders": (
        {"imagenet": {"train": classes(), "val": {"n01440764": VAL}}},
        "images:imagenet/train",
        "images:imagenet/val",
        3,
    ),
    "1k, tar files": (
        {
            "imagenet": {
                "ILSVRC2012_img_train": Tar({k: Tar(v) for k, v in classes().items()}),
                "ILSVRC2012_img_val": Tar(VAL),
            }
        },
        "images:imagenet/ILSVRC2012_img_train.tar",
        "images:imagenet/ILSVRC2012_img_val.tar",
        3,
    ),
    "21k, a tar file": (
        {"imagenet21k": {"winter21_whole": Tar({k: Tar(v) for k, v in classes().items()})}},
        "images:imagenet21k",
        "images:imagenet21k/winter21_whole.tar",
        4,
    ),
    "21k, tar files of classes": (
        {"imagenet21k": {k: Tar(v) for k, v in classes().items()}},
        "images:imagenet21k",
        "images:imagenet21k/n01440764.tar",
        2,
    ),
}


@pytest.mark.parametrize("imitation", IMITATIONS)
def test_pretraining(imitation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, train, test, images = IMITATIONS[imitation]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    write_tree(tmp_path / "datasets", tree)
    config = write_config(
        tmp_path,
        "pretrain",
        MODEL__META_ARCHITECTURE="DenoisingPretrainer",
        DATASETS__TRAIN=[train],
        DATASETS__TEST=[test],
        INPUT__DATASET_MAPPER_NAME="ddep_denoising",
        INPUT__CROP={"ENABLED": True, "TYPE": "absolute", "SIZE": [40, 40]},
        SOLVER__MAX_ITER=2,
        DATALOADER__NUM_WORKERS=1,
        OUTPUT_DIR=str(tmp_path / "output"),
    )
    results = main(arguments("--config-file", config))
    # Noise of sigma 0.48 times a standard deviation of about 57.6 grey levels.
    expected = 20 * np.log10(255 / (0.48 * 57.6))
    assert results["denoising"]["psnr_noisy"] == pytest.approx(expected, abs=0.1)
    assert f"of {images} images of {test}:" in (tmp_path / "output" / "log.txt").read_text()
    # An untrained denoiser is about as good as one that predicts no noise.
    assert 0.5 < metrics(tmp_path / "output")[0]["total_loss"] < 3
