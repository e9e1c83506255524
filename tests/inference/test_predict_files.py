from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from ddep.engine import setup
from ddep.errors import UserError
from ddep.inference import predict_files
from tests.engine.tiny_runs import arguments, denoising_config, write_images


@pytest.fixture
def cfg(tmp_path: Path):
    """A tiny denoiser with random weights."""
    config = denoising_config(tmp_path, write_images(tmp_path / "images"))
    cfg = setup(arguments("--config-file", config)).clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    torch.save({"model": build_model(cfg).state_dict()}, cfg.MODEL.WEIGHTS)
    return cfg


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    (folder / "inner").mkdir(parents=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    for name in ("a.jpg", "a.png", "inner/b.png"):
        image.save(folder / name)
    return folder


def test_folders_keep_their_structure_and_clashing_names_their_suffix(
    tmp_path: Path, cfg, photographs: Path
) -> None:
    written = predict_files(cfg, [photographs], tmp_path / "out")
    names = [str(path.relative_to(tmp_path / "out")) for path in written]
    assert sorted(names) == ["a.png", "a.png.png", "inner/b.png"]
    size = cfg.INPUT.MIN_SIZE_TEST
    assert all(Image.open(path).size == (3 * round(56 * size / 40), size) for path in written)


def test_an_unreadable_image_is_named_after_the_others_are_done(
    tmp_path: Path, cfg, photographs: Path
) -> None:
    data = (photographs / "a.jpg").read_bytes()
    (photographs / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"1 of 3 images could not be predicted: .*a\.jpg"):
        predict_files(cfg, [photographs], tmp_path / "out")
    assert (tmp_path / "out" / "inner" / "b.png").exists()


def test_mistakes_are_reported_before_any_prediction(
    tmp_path: Path, cfg, photographs: Path
) -> None:
    with pytest.raises(UserError, match="absent does not exist"):
        predict_files(cfg, [photographs, tmp_path / "absent"], tmp_path / "out")
    twice = [photographs / "a.jpg", photographs / "a.png", photographs / "a.jpg"]
    with pytest.raises(UserError, match="different folders"):
        predict_files(cfg, [*twice, photographs / "a.jpg"], tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file; expected a folder"):
        predict_files(cfg, [photographs], tmp_path / "file")
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(UserError, match="MODEL.WEIGHTS is empty"):
        predict_files(cfg, [photographs], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_neither_replace_nor_mix_with_images(cfg, photographs: Path) -> None:
    before = {path: path.read_bytes() for path in photographs.rglob("*.*")}
    for output in (photographs, photographs / "inner" / "pictures"):
        with pytest.raises(UserError, match="where pictures would mix with images"):
            predict_files(cfg, [photographs], output)
    with pytest.raises(UserError, match=r"would replace .*a\.png"):
        predict_files(cfg, [photographs / "a.png"], photographs)
    assert {path: path.read_bytes() for path in photographs.rglob("*.*")} == before


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path, cfg, photographs: Path) -> None:
    weights = torch.load(cfg.MODEL.WEIGHTS)["model"]
    missing = [name for name in weights if name.startswith("denoising_head.upsample")]
    for name in missing:
        del weights[name]
    torch.save({"model": weights}, cfg.MODEL.WEIGHTS)
    message = f"lacks {len(missing)} weights of the model, such as denoising_head.upsample"
    with pytest.raises(UserError, match=message):
        predict_files(cfg, [photographs], tmp_path / "out")
