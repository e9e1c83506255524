"""Scales and flips, against Pillow and loops, with models that would show a wrong flip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from PIL import Image
from torch import Tensor

from ddep.inference.sliding import SlidingWindowSegmentor
from ddep.inference.test_time_augmentation import ScalesAndFlips, SemanticSegmentorWithTTA
from tests.inference.pixel_models import PixelModel, inputs_of, noise_image, resized
from tests.modeling.meta_arch.small_mask_former import image_of_size, small_model


def versions(sizes: tuple[int, ...], flip: bool, max_size: int = 1000) -> ScalesAndFlips:
    cfg: CfgNode = get_cfg()
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP, cfg.TEST.AUG.MAX_SIZE = sizes, flip, max_size
    return ScalesAndFlips(cfg)


def scaled(image: Tensor, height: int, width: int) -> Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    pixels = picture.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def mirrored(maps: Tensor) -> Tensor:
    """Column by column."""
    width = maps.shape[-1]
    return torch.stack([maps[..., width - 1 - x] for x in range(width)], -1)


@pytest.mark.parametrize("as_logits", [False, True])
def test_probabilities_of_scales_and_flips_are_averaged(as_logits: bool) -> None:
    image = noise_image(20, 30)
    model = PixelModel(as_logits=as_logits, place=0.5)
    kind = "logits" if as_logits else "probabilities"
    tta = SemanticSegmentorWithTTA(model, versions((10, 20, 44), flip=True, max_size=60), kind)
    [output] = tta([inputs_of(image, 25, 33)])
    expected = []
    for height, width in ((10, 15), (20, 30), (40, 60)):
        for flipped in (False, True):
            version = scaled(image, height, width)
            scores = resized(model.scores(mirrored(version) if flipped else version), (25, 33))
            scores = scores.double().softmax(0) if as_logits else scores.double()
            expected.append(mirrored(scores) if flipped else scores)
    found = output["sem_seg"].softmax(0) if as_logits else output["sem_seg"]
    torch.testing.assert_close(found.double(), sum(expected) / 6, rtol=0, atol=1e-6)
    assert model.sizes == [[(h, w)] for h, w in ((10, 15), (20, 30), (40, 60)) for _ in range(2)]


def test_a_model_of_pixels_does_not_notice_flips() -> None:
    """It would notice a shift by one pixel."""
    image = noise_image(17, 23)
    tta = SemanticSegmentorWithTTA(PixelModel(), versions((0,), flip=True), "probabilities")
    [output] = tta([inputs_of(image)])
    torch.testing.assert_close(output["sem_seg"], image / 255, rtol=1e-6, atol=0)


def test_one_version_of_an_image_is_the_models_own_result() -> None:
    """To the bit, with the size of the image given in three ways."""
    model = small_model(panoptic_on=False, instance_on=False).eval()
    inputs = inputs_of(image_of_size(40, 60, seed=1), 55, 83)
    with torch.no_grad():
        [expected] = model([inputs])
    for size, max_size in ((40, 1000), (0, 1000), (80, 60)):
        only = versions((size,), flip=False, max_size=max_size)
        [output] = SemanticSegmentorWithTTA(model, only, "probabilities")([inputs])
        assert torch.equal(output["sem_seg"], expected["sem_seg"])


def test_every_version_is_cut_into_windows() -> None:
    image = noise_image(16, 24)
    model = PixelModel(place=0.5)
    windows = SlidingWindowSegmentor(
        model, crop_size=(10, 12), stride=(6, 12), class_scores="probabilities"
    )
    tta = SemanticSegmentorWithTTA(windows, versions((8, 16), flip=True), "probabilities")
    [output] = tta([inputs_of(image)])
    small = scaled(image, 8, 12)
    halves = [small, mirrored(small), *(_looped(model, x) for x in (image, mirrored(image)))]
    expected = [resized(model.scores(x), (16, 24)) for x in halves[:2]] + halves[2:]
    expected[1], expected[3] = mirrored(expected[1]), mirrored(expected[3])
    torch.testing.assert_close(output["sem_seg"], sum(expected) / 4)


def _looped(model: PixelModel, image: Tensor) -> Tensor:
    """The 2x2 windows of 10x12 of an image 16x24; four rows in the middle are in two of them."""
    result = torch.zeros(3, 16, 24)
    for left in (0, 12):
        upper, lower = (model.scores(image[:, t : t + 10, left : left + 12]) for t in (0, 6))
        middle = (upper[:, 6:] + lower[:, :4]) / 2
        result[..., left : left + 12] = torch.cat([upper[:, :6], middle, lower[:, 4:]], 1)
    return result


def test_transforms_lead_from_the_result_to_the_version() -> None:
    """Boxes of a bright rectangle, in the size of the result, are where it is in each version."""
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, 8:16, 12:28] = 255
    box = np.array([[24.0, 16, 56, 32]])  # in a result of twice the size
    found = list(versions((20, 40, 120), flip=True)(inputs_of(image, 80, 120)))
    assert len(found) == 6
    for version in found:
        rows, columns = (version["image"][0] > 127).nonzero(as_tuple=True)
        shown = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        [moved] = version["transforms"].apply_box(box)
        assert moved.tolist() == [float(edge) for edge in shown]
        [back] = version["transforms"].inverse().apply_box(moved[None])
        assert back.tolist() == box[0].tolist()
    assert found[0]["image"].shape == found[1]["image"].shape == (3, 20, 30)
    assert not torch.equal(found[0]["image"], found[1]["image"])


def test_very_long_images_keep_a_pixel() -> None:
    tta = SemanticSegmentorWithTTA(
        PixelModel(), versions((8,), flip=True, max_size=64), "probabilities"
    )
    [output] = tta([inputs_of(noise_image(1, 500))])
    assert output["sem_seg"].shape == (3, 1, 500)
