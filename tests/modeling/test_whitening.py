from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor

from ddep.errors import UserError
from ddep.modeling.whitening import SelectiveWhitening, covariance, sensitive, whitening_loss


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def white(channels: int, height: int, width: int) -> Tensor:
    """(2, channels, height, width) whose channels have mean 0 and are orthogonal."""
    centred = random(2, height * width, channels)
    basis, _ = torch.linalg.qr(centred - centred.mean(1, keepdim=True))
    return basis.mT.reshape(2, channels, height, width)


def everything(channels: int) -> Tensor:
    return torch.ones(channels, channels, dtype=torch.bool).triu(1)


def test_the_covariance_is_that_of_the_channels():
    features = torch.nn.functional.instance_norm(random(2, 3, 4, 5))
    found = covariance(features)
    for image, matrix in zip(features, found, strict=True):
        for i in range(3):
            for j in range(3):
                products = (image[i] * image[j]).ravel().tolist()
                assert matrix[i, j].item() == pytest.approx(sum(products) / 19, abs=1e-12)


def test_half_precision_features_have_a_full_precision_covariance():
    features = random(1, 3, 8, 8).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = covariance(features)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), covariance(features.double()), atol=1e-6)


def test_white_features_have_no_loss():
    covariances = covariance(white(4, 5, 6))
    assert whitening_loss(covariances, everything(4)).abs().max() < 1e-15
    assert covariances.diagonal(dim1=1, dim2=2).min() > 0.01


def test_the_loss_is_the_mean_of_what_the_mask_has():
    covariances = random(2, 3, 3)
    mask = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    expected = [(abs(float(c[0, 1])) + abs(float(c[1, 2]))) / 2 for c in covariances]
    assert whitening_loss(covariances, mask).tolist() == pytest.approx(expected, abs=1e-15)
    assert whitening_loss(covariances, torch.zeros_like(mask)).tolist() == [0, 0]


def test_the_loss_makes_features_whiter():
    features = random(2, 4, 6, 6).requires_grad_()
    mixed = torch.einsum("ij,bjhw->bihw", random(4, 4, seed=1), features)
    normal = torch.nn.functional.instance_norm(mixed)
    loss = whitening_loss(covariance(normal), everything(4)).mean()
    loss.backward()
    with torch.no_grad():
        moved = torch.einsum("ij,bjhw->bihw", random(4, 4, seed=1), features - features.grad)
        after = covariance(torch.nn.functional.instance_norm(moved))
    assert whitening_loss(after, everything(4)).mean() < 0.99 * loss


def test_the_most_variable_covariances_are_chosen():
    variances = torch.zeros(4, 4, dtype=torch.float64)
    above = [(0, 1, 0.1), (0, 2, 5.0), (0, 3, 0.2), (1, 2, 9.0), (1, 3, 0.15), (2, 3, 5.2)]
    for i, j, value in above:
        variances[i, j] = value
        variances[j, i] = 100.0  # below the diagonal nothing counts
    assert sensitive(variances, 3).nonzero().tolist() == [[0, 2], [1, 2], [2, 3]]
    variances[1, 2] = 20.0
    assert sensitive(variances, 2).nonzero().tolist() == [[1, 2]]


def whitening(**others) -> SelectiveWhitening:
    values = {"clusters": 2, "start": 3, "measured_steps": 2, **others}
    return SelectiveWhitening([3, 4], **values, device="cpu")


def pairs(seed: int) -> list[Tensor]:
    return [random(2, 3, 3, seed=seed), random(2, 4, 4, seed=seed + 100)]


def measured(whitening: SelectiveWhitening, *seeds: int, skipped: bool = False) -> None:
    """A step that measures an image for each seed."""
    assert whitening.measures and not whitening.has_loss
    for seed in seeds:
        whitening.measure(pairs(seed))
    whitening.finish_step(skipped)


def expected_variances(*seeds: int) -> list[Tensor]:
    """Of both layers, computed number by number."""
    of_layers = []
    for layer, channels in enumerate((3, 4)):
        variances = torch.zeros(channels, channels, dtype=torch.float64)
        for i in range(channels):
            for j in range(channels):
                found = []
                for seed in seeds:
                    one, other = (float(matrix[i, j]) for matrix in pairs(seed)[layer])
                    mean = (one + other) / 2
                    found.append((one - mean) ** 2 + (other - mean) ** 2)
                variances[i, j] = sum(found) / len(found)
        of_layers.append(variances)
    return of_layers


def expected_masks(*seeds: int) -> list[Tensor]:
    return [sensitive(variances, 2) for variances in expected_variances(*seeds)]


def assert_masks(whitening: SelectiveWhitening, masks: list[Tensor]) -> None:
    assert whitening.has_loss and not whitening.measures
    assert all(map(torch.equal, whitening.state_dict()["masks"], masks))


def test_steps_do_nothing_then_measure_then_have_the_loss():
    whole = whitening()
    assert not whole.measures and not whole.has_loss
    whole.finish_step(False)
    measured(whole, 1, 2)
    measured(whole, 3)
    state = whole.state_dict()
    assert state["images"] == 3
    for total, mean in zip(state["variances"], expected_variances(1, 2, 3), strict=True):
        assert torch.allclose(total / 3, mean, rtol=1e-12)
    assert_masks(whole, expected_masks(1, 2, 3))
    covariances = [random(2, 3, 3, seed=7), random(2, 4, 4, seed=8)]
    expected = [
        whitening_loss(found, mask).mean()
        for found, mask in zip(covariances, expected_masks(1, 2, 3), strict=True)
    ]
    assert whole.loss(covariances).item() == pytest.approx(float(sum(expected) / 2), abs=1e-15)


def test_skipped_steps_measure_nothing():
    whole = whitening()
    whole.finish_step(True)
    measured(whole, 1, 2)
    measured(whole, 9, skipped=True)
    assert_masks(whole, expected_masks(1, 2))


def test_measuring_goes_on_until_there_is_an_image():
    whole = whitening()
    whole.finish_step(False)
    for _ in range(3):
        measured(whole, 5, skipped=True)
    measured(whole, 6)
    assert_masks(whole, expected_masks(6))


def copied(whitening_: SelectiveWhitening) -> SelectiveWhitening:
    """What a checkpoint file makes of it."""
    file = io.BytesIO()
    torch.save(whitening_.state_dict(), file)
    file.seek(0)
    other = whitening()
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def test_a_resumed_run_measures_on_and_keeps_its_masks():
    run = whitening()
    run.finish_step(False)
    measured(run, 1, 2)
    run = copied(run)
    measured(run, 3)
    assert_masks(run, expected_masks(1, 2, 3))
    assert_masks(copied(run), expected_masks(1, 2, 3))


def test_a_state_of_another_resnet_is_one_line():
    state = SelectiveWhitening([3, 5], clusters=2, start=3, measured_steps=2, device="cpu")
    with pytest.raises(UserError, match=r"\(5, 5\).*resume with the MODEL.RESNETS"):
        whitening().load_state_dict(state.state_dict())
