"""TrackFormer: what its losses are made of, and tracks of videos."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from pycocotools import mask as coco_mask
from torch import Tensor

from ddep.errors import UserError
from ddep.modeling.meta_arch import MaskFormer, TrackFormer
from ddep.modeling.transformer_decoder.extra_queries import pad_queries
from tests.huggingface_map import randomise
from tests.modeling.meta_arch.small_mask_former import (
    annotated_pair,
    image_of_size,
    tiny_config,
    tiny_track_config,
)

QUERIES = 6


def track_model(**keys: Any) -> TrackFormer:
    """With masks that are neither empty nor full; ``keys`` are of MODEL.TRACKFORMER."""
    cfg = tiny_track_config()
    cfg.MODEL.DDEP.MASK_LOSS = "dense"
    for name, value in keys.items():
        cfg.MODEL.TRACKFORMER[name] = value
    torch.manual_seed(0)
    model = build_model(cfg)
    randomise(model.sem_seg_head.predictor)
    return model.eval()


def frames(number: int, height: int = 50, width: int = 70) -> list[Tensor]:
    return [image_of_size(height, width, seed) for seed in range(number)]


def test_parameters_are_those_of_mask_former() -> None:
    cfg = tiny_config()
    cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON = True
    images: MaskFormer = build_model(cfg)
    assert track_model().load_state_dict(images.state_dict()).missing_keys == []


def test_losses_are_those_of_the_second_frame_with_the_first_one_s_queries() -> None:
    model = track_model(FALSE_NEGATIVES=0.0, FALSE_POSITIVES=0.0)
    sample = annotated_pair(64, 64, [0, 1, 2, 1], 1)
    first, second = sample["instances"]

    # The first frame's queries, matched with its objects by trying everything.
    with torch.no_grad():
        images = model.prepare_images(sample["image"][:1])
        outputs = model.sem_seg_head(model.backbone(images.tensor))
    seen = [place for place in range(4) if first.gt_ids[place] >= 0]
    (costs,) = model.criterion.matcher.compute_costs(
        [outputs], [first.gt_classes[seen]], first.gt_masks[seen]
    )
    matched = min(
        permutations(range(QUERIES), len(seen)),
        key=lambda rows: sum(costs[row, place].item() for place, row in enumerate(rows)),
    )
    extra = pad_queries([outputs["queries"][0, list(matched)]])

    # Objects 1 and 2 stay, at these places of the second frame; 0 has left, and 3 is new.
    model.train()
    now = [place for place in range(4) if second.gt_ids[place] >= 0]
    assert (seen, now) == ([0, 1, 2], [1, 2, 3])
    targets = {
        "labels": second.gt_classes[now],
        "masks": second.gt_masks[now],
        "tracked": torch.tensor([-1, 0, 1]),
    }
    images = model.prepare_images(sample["image"][1:])
    outputs = model.sem_seg_head(model.backbone(images.tensor), extra_queries=extra)
    counts = {"masks": 3, "class_weights": 3 + 1 + 0.1 * (QUERIES - 1)}
    normalisers = {name: torch.tensor(count) for name, count in counts.items()}
    expected = model.criterion(outputs, [targets], normalisers)
    weights = model.criterion.weight_dict

    assert model.normalisers([sample]) == pytest.approx(counts)
    found = model([sample])
    assert found.keys() == expected.keys()
    for name, loss in found.items():
        torch.testing.assert_close(loss, weights[name] * expected[name], rtol=1e-5, atol=1e-6)


def test_the_first_frame_has_no_gradient_but_matters() -> None:
    model = track_model(FALSE_NEGATIVES=0.0).train()
    sample = annotated_pair(64, 64, [0, 1, 2], 1)
    sample["image"] = [image.float().requires_grad_() for image in sample["image"]]
    losses = model([sample])
    sum(losses.values()).backward()
    assert sample["image"][0].grad is None
    assert sample["image"][1].grad.any()
    sample["image"][0] = 255 - sample["image"][0]
    assert model([sample])["loss_ce"] != losses["loss_ce"]


@pytest.mark.parametrize("enabled", [False, True], ids=["float32", "autocast"])
def test_every_parameter_learns(enabled: bool) -> None:
    """Also under autocast, which keeps the weights that it casts for the first frame."""
    model = track_model(FALSE_NEGATIVES=0.0).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        losses = model([annotated_pair(64, 64, [0, 1, 2], 1)])
    sum(losses.values()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_what_is_drawn_depends_on_the_sample_alone() -> None:
    model = track_model(FALSE_NEGATIVES=0.5, FALSE_POSITIVES=0.5).train()
    sample = annotated_pair(64, 64, [0, 1, 2, 2, 1], 1)
    by_seed = {}
    for seed in range(8):
        for _ in range(2):  # whatever else is drawn in between
            by_seed.setdefault(seed, []).append(model([{**sample, "seed": seed}])["loss_ce"].item())
    assert all(one == other for one, other in by_seed.values())
    assert len({one for one, _ in by_seed.values()}) > 3


@pytest.mark.parametrize("classes", [[], [1]])
def test_pairs_with_nothing_to_see(classes: list[int]) -> None:
    """The second frame has no objects: all queries should say so."""
    model = track_model(FALSE_NEGATIVES=0.0, FALSE_POSITIVES=1.0).train()
    sample = annotated_pair(64, 64, classes, 1)
    assert model.normalisers([sample]) == pytest.approx(
        {"masks": 0, "class_weights": 0.1 * QUERIES + 2 * len(classes)}
    )
    losses = model([sample])
    assert losses["loss_mask"] == 0
    assert losses["loss_ce"] > 0


def test_wrong_samples() -> None:
    model = track_model().train()
    sample = annotated_pair(64, 64, [0, 1], 1)
    with pytest.raises(UserError, match="clip1.png: 1 frames.*INPUT.SAMPLING_FRAME_NUM"):
        model([{**sample, "instances": sample["instances"][:1]}])
    with pytest.raises(UserError, match="no `instances`"):
        model([{"image": sample["image"], "file_name": "a.png"}])
    with pytest.raises(UserError, match="classes 3 to 3"):
        model([annotated_pair(64, 64, [3], 1)])


def test_tracks_of_a_video() -> None:
    model = track_model(DETECTION_SCORE=0.3, TRACK_SCORE=0.0, DUPLICATE_OVERLAP=1.0)
    with torch.no_grad():
        (result,) = model([{"image": frames(4), "height": 25, "width": 35}])
    found = list(model.track(frames(4), (25, 35)))
    assert [frame.frame for frame in found] == [0, 1, 2, 3]
    ids = {number for frame in found for number in frame.track_ids}
    # Track queries go on, so that some are seen more than once.
    assert sum(len(frame.track_ids) for frame in found) > len(ids) > 1
    for frame in found:
        assert frame.masks.shape == (len(frame.track_ids), 25, 35)
        assert frame.masks.sum(0).max() <= 1
        assert frame.masks.flatten(1).any(1).all()
        assert not frame.class_probabilities.requires_grad
    assert result["image_size"] == (25, 35)
    assert len(result["pred_scores"]) == len(ids)
    assert result["pred_scores"] == sorted(result["pred_scores"], reverse=True)
    areas = sum(coco_mask.area(mask) for masks in result["pred_masks"] for mask in masks)
    assert areas == sum(int(frame.masks.sum()) for frame in found)


def test_the_first_frame_is_an_image() -> None:
    """Its tracks are the confident queries of the image model, at the size of the frame."""
    model = track_model(DETECTION_SCORE=0.3, DUPLICATE_OVERLAP=1.0)
    cfg = tiny_config()
    cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON = True
    images: MaskFormer = build_model(cfg).eval()
    images.load_state_dict(model.state_dict())
    (frame,) = frames(1)
    with torch.no_grad():
        (logits,) = images.predict_logits([{"image": frame}])
    scores = logits.mask_cls.softmax(-1)[:, :-1].amax(1)
    rows = [row for row in scores.argsort(descending=True) if scores[row] > 0.3]
    masks = torch.nn.functional.interpolate(
        logits.mask_pred[None, rows], (64, 96), mode="bilinear", align_corners=False
    )[0, :, :50, :70]
    winner = torch.where(masks.amax(0) > 0, masks.argmax(0), -1)
    expected = [winner == place for place in range(len(rows))]
    (found,) = model.track([frame], (50, 70))
    assert torch.equal(found.masks, torch.stack([mask for mask in expected if mask.any()]))


def test_frames_are_read_when_they_are_needed() -> None:
    read = []

    def video() -> Iterator[Tensor]:
        for number, frame in enumerate(frames(3)):
            read.append(number)
            yield frame

    for frame in track_model().track(video(), (50, 70)):
        assert read == list(range(frame.frame + 1))
