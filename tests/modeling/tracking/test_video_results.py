from __future__ import annotations

import torch
from pycocotools import mask as coco_mask

from ddep.modeling.tracking import FrameTracks, video_results


def test_tracks_become_the_best_pairs_with_a_mask_in_each_frame() -> None:
    masks = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    one, other, later = [0.1, 0.6], [0.7, 0.2], [0.3, 0.65]
    frames = [
        FrameTracks(0, [1], torch.tensor([one]), masks[:1]),
        FrameTracks(1, [], torch.zeros(0, 2), torch.zeros(0, 4, 5, dtype=torch.bool)),
        # What is known of the first track in the end counts.
        FrameTracks(2, [1, 2], torch.tensor([later, other]), masks[1:]),
    ]
    found = video_results(frames, (4, 5), max_detections=3)
    assert found["image_size"] == (4, 5)
    torch.testing.assert_close(torch.tensor(found["pred_scores"]), torch.tensor([0.7, 0.65, 0.3]))
    assert found["pred_labels"] == [0, 1, 0]
    empty = torch.zeros(4, 5, dtype=torch.bool)
    expected = {1: [masks[0], empty, masks[1]], 2: [empty, empty, masks[2]]}
    for number, of_track in zip([2, 1, 1], found["pred_masks"], strict=True):
        decoded = [torch.from_numpy(coco_mask.decode(mask)).bool() for mask in of_track]
        assert torch.equal(torch.stack(decoded), torch.stack(expected[number]))
        assert isinstance(of_track[0]["counts"], str)


def test_every_track_once() -> None:
    masks = torch.ones(2, 4, 5, dtype=torch.bool)
    frame = FrameTracks(0, [3, 8], torch.tensor([[0.2, 0.6], [0.7, 0.2]]), masks)
    found = video_results([frame], (4, 5))
    torch.testing.assert_close(torch.tensor(found["pred_scores"]), torch.tensor([0.7, 0.6]))
    assert found["pred_labels"] == [0, 1]
