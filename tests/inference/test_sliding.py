"""Sliding windows, against a loop over pixels and models that would show any mistake."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddep.inference import class_scores
from ddep.inference.sliding import SlidingWindowSegmentor, window_starts
from tests.inference.pixel_models import PixelModel, inputs_of, noise_image, resized
from tests.modeling.meta_arch.small_mask_former import image_of_size, small_model


def sliding(
    model: torch.nn.Module, crop: tuple[int, int], stride: tuple[int, int], scores: str
) -> SlidingWindowSegmentor:
    return SlidingWindowSegmentor(model, crop_size=crop, stride=stride, class_scores=scores)


def looped(
    model: PixelModel, image: Tensor, crop: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """The mean of the class probabilities of all windows, added up one by one in float64."""
    size = image.shape[1:]
    corners = []
    for length, window, step in zip(size, crop, stride, strict=True):
        starts, start = [], 0
        while start + window < length:
            starts.append(start)
            start += step
        corners.append([*starts, max(0, length - window)])
    total, count = torch.zeros(3, *size, dtype=torch.float64), torch.zeros(size)
    for top in corners[0]:
        for left in corners[1]:
            scores = model.scores(image[:, top : top + crop[0], left : left + crop[1]]).double()
            probabilities = scores.softmax(0) if model.as_logits else scores
            for y in range(probabilities.shape[1]):
                for x in range(probabilities.shape[2]):
                    total[:, top + y, left + x] += probabilities[:, y, x]
                    count[top + y, left + x] += 1
    return total / count


# size of the image, of windows, stride: even and uneven overlaps, none, one row, one column
LAYOUTS = [
    ((29, 40), (12, 16), (8, 11)),
    ((24, 30), (12, 10), (12, 10)),
    ((13, 33), (20, 14), (20, 3)),
    ((31, 9), (10, 9), (9, 1)),
]


@pytest.mark.parametrize(("size", "crop", "stride"), LAYOUTS)
@pytest.mark.parametrize("as_logits", [False, True])
def test_every_window_counts_once_at_its_place(
    size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int], as_logits: bool
) -> None:
    image = noise_image(*size)
    model = PixelModel(as_logits=as_logits, place=0.5)
    kind = "logits" if as_logits else "probabilities"
    [output] = sliding(model, crop, stride, kind)([inputs_of(image)])
    found = output["sem_seg"].softmax(0) if as_logits else output["sem_seg"]
    torch.testing.assert_close(
        found.double(), looped(model, image, crop, stride), rtol=0, atol=1e-6
    )
    assert found.dtype == torch.float32


@pytest.mark.parametrize(("size", "crop", "stride"), LAYOUTS)
def test_a_model_of_pixels_does_not_notice_windows(
    size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]
) -> None:
    image, model = noise_image(*size), PixelModel()
    [output] = sliding(model, crop, stride, "probabilities")([inputs_of(image)])
    torch.testing.assert_close(output["sem_seg"], image / 255, rtol=1e-6, atol=0)


def test_results_have_the_size_that_is_asked_for() -> None:
    """The mean is resized as a whole, so no borders of windows show."""
    image, model = noise_image(20, 26), PixelModel()
    for size in ((50, 41), (10, 13)):
        [output] = sliding(model, (9, 9), (5, 5), "probabilities")([inputs_of(image, *size)])
        torch.testing.assert_close(output["sem_seg"], resized(image / 255, size))
    [output] = sliding(model, (9, 9), (5, 5), "probabilities")([{"image": image}])
    assert output["sem_seg"].shape == (3, 20, 26)


def test_windows_of_one_size_go_through_the_model_in_small_batches() -> None:
    model = PixelModel()
    images = [inputs_of(noise_image(20, 26)), inputs_of(noise_image(6, 30))]
    sliding(model, (9, 9), (6, 6), "probabilities")(images)
    first, second = 3 * 4, 1 * 5
    assert [len(sizes) for sizes in model.sizes] == [4, 4, 4, 4, 1]
    assert sum(model.sizes, []) == first * [(9, 9)] + second * [(6, 9)]


def test_an_image_smaller_than_a_window_is_not_touched() -> None:
    """The model's own result, to the bit."""
    inputs = [inputs_of(image_of_size(45, 70, seed=1), 80, 101), {"image": image_of_size(9, 9, 2)}]
    model = small_model(panoptic_on=False, instance_on=False).eval()
    with torch.no_grad():
        whole = [model([x])[0]["sem_seg"] for x in inputs]
    windowed = sliding(model, (45, 80), (30, 60), "probabilities")(inputs)
    for expected, output in zip(whole, windowed, strict=True):
        assert torch.equal(output["sem_seg"], expected)
    # One pixel less in a window is another result.
    [other] = sliding(model, (45, 69), (30, 60), "probabilities")(inputs[:1])
    assert not torch.equal(other["sem_seg"], whole[0])


def test_windows_of_a_mask_former_agree_with_the_whole_image_inside() -> None:
    """Its masks depend on 4x4 pixels and their neighbours, so only borders of windows differ."""
    model = small_model(panoptic_on=False, instance_on=False).eval()
    inputs = inputs_of(image_of_size(64, 96, seed=3))
    with torch.no_grad():
        whole = model([inputs])[0]["sem_seg"]
    [output] = sliding(model, (64, 32), (64, 32), "probabilities")([inputs])
    inside = [x for x in range(96) if 4 <= x % 32 < 28]
    torch.testing.assert_close(output["sem_seg"][..., inside], whole[..., inside])


def test_probabilities_of_zero_stay_finite_logits() -> None:
    scores = torch.tensor([0.0, -400.0])[:, None, None].expand(2, 4, 6)
    model = torch.nn.Module()
    model.forward = lambda inputs: [{"sem_seg": scores[..., : x["width"]]} for x in inputs]
    [output] = sliding(model, (4, 4), (4, 2), "logits")([inputs_of(noise_image(4, 6))])
    assert output["sem_seg"].isfinite().all()
    torch.testing.assert_close(output["sem_seg"].softmax(0), scores.softmax(0))


@pytest.mark.parametrize(
    ("length", "crop", "stride", "expected"),
    [
        (10, 4, 3, [0, 3, 6]),
        (11, 4, 3, [0, 3, 6, 7]),
        (4, 4, 3, [0]),
        (3, 4, 4, [0]),
        (5, 4, 4, [0, 1]),
        (1, 1, 1, [0]),
    ],
)
def test_the_last_window_ends_at_the_border(
    length: int, crop: int, stride: int, expected: list[int]
) -> None:
    assert window_starts(length, crop, stride) == expected


def test_scores_that_do_not_fit_the_gpu_go_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most half of what is free: the other half is the model's."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 8000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 900)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300)
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert class_scores.device_with_room((2, 10, 10), gpu) == gpu
    assert class_scores.device_with_room((2, 10, 11), gpu) == cpu
    assert class_scores.device_with_room((2, 10, 11), cpu) == cpu
