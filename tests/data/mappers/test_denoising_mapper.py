from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ddep.data.image_reader import UnreadableImageError
from ddep.data.mappers import build_mapper
from ddep.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
MEAN, STD = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]


@pytest.fixture
def record(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    return {"file_name": str(tmp_path / "image.png"), "image_id": 4, "position": 9}


@pytest.fixture
def denoising(config):
    def make(*overrides, is_train=True):
        defaults = ("INPUT.DATASET_MAPPER_NAME", "ddep_denoising", "INPUT.RANDOM_FLIP", "none")
        sizes = ("INPUT.MIN_SIZE_TRAIN", (24,), "INPUT.MIN_SIZE_TEST", 24, "INPUT.FORMAT", "RGB")
        pixels = ("MODEL.PIXEL_MEAN", MEAN, "MODEL.PIXEL_STD", STD)
        return build_mapper(config(*defaults, *sizes, *pixels, *overrides), is_train)

    return make


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("formulation", ["scaled", "additive"])
@pytest.mark.parametrize("is_train", [True, False])
def test_noisy_image(record, denoising, order, formulation, is_train):
    keys = ("MODEL.DDEP.NOISE", formulation, "MODEL.DDEP.SIGMA", [0.7], "INPUT.FORMAT", order)
    sample = denoising(*keys, is_train=is_train)(record)
    assert set(sample) == {"image", "noise", "sigma", "file_name", "image_id", "height", "width"}
    assert (sample["height"], sample["width"], sample["sigma"]) == (24, 32, 0.7)
    assert sample["image"].dtype == sample["noise"].dtype == torch.float32
    assert sample["image"].shape == sample["noise"].shape == (3, 24, 32)
    pixels = PIXELS.astype(np.float64) if order == "RGB" else PIXELS[..., ::-1].astype(np.float64)
    clean = ((pixels - MEAN) / STD).transpose(2, 0, 1)
    expected = clean + 0.7 * sample["noise"].double().numpy()
    if formulation == "scaled":
        expected /= np.sqrt(1 + 0.7**2)
    np.testing.assert_allclose(sample["image"], expected, atol=2e-6)
    # 2304 normal numbers: mean within 5 / sqrt(2304), variance within 5 sqrt(2 / 2304).
    assert abs(sample["noise"].mean()) < 0.11 and abs(sample["noise"].var() - 1) < 0.15


def test_test_noise_depends_only_on_the_position(record, denoising):
    mapper = denoising("MODEL.DDEP.SIGMA", [0.1, 0.9], is_train=False)
    first = mapper(record)
    torch.manual_seed(123)
    np.random.seed(123)
    again = denoising("MODEL.DDEP.SIGMA", [0.1, 0.9], is_train=False)(record)
    assert torch.equal(first["noise"], again["noise"]) and torch.equal(
        first["image"], again["image"]
    )
    assert first["sigma"] == again["sigma"]
    other = mapper({**record, "position": 10})
    assert other["sigma"] != first["sigma"]
    assert abs(np.corrcoef(other["noise"].flatten(), first["noise"].flatten())[0, 1]) < 0.11
    state = torch.get_rng_state()
    mapper(record)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_noise_comes_from_the_global_generator(record, denoising):
    mapper = denoising("MODEL.DDEP.SIGMA", [0.2, 0.4])
    torch.manual_seed(5)
    first, second = mapper(record), mapper(record)
    assert not torch.equal(first["noise"], second["noise"])
    torch.manual_seed(5)
    assert torch.equal(mapper(record)["noise"], first["noise"])
    sigmas = [mapper(record)["sigma"] for _ in range(200)]
    assert 0.2 <= min(sigmas) < 0.21 and 0.39 < max(sigmas) < 0.4
    assert all(isinstance(sigma, float) for sigma in sigmas)


def test_building_a_mapper_draws_nothing(denoising):
    state = torch.get_rng_state()
    denoising("MODEL.DDEP.SIGMA", [0.2, 0.4])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (9, 5), (70, 90)])
def test_grey_images_of_any_size(tmp_path, denoising, size):
    Image.fromarray(np.full(size, 77, np.uint8)).save(tmp_path / "grey.png")
    mapper = denoising(
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (40, 50)),
        *("INPUT.MAX_SIZE_TRAIN", 100, "INPUT.SIZE_DIVISIBILITY", 64),
    )
    sample = mapper({"file_name": str(tmp_path / "grey.png")})
    height, width = sample["image"].shape[1:]
    assert 1 <= height <= 40 and 1 <= width <= 50
    assert (sample["height"], sample["width"]) == size
    clean = sample["image"] * (1 + 0.48**2) ** 0.5 - 0.48 * sample["noise"]
    expected = (77 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(
        clean, expected[:, None, None].expand_as(clean), atol=2e-6, rtol=1e-5
    )


def test_labels_do_not_matter(record, denoising):
    """Not even a size in the annotation that is wrong."""
    labelled = {**record, "sem_seg_file_name": "none.png", "height": 5, "width": 6}
    assert denoising()(labelled)["height"] == 24


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.DDEP.SIGMA", [0.5, 0.1]), r"MODEL.DDEP.SIGMA is \[0.5, 0.1\]; expected"),
        (("MODEL.DDEP.NOISE", "salt"), "MODEL.DDEP.NOISE is 'salt'"),
        (("MODEL.PIXEL_STD", [1.0]), r"MODEL.PIXEL_STD is \[1.0\]; expected three numbers"),
    ],
)
def test_wrong_values_are_refused_at_once(denoising, overrides, message):
    with pytest.raises(UserError, match=message):
        denoising(*overrides)


@pytest.fixture
def photograph(tmp_path):
    """A JPEG file of 320x480 pixels on its side, and what is seen upright."""
    rng = np.random.default_rng(1)
    waves = cv2.resize(rng.uniform(40, 215, (9, 13, 3)).astype(np.float32), (480, 320))
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(waves.astype(np.uint8))
    image.save(tmp_path / "photograph.jpg", quality=95, exif=exif)
    return {"file_name": str(tmp_path / "photograph.jpg"), "position": 3}


def clean(sample):
    """``x`` of a sample with scaled noise."""
    scale = (1 + sample["sigma"] ** 2) ** 0.5
    return sample["image"] * scale - sample["sigma"] * sample["noise"]


def test_draft_decoding_is_for_training(photograph, denoising):
    sizes = ("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64)
    images = {}
    for draft in (True, False):
        for is_train in (True, False):
            mapper = denoising("INPUT.DRAFT_DECODING", draft, *sizes, is_train=is_train)
            torch.manual_seed(0)
            sample = mapper(photograph)
            assert (sample["height"], sample["width"]) == (480, 320)
            assert sample["image"].shape == (3, 96, 64)
            images[draft, is_train] = clean(sample)
    assert torch.equal(images[True, False], images[False, False])
    assert not torch.equal(images[True, True], images[False, True])
    # Half of the size is decoded, and resized to two thirds of that: within a few grey levels.
    assert (images[True, True] - images[False, True]).abs().max() < 5 / min(STD)
    upright = ImageOps.exif_transpose(Image.open(photograph["file_name"]))
    resized = np.asarray(upright.resize((64, 96), Image.Resampling.BILINEAR), dtype=np.float64)
    expected = torch.from_numpy(((resized - MEAN) / STD).transpose(2, 0, 1))
    # One grey level of difference between two implementations, and float32.
    assert (images[True, False] - expected).abs().max() <= 1.001 / min(STD)


def test_damaged_photographs_are_unreadable(photograph, denoising):
    data = Path(photograph["file_name"]).read_bytes()
    Path(photograph["file_name"]).write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableImageError, match="photograph.jpg .* truncated"):
        denoising()(photograph)


def test_noise_is_normal_and_independent(tmp_path, denoising):
    Image.new("RGB", (200, 200)).save(tmp_path / "black.png")
    mapper = denoising("INPUT.MIN_SIZE_TRAIN", (200,))
    first, second = (
        mapper({"file_name": str(tmp_path / "black.png")})["noise"].double().numpy()
        for _ in range(2)
    )
    count = first.size
    assert first.shape == (3, 200, 200)
    # Five standard errors: of the mean 1, of the variance 2, of the fourth moment 96, over count.
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((first**power).mean() - expected) < 5 * (variance / count) ** 0.5
    tail = (np.abs(first) > 3).mean()
    assert tail == pytest.approx(0.0026998, abs=5 * (0.0027 / count) ** 0.5)
    pairs = {
        "samples": (first, second),
        "channels": (first[:2], first[1:]),
        "columns": (first[:, :, 1:], first[:, :, :-1]),
        "rows": (first[:, 1:], first[:, :-1]),
        # PyTorch makes numbers in pairs, eight apart.
        "pairs": (first[:, :, 8:], first[:, :, :-8]),
        "squares of pairs": (first[:, :, 8:] ** 2 - 1, first[:, :, :-8] ** 2 - 1),
    }
    for name, (one, other) in pairs.items():
        correlation = (one * other).mean() / (one.std() * other.std())
        assert abs(correlation) < 5 / one.size**0.5, name


def test_test_noise_is_the_same_everywhere(tmp_path, denoising):
    """Whatever the image shows and however many threads there are."""
    mapper = denoising(is_train=False)
    noises = []
    threads = torch.get_num_threads()
    for colour, count in (("red", 1), ("blue", 2)):
        path = tmp_path / f"{colour}.png"
        Image.new("RGB", (200, 150), colour).save(path)
        try:
            torch.set_num_threads(count)
            noises.append(mapper({"file_name": str(path), "position": 9})["noise"])
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(*noises)
    # Written down on one machine; processors differ in the last digits of logarithm and sine.
    expected = torch.tensor([-1.067395, -0.717245, 1.089719, -1.574684])
    torch.testing.assert_close(noises[0][0, 0, :4], expected, atol=1e-5, rtol=0)


def test_camvid(denoising, request):
    folder = Path(request.config.rootpath).parent / "shared" / "data" / "camvid" / "train"
    if not folder.is_dir():
        pytest.skip("no CamVid images")
    mapper = denoising(
        *("INPUT.MIN_SIZE_TRAIN", (180,), "INPUT.CROP.ENABLED", True, "INPUT.COLOR_AUG_SSD", True),
        *("INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (128, 160)),
    )
    for path in sorted(folder.iterdir())[:5]:
        sample = mapper({"file_name": str(path)})
        assert sample["image"].shape == (3, 128, 160) and torch.isfinite(sample["image"]).all()
        assert (sample["height"], sample["width"]) == (360, 480)
