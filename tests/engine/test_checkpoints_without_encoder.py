"""Checkpoints of runs with a frozen encoder: they leave it out, and find it again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model

from ddep.checkpoint import Checkpointer, read_checkpoint
from ddep.engine import Trainer, main, setup
from ddep.errors import UserError
from ddep.export.convert_checkpoint import convert_file
from ddep.inference import Predictor
from ddep.tasks import load_config
from tests.engine.tiny_runs import arguments, one_thread, shapes_config, shapes_root

__all__ = ["one_thread"]

KEYS: tuple[Any, ...] = ("MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", 1)
FROZEN = (*KEYS, "MODEL.BACKBONE.FREEZE", True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the config, an encoder and a run that trained the rest."""
    root = tmp_path_factory.mktemp("frozen")
    with shapes_root(root):
        config = shapes_config(root)
        cfg = load_config(config, ["MODEL.DEVICE", "cpu"])
        torch.manual_seed(1)
        weights = build_model(cfg).state_dict()
        encoder = {name: t for name, t in weights.items() if name.startswith("backbone.")}
        torch.save(encoder, root / "encoder.pth")
        start = ("MODEL.WEIGHTS", root / "encoder.pth", "OUTPUT_DIR", root / "run")
        main(arguments("--config-file", config, *FROZEN, *start))
        yield root


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Path:
    """A copy of the run in a folder of its own; the encoder is still where it was."""
    return Path(shutil.copytree(root / "run", tmp_path / "run"))


@pytest.fixture
def moved(root: Path, run: Path) -> Iterator[Path]:
    """The copy, while the encoder is not where it was."""
    (root / "encoder.pth").rename(root / "elsewhere.pth")
    yield run
    (root / "elsewhere.pth").rename(root / "encoder.pth")


def evaluate(root: Path, *words: object) -> dict[str, Any]:
    config = ("--config-file", root / "shapes.yaml")
    return main(arguments("--eval-only", *config, *KEYS, *words, "OUTPUT_DIR", root / "evaluated"))


def encoder_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"backbone.{name}": tensor for name, tensor in model.backbone.state_dict().items()}


def assert_has_encoder(root: Path, model: torch.nn.Module) -> None:
    expected = read_checkpoint(str(root / "encoder.pth"))["model"]
    found = encoder_of(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_it_says_where_the_encoder_is(root: Path) -> None:
    content = read_checkpoint(str(root / "run" / "model_final.pth"))
    assert not any(name.startswith("backbone.") for name in content["model"])
    assert content["encoder"]["weights"] == str(root / "encoder.pth")
    assert content["encoder"]["number"] == len(read_checkpoint(str(root / "encoder.pth"))["model"])
    assert len(content["encoder"]["sha256"]) == 64


def test_evaluation_and_prediction_have_the_whole_model(root: Path, run: Path) -> None:
    evaluated = evaluate(root, "MODEL.WEIGHTS", run / "model_final.pth")
    resumed = main(
        arguments(
            "--resume", "--eval-only", "--config-file", run / "config.yaml", "OUTPUT_DIR", run
        )
    )
    assert evaluated["panoptic_seg"] == pytest.approx(resumed["panoptic_seg"], nan_ok=True)
    predictor = Predictor(run)
    assert_has_encoder(root, predictor.model)


def test_a_run_that_trains_the_encoder_starts_from_it_and_saves_all(root: Path, run: Path) -> None:
    words = (*KEYS, "DATASETS.TEST", "()", "MODEL.WEIGHTS", run / "model_final.pth")
    cfg = setup(
        arguments("--config-file", root / "shapes.yaml", *words, "OUTPUT_DIR", root / "whole")
    )
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    assert_has_encoder(root, trainer.model)
    trainer.checkpoints.save("start")
    content = read_checkpoint(str(root / "whole" / "start.pth"))
    assert "encoder" not in content
    log = (root / "whole" / "log.txt").read_text()
    assert "its frozen one is from" in log
    assert "is not used" not in log
    unneeded = ("MODEL.BACKBONE.FROZEN_WEIGHTS", root / "encoder.pth")
    evaluate(root, "MODEL.WEIGHTS", root / "whole" / "start.pth", *unneeded)
    assert "is not used" in (root / "evaluated" / "log.txt").read_text()
    assert content["model"].keys() == trainer.model.state_dict().keys()


def test_a_second_frozen_run_names_the_encoder_itself(root: Path, run: Path) -> None:
    words = (*FROZEN, "DATASETS.TEST", "()", "MODEL.WEIGHTS", run / "model_final.pth")
    main(arguments("--config-file", root / "shapes.yaml", *words, "OUTPUT_DIR", root / "second"))
    first, second = (
        read_checkpoint(str(folder / "model_final.pth"))["encoder"]
        for folder in (root / "run", root / "second")
    )
    assert second == first


def test_the_encoder_may_move(root: Path, moved: Path) -> None:
    weights = ("MODEL.WEIGHTS", moved / "model_final.pth")
    message = (
        r"^\S+model_final\.pth does not hold the frozen encoder .* neither \S+/encoder\.pth nor "
        r"\S+/run/encoder\.pth exists; copy it there, or name .*\.FROZEN_WEIGHTS$"
    )
    with pytest.raises(UserError, match=message):
        evaluate(root, *weights)
    with pytest.raises(UserError, match=message):
        Predictor(moved)
    expected = evaluate(root, *weights, "MODEL.BACKBONE.FROZEN_WEIGHTS", root / "elsewhere.pth")
    shutil.copy(root / "elsewhere.pth", moved / "encoder.pth")
    assert evaluate(root, *weights)["panoptic_seg"] == pytest.approx(
        expected["panoptic_seg"], nan_ok=True
    )
    Predictor(moved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda name, tensor: {name: tensor + 1e-3},
            "frozen encoder of .* holds another one",
        ),
        (
            lambda name, _: {name.replace("backbone", "head"): torch.ones(1)},
            "lacks .* such as back",
        ),
        (lambda name, _: {name: torch.ones(1)}, "the frozen encoder of .* none of the .* fits"),
        (
            lambda name, tensor: {} if ".layers.3." in name else {name: tensor},
            r"lacks \d+ of its weights, such as backbone\.layers\.3",
        ),
    ],
    ids=["other numbers", "none", "other shapes", "a part"],
)
def test_another_encoder_is_refused(
    root: Path, run: Path, change: Any, message: str, tmp_path: Path
) -> None:
    other: dict[str, torch.Tensor] = {}
    for name, tensor in read_checkpoint(str(root / "encoder.pth"))["model"].items():
        other |= change(name, tensor)
    torch.save(other, tmp_path / "other.pth")
    weights = ("MODEL.WEIGHTS", run / "model_final.pth")
    with pytest.raises(UserError, match=rf"{message}.*in MODEL\.BACKBONE\.FROZEN_WEIGHTS$"):
        evaluate(root, *weights, "MODEL.BACKBONE.FROZEN_WEIGHTS", tmp_path / "other.pth")


def test_weights_that_no_file_has_are_saved(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = read_checkpoint(str(root / "encoder.pth"))["model"]
    partial = {name: t for name, t in weights.items() if not name.startswith("backbone.layers.3.")}
    torch.save(partial, tmp_path / "partial.pth")
    words = (*FROZEN, "DATASETS.TEST", "()", "MODEL.WEIGHTS", tmp_path / "partial.pth")
    config = ("--config-file", root / "shapes.yaml")
    with caplog.at_level(logging.WARNING):
        trainer = Trainer(setup(arguments(*config, *words, "OUTPUT_DIR", tmp_path / "run")))
        trainer.resume_or_load(resume=False)
    trainer.checkpoints.save("start")
    content = read_checkpoint(str(tmp_path / "run" / "start.pth"))
    saved = {name for name in content["model"] if name.startswith("backbone.")}
    assert saved == weights.keys() - partial.keys()
    again = build_model(load_config(str(root / "shapes.yaml"), ["MODEL.DEVICE", "cpu"]))
    Checkpointer(again).load(str(tmp_path / "run" / "start.pth"), checkpointables=[])
    expected = trainer.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


def test_a_run_that_replaces_the_file_of_its_encoder_keeps_it(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(root / "encoder.pth", folder / "model_final.pth")
    words = (*FROZEN, "DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 2)
    start = ("MODEL.WEIGHTS", folder / "model_final.pth", "OUTPUT_DIR", folder)
    main(arguments("--config-file", root / "shapes.yaml", *words, *start))
    for name in ("model_0000000.pth", "model_final.pth"):
        assert_has_encoder(root, Predictor(folder, folder / name).model)
    # What continues from the whole file, which may be removed, is whole as well.
    longer = (*words[:-1], 4, *start)
    main(arguments("--resume", "--config-file", root / "shapes.yaml", *longer))
    assert "encoder" not in read_checkpoint(str(folder / "model_0000002.pth"))
    assert_has_encoder(root, Predictor(folder).model)


def test_conversion_names_the_encoder_that_it_would_lose(root: Path, tmp_path: Path) -> None:
    source = str(root / "run" / "model_final.pth")
    with pytest.raises(UserError, match=r"frozen encoder, which is in \S+/encoder\.pth; name SRC"):
        convert_file(source, str(tmp_path / "reduced.pth"))
