"""A checkpoint that would run a command is refused wherever one is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.engine import main
from ddep.errors import UserError
from ddep.export import convert_file
from ddep.inference import predict_files
from tests.checkpoint import hostile
from tests.engine.tiny_runs import arguments, denoising_config, write_images

pytestmark = pytest.mark.slow


@contextmanager
def images_config(folder: Path) -> Iterator[str]:
    """A config on images of its own, whose registration ends with the test."""
    images = write_images(folder / "images")
    try:
        yield denoising_config(folder, images)
    finally:
        name = f"images:{images}"
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def convert(config: str, checkpoint: Path) -> None:
    convert_file(str(checkpoint), str(checkpoint.parent / "converted.pth"))


def train(config: str, checkpoint: Path) -> None:
    main(arguments("--config-file", config, "MODEL.WEIGHTS", checkpoint))


def evaluate(config: str, checkpoint: Path) -> None:
    main(arguments("--config-file", config, "--eval-only", "MODEL.WEIGHTS", checkpoint))


def resume(config: str, checkpoint: Path) -> None:
    output = checkpoint.parent
    (output / "last_checkpoint").write_text(checkpoint.name)
    main(arguments("--config-file", config, "--resume", "OUTPUT_DIR", output))


def predict(config: str, checkpoint: Path) -> None:
    predict_files(
        config,
        [checkpoint.parent / "images"],
        checkpoint.parent / "pictures",
        overrides=["MODEL.WEIGHTS", str(checkpoint)],
    )


@pytest.mark.parametrize("name", hostile.FILES)
@pytest.mark.parametrize("use", [convert, train, evaluate, resume, predict])
def test_no_command_is_run(tmp_path: Path, use: Callable[[str, Path], None], name: str) -> None:
    checkpoint, trace = hostile.write(tmp_path, name)
    with (
        images_config(tmp_path) as config,
        pytest.raises(UserError, match=rf"{name} cannot be read: it holds a Python object \(os\.s"),
    ):
        use(config, checkpoint)
    assert not trace.exists()
    assert not (tmp_path / "converted.pth").exists()
