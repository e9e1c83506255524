from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddep.errors import UserError
from ddep.inference import Predictor
from ddep.inference.video import Video
from ddep.inference.video_files import draw_video_files
from tests.inference.test_video import write
from tests.inference.tiny_models import write_run

CONFIG = "configs/demo/shapes_panoptic.yaml"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return Predictor(write_run(folder, CONFIG, "INPUT.MIN_SIZE_TEST", 48))


def test_videos_and_folders_become_videos_of_the_results(
    tmp_path: Path, predictor: Predictor
) -> None:
    video = write(tmp_path / "a.avi", frames=2, rate=10)
    frames = list(Video(video))
    folder = tmp_path / "camera"
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    damaged = write(tmp_path / "b.avi")
    data = damaged.read_bytes()
    damaged.write_bytes(data[: (data.index(b"movi") + data.index(b"idx1")) // 2])
    output = tmp_path / "out"
    with pytest.raises(UserError, match=r"^video .*b\.avi ends after"):
        draw_video_files(predictor, [damaged, video, folder], output, rate=5.0)
    assert sorted(path.name for path in output.iterdir()) == ["a.mp4", "b.mp4", "camera.mp4"]
    expected = [predictor(frame).draw() for frame in frames]
    for name, rate in (("a.mp4", 10), ("camera.mp4", 5)):
        found = Video(output / name)
        assert found.rate == pytest.approx(rate)
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one.astype(int) - other).mean() < 5  # compression


def test_mistakes_are_named_before_anything_is_written(
    tmp_path: Path, predictor: Predictor
) -> None:
    one = write(tmp_path / "a.avi", frames=1)
    other = write(tmp_path / "a.mp4", frames=1)
    with pytest.raises(UserError, match=r"a\.avi and .*a\.mp4, which would both become"):
        draw_video_files(predictor, [one, other], tmp_path / "out")
    with pytest.raises(UserError, match=r"would replace .*a\.mp4"):
        draw_video_files(predictor, [other], tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        draw_video_files(predictor, [one, tmp_path / "absent.mp4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
