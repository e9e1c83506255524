from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest

from ddep.demo import experiment
from ddep.errors import UserError
from tests.engine.tiny_runs import write_images

pytestmark = pytest.mark.slow


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The demonstration with two seeds, few images and two iterations a training."""
    configs = tmp_path / "configs"
    configs.mkdir()
    for name in ("shapes_pretrain", "shapes_panoptic"):
        base = experiment.CONFIGS / f"{name}.yaml"
        text = f"_BASE_: {json.dumps(str(base))}\nSOLVER: {{MAX_ITER: 2, IMS_PER_BATCH: 2}}\n"
        (configs / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(experiment, "CONFIGS", configs)
    monkeypatch.setattr(experiment, "SEEDS", (0, 1))
    generate = functools.partial(experiment.generate_shapes, val=4, unlabelled=4)
    monkeypatch.setattr(experiment, "generate_shapes", generate)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("own_images", [False, True])
def test_demonstration_runs_and_reports_what_the_runs_measured(
    tmp_path: Path, own_images: bool
) -> None:
    output = tmp_path / "demo"
    images = write_images(tmp_path / 'the user\'s "own" images') if own_images else None
    report = experiment.run_demo(output, images).read_text()
    assert f"`{images or output / 'datasets' / 'shapes' / 'unlabelled'}`" in report
    for picture in ("denoising.png", "segmentation.png"):
        assert f"]({picture})" in report
        assert (output / picture).stat().st_size > 1000
    for start in ("pretrained", "random"):
        for seed in (0, 1):
            folder = output / f"{start}_seed{seed}"
            results = json.loads((folder / "inference" / "results.json").read_text())
            row = re.search(rf"\| {start} start +\| {seed} +\|(.*)", report)
            cells = [cell.strip() for cell in row[1].split("|")]
            assert cells[0] == f"{results['panoptic_seg']['PQ']:.1f}"
            assert cells[3] == f"{results['sem_seg']['mIoU']:.1f}"
    loaded = "transformer.level_embed"
    lines = (output / "pretrained_seed0" / "log.txt").read_text().splitlines()
    assert any(loaded in line for line in lines)


@pytest.mark.usefixtures("small")
def test_a_failed_training_ends_the_demonstration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs" / "shapes_pretrain.yaml").write_text("SOLVER: {MAX_ITERATIONS: 2}\n")
    with pytest.raises(UserError, match=r"a training of the demo failed: .*shapes_pretrain"):
        experiment.run_demo(tmp_path / "demo")


def test_images_are_looked_for_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist; expected a folder of images"):
        experiment.run_demo(tmp_path / "demo", tmp_path / "nowhere")
    assert not (tmp_path / "demo").exists()
    images = write_images(tmp_path / "demo" / "images")
    with pytest.raises(UserError, match="move it out"):
        experiment.run_demo(tmp_path / "demo", images)
    assert list(images.iterdir())
