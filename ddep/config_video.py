"""The config keys of models of videos; those of clips in training are Mask2Former-video's."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_video_config(cfg: CfgNode) -> None:
    """Add the keys to ``cfg``, in place."""
    _add_training_clips(cfg)
    _add_test_clips(cfg)
    _add_track_queries(cfg)


def _add_training_clips(cfg: CfgNode) -> None:
    # Frames of a training clip.
    cfg.INPUT.SAMPLING_FRAME_NUM = 2
    # They are at most this many frames away from one of them, which is drawn uniformly.
    cfg.INPUT.SAMPLING_FRAME_RANGE = 20
    # Whether their order is random.
    cfg.INPUT.SAMPLING_FRAME_SHUFFLE = False
    # Any of brightness, contrast, saturation (by up to a tenth) and rotation (up to 15 degrees).
    # MIN_SIZE_TRAIN_SAMPLING choice_by_clip or range_by_clip, and RANDOM_FLIP flip_by_clip, do the
    # same to all frames of a clip.
    cfg.INPUT.AUGMENTATIONS = []


def _add_test_clips(cfg: CfgNode) -> None:
    # Largest number of instances of a video in evaluation: pairs of a query or track and a class.
    cfg.TEST.DETECTIONS_PER_VIDEO = 10
    # Evaluation and prediction cut videos into clips of this many frames, whose instances are
    # linked; 0 takes whole videos in evaluation, as Mask2Former-video does, whose memory grows with
    # the video. Prediction, whose videos may have any length, then takes clips of 8.
    clip = cfg.TEST.CLIP = CfgNode()
    clip.FRAMES = 0
    # Frames from one clip to the next; less than FRAMES makes them overlap. 0 is half of FRAMES
    # (at least 1).
    clip.STRIDE = 0
    # Queries whose best class is less probable are no instances of a clip; of the others, the best
    # MAX_INSTANCES are. Those of at least NEW_THRESHOLD can start a track.
    clip.SCORE_THRESHOLD = 0.1
    clip.NEW_THRESHOLD = 0.3
    clip.MAX_INSTANCES = 50
    # Instances are assigned to tracks so that the sum of scores is largest. The score of a pair is
    # OVERLAP_WEIGHT times the intersection over union of the masks in the frames that two clips
    # share (if they share none, in neighbouring frames), plus SIMILARITY_WEIGHT times the cosine of
    # their queries' embeddings. Pairs that overlap less than MIN_OVERLAP are not made.
    clip.OVERLAP_WEIGHT = 1.0
    clip.SIMILARITY_WEIGHT = 0.5
    clip.MIN_OVERLAP = 0.1
    # A track that was not continued is found again as an instance whose cosine is at least this;
    # it ends when it was not seen in more than MAX_GAP frames.
    clip.REFIND_THRESHOLD = 0.8
    clip.MAX_GAP = 30


def _add_track_queries(cfg: CfgNode) -> None:
    # In training, the probability that an object of the first frame has no track query in the
    # second, and must be found again; and for each one that has, that a query without an object is
    # added to the track queries.
    track_former = cfg.MODEL.TRACKFORMER = CfgNode()
    track_former.FALSE_NEGATIVES = 0.4
    track_former.FALSE_POSITIVES = 0.1
    # In evaluation and prediction, the least probability of the best class with which a learned
    # query begins a track, and a track query continues one.
    track_former.DETECTION_SCORE = 0.4
    track_former.TRACK_SCORE = 0.4
    # Of two queries whose masks have a larger intersection over union, one is dropped.
    track_former.DUPLICATE_OVERLAP = 0.9
    # A track is looked for in this many frames after the last one in which it was found.
    track_former.PATIENCE = 5
