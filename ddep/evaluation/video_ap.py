"""Average precision of tracks, as the YouTube-VIS API defines it (arXiv 1905.04804, section 3).

It is COCO's average precision with videos for images and tracks for objects: the IoU of two tracks
is the sum over frames of their intersections by the sum of their unions, and an object is small,
medium or large by its mean area in the frames where it is seen.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ddep.evaluation.mask_overlaps import video_ious
from ddep.evaluation.video_tracks import VideoTrack

# In the order of COCOeval's statistics.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10")
# Square pixels: all, small, medium, large.
_AREA_RANGES = [[0, 1e5**2], [0, 128**2], [128**2, 256**2], [256**2, 1e5**2]]


class _VideoEval(COCOeval):
    """pycocotools' matching and accumulation, with videos for images."""

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:
        """The IoU of tracks. Unlike COCO's, that with a crowd is no other one."""
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-track["score"] for track in found], kind="mergesort")
        best = [found[i]["masks"] for i in order[: self.params.maxDets[-1]]]
        return video_ious(best, [track["masks"] for track in truth])


def video_average_precision(
    truth: Mapping[int, Sequence[VideoTrack]],
    predictions: Mapping[int, Sequence[VideoTrack]],
    class_names: Sequence[str],
) -> dict[str, float]:
    """The measures of YouTube-VIS over a data set.

    Args:
        truth: the tracks of each video, by its id.
        predictions: the same; videos without any may be missing.
        class_names: of the contiguous classes.

    Returns:
        AP (over IoU 0.5 to 0.95), AP50, AP75, APs, APm, APl (of objects below 128 x 128 pixels, up
        to 256 x 256, and above), AR1, AR10 (recall of the best 1 and 10 tracks of a video) and
        ``AP-<class>``, in percent; NaN where there is nothing to find.
    """
    # "bbox", because pycocotools would look for one mask of each object.
    evaluation = _VideoEval(iouType="bbox")
    evaluation.cocoGt = _coco(truth, sorted(truth), len(class_names))
    evaluation.cocoDt = _coco(predictions, sorted(truth), len(class_names))
    params = evaluation.params
    params.imgIds, params.catIds = sorted(truth), list(range(len(class_names)))
    params.areaRng = _AREA_RANGES
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    results = dict(zip(METRICS, map(_percent, evaluation.stats), strict=False))
    precisions = evaluation.eval["precision"]  # IoU threshold, recall, class, area range, maxDets
    for i, name in enumerate(class_names):
        of_class = precisions[:, :, i, 0, -1]
        known = of_class[of_class > -1]
        results[f"AP-{name}"] = _percent(known.mean() if known.size else -1)
    return results


def _coco(
    tracks: Mapping[int, Sequence[VideoTrack]], videos: Sequence[int], num_classes: int
) -> COCO:
    coco = COCO()
    annotations = [
        {
            "image_id": video,
            "category_id": track.category,
            "masks": track.masks,
            "area": track.area,
            "iscrowd": int(track.iscrowd),
            "score": track.score,
        }
        for video in videos
        for track in tracks.get(video, ())
    ]
    # pycocotools takes an id of 0 for "no match".
    coco.dataset = {
        "images": [{"id": video} for video in videos],
        "categories": [{"id": i} for i in range(num_classes)],
        "annotations": [{"id": i, **entry} for i, entry in enumerate(annotations, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _percent(share: float) -> float:
    return 100 * float(share) if share >= 0 else float("nan")
