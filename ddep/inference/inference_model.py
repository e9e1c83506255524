"""The model that evaluation and prediction call, with what TEST.AUG and TEST.SLIDE add to it."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNNWithTTA
from torch import nn

from ddep.inference.sliding import SlidingWindowSegmentor
from ddep.inference.test_time_augmentation import ScalesAndFlips, SemanticSegmentorWithTTA
from ddep.tasks import task_of

# KEY, VALUE, ... for a config of which the network itself is called, on whole images. With
# TEST.AUG, mappers would not resize them.
NO_AVERAGING = ("TEST.AUG.ENABLED", "False", "TEST.SLIDE.ENABLED", "False")


def inference_model(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Give a model the test-time augmentation and the sliding windows of its config.

    With both, every scale and flip of an image is cut into windows. Detectors get detectron2's own
    augmentation, which joins the boxes of all versions and averages the masks in them.

    Args:
        cfg: the model's config; reads TEST.AUG and TEST.SLIDE.
        model: its weights may change later.

    Returns:
        A model that takes the inputs of ``model``, from a mapper of the same config, and gives
        outputs of the same form. ``model`` itself if neither is enabled.

    Raises:
        UserError: see :meth:`ddep.tasks.Task.check_test_time`.
    """
    task = task_of(cfg)
    task.check_test_time(cfg)
    aug, slide = cfg.TEST.AUG.ENABLED, cfg.TEST.SLIDE
    if aug and not task.class_scores:
        versions = ScalesAndFlips(cfg)
        detector = GeneralizedRCNNWithTTA(cfg, model, lambda inputs: list(versions(inputs)))
        detector.training = model.training
        return detector
    if slide.ENABLED:
        model = SlidingWindowSegmentor(
            model, crop_size=slide.CROP_SIZE, stride=slide.STRIDE, class_scores=task.class_scores
        )
    if aug:
        model = SemanticSegmentorWithTTA(model, ScalesAndFlips(cfg), task.class_scores)
    return model
