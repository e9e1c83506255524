"""Which models can have TEST.AUG and TEST.SLIDE, and the lines that say why others cannot."""

from __future__ import annotations

import re

import pytest
from torch import nn

from ddep.errors import UserError
from ddep.inference.inference_model import inference_model
from ddep.tasks import load_config, task_of

AUG, SLIDE = "TEST.AUG.ENABLED", "TEST.SLIDE.ENABLED"
PANOPTIC, INSTANCE = (f"MODEL.MASK_FORMER.TEST.{kind}_ON" for kind in ("PANOPTIC", "INSTANCE"))


def refused(meta_architecture: str, *words: str) -> str:
    """The line that the check of a run and prediction both end with."""
    cfg = load_config(
        "configs/Base-R50.yaml", ["MODEL.META_ARCHITECTURE", meta_architecture, *words]
    )
    with pytest.raises(UserError) as error:
        task_of(cfg).check_test_time(cfg)
    with pytest.raises(UserError) as again:
        inference_model(cfg, nn.Identity())
    assert str(again.value) == str(error.value)
    return str(error.value)


@pytest.mark.parametrize("key", [AUG, SLIDE])
@pytest.mark.parametrize("meta_architecture", ["DenoisingPretrainer", "ImageClassifier"])
def test_models_without_classes_of_pixels(meta_architecture: str, key: str) -> None:
    line = refused(meta_architecture, key, "True")
    assert f"{key} is True, but MODEL.META_ARCHITECTURE {meta_architecture} does " in line
    assert line.endswith(f"; set {key} to False")


def test_detectors_have_no_windows() -> None:
    assert f"set {SLIDE} to False" in refused("GeneralizedRCNN", SLIDE, "True", AUG, "True")


@pytest.mark.parametrize("key", [AUG, SLIDE])
@pytest.mark.parametrize("switch", [PANOPTIC, INSTANCE])
def test_segments_are_not_averaged(key: str, switch: str) -> None:
    line = refused("MaskFormer", key, "True", switch, "True")
    assert line.startswith(f"{key} is True, but so is {switch}: segments ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((SLIDE, "TEST.SLIDE.CROP_SIZE", "[64]"), "CROP_SIZE is .64.; expected two lengths"),
        ((SLIDE, "TEST.SLIDE.CROP_SIZE", "[64, 0]"), "CROP_SIZE is .64, 0.; expected two"),
        ((SLIDE, "TEST.SLIDE.STRIDE", "[64, 6.5]"), "STRIDE is .64, 6.5.; expected two"),
        ((SLIDE, "TEST.SLIDE.STRIDE", "[9, 513]"), r"at most TEST.SLIDE.CROP_SIZE \(512, 512\)"),
        ((AUG, "TEST.AUG.MIN_SIZES", "[]"), "TEST.AUG.MIN_SIZES is ..; expected lengths"),
        ((AUG, "TEST.AUG.MIN_SIZES", "[64, -1]"), "MIN_SIZES is .64, -1.; expected lengths"),
        ((AUG, "TEST.AUG.MAX_SIZE", "0"), "TEST.AUG.MAX_SIZE is 0; expected a length"),
    ],
)
@pytest.mark.parametrize("meta_architecture", ["MaskFormer", "SemanticSegmentor"])
def test_values_out_of_range(
    meta_architecture: str, words: tuple[str, str, str], message: str
) -> None:
    key, *rest = words
    line = refused(meta_architecture, key, "True", *rest)
    assert re.search(message, line), line
    # What is not enabled does not matter.
    cfg = load_config(
        "configs/Base-R50.yaml", ["MODEL.META_ARCHITECTURE", meta_architecture, *rest]
    )
    task_of(cfg).check_test_time(cfg)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("FRAMES", "-1"), "TEST.CLIP.FRAMES is -1; expected a whole number from 0 on"),
        (("FRAMES", "4", "TEST.CLIP.STRIDE", "5"), "STRIDE is 5; expected at most .* 4: .* gaps"),
        (("MAX_INSTANCES", "0"), "MAX_INSTANCES is 0; expected a whole number from 1 on"),
        (("NEW_THRESHOLD", "1.5"), "NEW_THRESHOLD is 1.5; expected a number from 0 to 1"),
        (("OVERLAP_WEIGHT", "-0.5"), "OVERLAP_WEIGHT is -0.5; expected 0 or more"),
    ],
)
def test_values_of_clips_out_of_range(words: tuple[str, ...], message: str) -> None:
    key, *rest = words
    line = refused("MaskFormer", f"TEST.CLIP.{key}", *rest)
    assert re.search(message, line), line


@pytest.mark.parametrize(
    ("meta_architecture", "keys"),
    [
        ("MaskFormer", (AUG, SLIDE)),
        ("SemanticSegmentor", (AUG, SLIDE)),
        ("GeneralizedRCNN", (AUG,)),
    ],
)
def test_others_pass(meta_architecture: str, keys: tuple[str, ...]) -> None:
    words = [word for key in keys for word in (key, "True")]
    cfg = load_config(
        "configs/Base-R50.yaml", ["MODEL.META_ARCHITECTURE", meta_architecture, *words]
    )
    task_of(cfg).check_test_time(cfg)


def test_without_either_the_model_stays_as_it_is() -> None:
    model = nn.Identity()
    for name in ("MaskFormer", "DenoisingPretrainer", "GeneralizedRCNN"):
        cfg = load_config("configs/Base-R50.yaml", ["MODEL.META_ARCHITECTURE", name])
        assert inference_model(cfg, model) is model
