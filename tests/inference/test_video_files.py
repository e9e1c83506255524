from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddep.errors import UserError
from ddep.inference import Predictor, predict_files
from ddep.inference.tracking import TrackedFrame
from ddep.inference.video import Video
from ddep.inference.video_files import predict_video_files
from ddep.inference.video_writing import new_video
from tests.inference.test_video import write
from tests.inference.tiny_models import write_run
from tests.inference.tiny_videos import frames as moving_square
from tests.inference.tiny_videos import video_predictor

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
        predict_video_files(predictor, [damaged, video, folder], output, rate=5.0)
    assert sorted(path.name for path in output.glob("*.mp4")) == ["a.mp4", "b.mp4", "camera.mp4"]
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
        predict_video_files(predictor, [one, other], tmp_path / "out")
    with pytest.raises(UserError, match=r"would replace .*a\.mp4"):
        predict_video_files(predictor, [other], tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        predict_video_files(predictor, [one, tmp_path / "absent.mp4"], tmp_path / "out")
    with pytest.raises(UserError, match="--save logits is for images; of videos, pictures and tr"):
        predict_video_files(predictor, [one], tmp_path / "out", save="logits")
    with pytest.raises(UserError, match="--save tracks: the model does not predict .* --track"):
        predict_video_files(predictor, [one], tmp_path / "out", save="tracks")
    semantic = Predictor(
        write_run(tmp_path / "run", CONFIG, "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False)
    )
    with pytest.raises(UserError, match="predicts no objects with masks"):
        predict_video_files(semantic, [one], tmp_path / "out", track=True)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return video_predictor(tmp_path_factory.mktemp("runs") / "run")


def write_video(path: Path, length: int) -> Path:
    with new_video(path, 10) as add:
        for frame in moving_square(length):
            add(frame)
    return path


def tracks_of(content: dict[str, Any]) -> list[list[int]]:
    """The tracks in each frame."""
    return [
        [track["id"] for track in content["annotations"] if track["areas"][frame] is not None]
        for frame in range(content["videos"][0]["length"])
    ]


@pytest.mark.parametrize("length", [1, 6])
def test_tracks_of_videos_and_folders_are_saved(
    length: int, tmp_path: Path, tracker: Predictor
) -> None:
    video = write_video(tmp_path / "street.avi", length)
    folder = tmp_path / "camera"
    folder.mkdir()
    for number, frame in enumerate(Video(video)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    output = tmp_path / "out"
    written = predict_video_files(
        tracker, [video, folder], output, rate=5.0, save="pictures,tracks"
    )
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*.*")) == [
        "pictures/camera.mp4",
        "pictures/street.mp4",
        "tracks/camera.json",
        "tracks/street.json",
    ]
    assert sorted(written) == sorted(output.rglob("*.*"))
    contents = [
        json.loads((output / "tracks" / f"{name}.json").read_text())
        for name in ("street", "camera")
    ]
    assert contents[0]["annotations"] == contents[1]["annotations"]
    expected = [sorted(frame.track_ids) for frame in tracker.track(Video(video))]
    assert tracks_of(contents[0]) == expected and len(expected) == length and any(expected)
    size = {"height": 48, "width": 64, "length": length, "id": 1}
    assert contents[0]["videos"] == [{"file_name": str(video), "frame_rate": 10.0, **size}]
    names = [f"{number}.png" for number in range(length)]
    described = {"file_names": names, "image_root": str(folder), "frame_rate": 5.0}
    assert contents[1]["videos"] == [{**described, **size}]
    assert [len(Video(path)) for path in sorted(output.rglob("*.mp4"))] == [length] * 2


def test_what_could_be_read_of_a_damaged_folder_is_there(
    tmp_path: Path, tracker: Predictor
) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    for number, frame in enumerate([*moving_square(4), *moving_square(1, (40, 64))]):
        Image.fromarray(frame).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"no image")
    message = r"frame 4 is 64x40, .* one size; .*camera\.mp4 and .*camera\.json have 3 frames$"
    with pytest.raises(UserError, match=message):
        predict_video_files(tracker, [folder], tmp_path / "out", 5.0, save="pictures,tracks")
    content = json.loads((tmp_path / "out" / "tracks" / "camera.json").read_text())
    assert content["videos"][0]["file_names"] == ["0.png", "2.png", "3.png"]
    assert content["videos"][0]["length"] == 3


def test_a_stopped_run_continues_with_the_next_video(
    tmp_path: Path, tracker: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [write_video(tmp_path / f"{name}.avi", 3) for name in "abc"]
    output = tmp_path / "out"

    class Killed(BaseException):
        pass

    whole = Predictor.track

    def killed_in_the_second(self: Predictor, frames: Video) -> Iterator[TrackedFrame]:
        for frame in whole(self, frames):
            if frames.path.stem == "b" and frame.number == 1:
                raise Killed
            yield frame

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "track", killed_in_the_second)
        with pytest.raises(Killed):
            predict_video_files(tracker, videos, output, save="tracks")
    assert [path.name for path in (output / "tracks").iterdir()] == ["a.json"]
    for name in (".b.json.masks.999999999.tmp", ".b.mp4.999999999.tmp.mp4"):
        (output / "tracks" / name).write_text("of a process that was killed")
    before = (output / "tracks" / "a.json").stat().st_mtime_ns
    predict_video_files(tracker, videos, output, save="tracks", resume=True)
    assert sorted(path.name for path in (output / "tracks").iterdir()) == [
        "a.json",
        "b.json",
        "c.json",
    ]
    assert (output / "tracks" / "a.json").stat().st_mtime_ns == before
    assert not (output / ".predicted.jsonl").exists()


def test_a_model_that_finds_nothing_writes_files_without_tracks(tmp_path: Path) -> None:
    predictor = video_predictor(tmp_path / "run", "TEST.CLIP.SCORE_THRESHOLD", 1.0)
    video = write_video(tmp_path / "a.avi", 3)
    predict_video_files(predictor, [video], tmp_path / "out", save="pictures,tracks")
    content = json.loads((tmp_path / "out" / "tracks" / "a.json").read_text())
    assert content["annotations"] == [] and content["videos"][0]["length"] == 3
    assert len(Video(tmp_path / "out" / "pictures" / "a.mp4")) == 3


def test_images_are_not_for_models_of_videos(tmp_path: Path, tracker: Predictor) -> None:
    image = tmp_path / "a.png"
    Image.fromarray(moving_square(1)[0]).save(image)
    with pytest.raises(UserError, match="--input has images, but .*VideoMaskFormer takes videos"):
        predict_files(tracker.cfg, [image], tmp_path / "out")
    assert not (tmp_path / "out").exists()
