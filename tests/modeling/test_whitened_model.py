from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import spawn

from ddep.data.photometric import build_photometric
from ddep.data.seeding import seeded
from ddep.distributed.data_parallel import distribute
from ddep.engine.train_step import TrainStep
from ddep.modeling.whitened_model import WhitenedModel
from ddep.modeling.whitening import covariance, sensitive, whitening_loss
from tests.modeling.whitened import MeanSquare, images, whitened_config

WEIGHT = 0.7
ISW = ["MODEL.ISW.WEIGHT", WEIGHT, "MODEL.ISW.START_ITER", 3, "MODEL.ISW.MEASURED_ITERS", 2]


def run(
    batches: list[list[dict[str, Tensor]]], *, parts: int = 1, normalised: bool = True
) -> dict[str, Any]:
    """A step on each batch with weights that stay as they are, and what came of it."""
    cfg = whitened_config(*ISW)
    model = MeanSquare(cfg)
    normalisers = model.normalisers if normalised else None
    whitened = WhitenedModel(cfg, model, model, normalisers)
    step = TrainStep(
        distribute(whitened),
        batches,
        torch.optim.SGD(model.parameters(), lr=0.0),
        normalisers=whitened.normalisers,
        parts=parts,
    )
    losses = []
    for _ in batches:
        result = step.run()
        whitened.whitening.finish_step(result.skipped)
        losses.append(result.losses)
    return {
        "losses": losses,
        "masks": whitened.whitening.state_dict()["masks"],
        "gradients": {name: p.grad.clone() for name, p in model.named_parameters()},
    }


def batches() -> list[list[dict[str, Tensor]]]:
    """Five of four images each."""
    samples = images(20)
    return [samples[i : i + 4] for i in range(0, 20, 4)]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return run(batches())


def normalised_features(model: MeanSquare, image: Tensor) -> list[Tensor]:
    """What each whitening layer gives for one image, from the ResNet's own parts."""
    backbone = model.backbone
    found: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _, __, output: found.append(output.clone()))
        for layer in (
            backbone.stem.conv1.norm,
            backbone.res2[-1].whitening,
            backbone.res3[-1].whitening,
        )
    ]
    backbone(((image - model.pixel_mean) / model.pixel_std)[None])
    for handle in handles:
        handle.remove()
    return found


def by_hand() -> tuple[list[Tensor], float]:
    """The masks from the second and third batch, and the loss of the last."""
    model = MeanSquare(whitened_config())
    change = build_photometric(
        color_jitter=(0.8, 0.8, 0.8, 0.3),
        jitter_probability=1.0,
        gray_probability=0.0,
        blur_sigma=(0.15, 1.3),
        blur_probability=1.0,
        image_format="BGR",
    )
    variances: list[Any] = [0.0, 0.0, 0.0]
    for sample in [*batches()[1], *batches()[2]]:
        image = sample["image"]
        with seeded(zlib.crc32(image.numpy().tobytes()), 0):
            changed = change(image)
        pairs = zip(
            normalised_features(model, image), normalised_features(model, changed), strict=True
        )
        for layer, (one, other) in enumerate(pairs):
            difference = covariance(one)[0] - covariance(other)[0]
            variances[layer] = variances[layer] + difference.square() / 2 / 8
    masks = [sensitive(v.detach(), 3) for v in variances]
    losses = [
        whitening_loss(covariance(features), mask).item()
        for sample in batches()[4]
        for features, mask in zip(normalised_features(model, sample["image"]), masks, strict=True)
    ]
    return masks, WEIGHT * sum(losses) / len(losses)


def test_masks_and_loss_are_those_of_the_paper(whole: dict[str, Any]) -> None:
    masks, loss = by_hand()
    assert all(0 < mask.sum() < len(mask) * (len(mask) - 1) / 2 for mask in masks)
    assert all(map(torch.equal, whole["masks"], masks))
    without, with_loss = whole["losses"][:3], whole["losses"][3:]
    assert all(losses.keys() == {"loss"} for losses in without)
    assert all(losses.keys() == {"loss", "loss_whitening"} for losses in with_loss)
    assert with_loss[1]["loss_whitening"] == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("normalised", [False, True])
def test_parts_of_a_batch_add_up_to_the_whole(whole: dict[str, Any], normalised: bool) -> None:
    assert_same(run(batches(), parts=2, normalised=normalised), whole)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert all(map(torch.equal, found["masks"], expected["masks"]))
    for mine, theirs in zip(found["losses"], expected["losses"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9)
    for name, gradient in expected["gradients"].items():
        assert torch.allclose(found["gradients"][name], gradient, rtol=1e-7, atol=1e-12), name


def test_the_gradient_includes_the_whitening_loss(whole: dict[str, Any]) -> None:
    model = MeanSquare(whitened_config())
    loss = model(batches()[4])["loss"] + 0.0
    for sample in batches()[4]:
        for features, mask in zip(
            normalised_features(model, sample["image"]), whole["masks"], strict=True
        ):
            loss = loss + WEIGHT * whitening_loss(covariance(features), mask).sum() / 12
    loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(whole["gradients"][name], parameter.grad, rtol=1e-7, atol=1e-12)


class _WithTeacher(nn.Module):
    """Calls the model's ResNet without gradients as well, as a teacher does."""

    def __init__(self, model: MeanSquare) -> None:
        super().__init__()
        self.model = model

    def forward(self, batched_inputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        losses = self.model(batched_inputs)
        with torch.no_grad():
            self.model([{"image": inputs["image"] // 2} for inputs in batched_inputs])
        return losses


def test_images_of_a_teacher_do_not_count() -> None:
    cfg = whitened_config(*ISW)
    losses = []
    for wrap in (_WithTeacher, lambda model: model):
        model = MeanSquare(cfg)
        whitened = WhitenedModel(cfg, model, wrap(model), None)
        normalisers = {"whitened_images": torch.tensor(4.0, dtype=torch.float64)}
        for batch in batches()[:4]:
            found = whitened(batch, normalisers)
            whitened.whitening.finish_step(False)
        losses.append(found["loss_whitening"].item())
    assert losses[0] == losses[1] > 0


def test_running_statistics_are_not_those_of_measured_images() -> None:
    cfg = whitened_config(*ISW, "MODEL.RESNETS.NORM", "BN", "MODEL.ISW.START_ITER", 1)
    model = MeanSquare(cfg).train()
    whitened = WhitenedModel(cfg, model, nn.Identity(), None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert whitened.whitening.measures
    whitened._measure(images(1)[0]["image"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    mine = [batch[2 * rank : 2 * rank + 2] for batch in batches()]
    found = [run(mine, parts=parts) for parts in (1, 2)]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path, whole: dict[str, Any]) -> None:
    spawn(work, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt"):
            assert_same(found, whole)
