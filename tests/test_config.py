"""Shipped configs load, and mistakes in configs are explained in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddep.errors import UserError
from ddep.tasks import load_config, task_of

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_config_loads(path: Path) -> None:
    cfg = load_config(str(path))
    assert cfg.VERSION == 2
    if not path.name.startswith("Base-"):
        assert cfg.INPUT.DATASET_MAPPER_NAME in task_of(cfg).mappers
        if cfg.MODEL.META_ARCHITECTURE == "MaskFormer":
            is_deformable = cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME == "MSDeformAttnPixelDecoder"
            assert is_deformable == ("maskformer" not in path.name)


def assert_values(config: str, expected: dict[str, Any]) -> None:
    """Check values in a shipped config; ``config`` is its path without the ending."""
    cfg = load_config(str(CONFIGS / f"{config}.yaml"))
    for key, value in expected.items():
        node = cfg
        for word in key.split("."):
            node = node[word]
        found = list(node) if isinstance(value, list) else node
        assert found == value, key


def test_bases_are_merged_in_order() -> None:
    cfg = load_config(str(CONFIGS / "ddep_swin.yaml"), ["SOLVER.MAX_ITER", "7"])
    assert cfg.MODEL.SWIN.EMBED_DIM == 128
    assert cfg.MODEL.META_ARCHITECTURE == "DenoisingPretrainer"
    assert cfg.SOLVER.MAX_ITER == 7


@pytest.mark.parametrize(
    ("yaml_text", "overrides", "message"),
    [
        ("MODEL:\n  DDEP:\n    MULTISCALE: True\n", [], "did you mean MODEL.DDEP.MULTI_SCALE"),
        ("VERSION: 2\n", ["MODEL.DDEP.MULTISCALE", "True"], "did you mean MODEL.DDEP.MULTI_SCALE"),
        ("VERSION: 2\n", ["SOLVER.MAX_ITER"], "pairs; found 1 words: SOLVER.MAX_ITER"),
        ("VERSION: 2\n", ["SOLVER.MAX_ITER", "many"], "MAX_ITER is many; expected a whole number"),
        ("MODEL: [\n", [], "wrong.yaml: while parsing a flow node expected the node content"),
        ("_BASE_: absent.yaml\n", [], "absent.yaml: No such file or directory"),
        ("_BASE_: wrong.yaml\n", [], "leads back to the file itself"),
        ("_BASE_: 3\n", [], "expected KEY: VALUE lines"),
        ("", [], "expected KEY: VALUE lines"),
        ("- MODEL\n", [], "expected KEY: VALUE lines"),
        ("MODEL\n", [], "expected KEY: VALUE lines"),
        ("VERSION: 1\n", [], "VERSION is 1; expected 2"),
        ("1: 2\n", [], "unknown config key 1"),
        ("MODEL: 3\n", [], "MODEL is 3; expected keys below it, such as MODEL."),
        ("VERSION: 2\n", ["MODEL", "3"], "MODEL is '3'; expected keys below it"),
        (
            "MODEL:\n  DDEP:\n    SIGMA: 0.3\n",
            [],
            "MODEL.DDEP.SIGMA is 0.3; expected a list such as [0.48]",
        ),
        ("VERSION: 2\n", ["MODEL.DDEP.SIGMA", "0.3"], "command line: MODEL.DDEP.SIGMA is 0.3; exp"),
        (
            "VERSION: 2\n",
            ["SOLVER.BASE_LR", "low"],
            "SOLVER.BASE_LR is low; expected a number such",
        ),
        (
            "VERSION: 2\n",
            ["SOLVER.MAX_ITER", "1.5"],
            "is 1.5; expected a whole number such as 40000",
        ),
        (
            "VERSION: 2\n",
            ["SOLVER.AMP.ENABLED", "yes"],
            "AMP.ENABLED is yes; expected True or False",
        ),
        ("OUTPUT_DIR: 7\n", [], "OUTPUT_DIR is 7; expected text such as ./output"),
        (
            "VERSION: 2\n",
            ["SEED", "1", "--resume"],
            "--resume must come before the KEY VALUE pairs",
        ),
    ],
)
def test_mistake_is_one_line(
    tmp_path: Path, yaml_text: str, overrides: list[str], message: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml_text)
    with pytest.raises(UserError) as error:
        load_config(str(path), overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml does not exist"):
        load_config("absent.yaml")
    with pytest.raises(UserError, match="is a folder; expected a YAML file"):
        load_config(str(tmp_path))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"SEED: \xff\n")
    with pytest.raises(UserError, match=r"binary\.yaml: not UTF-8 text"):
        load_config(str(binary))


@pytest.mark.parametrize(
    ("key", "word", "expected"),
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.MAX_ITER", "1e5", 100000),
        ("SOLVER.STEPS", "[3, 5]", (3, 5)),
        ("DATASETS.TEST", "()", ()),
        ("OUTPUT_DIR", "2024", "2024"),
        ("MODEL.SWIN.QK_SCALE", "0.5", 0.5),
        ("MODEL.DDEP.LOSS", "'l1'", "l1"),
    ],
)
def test_values_take_the_type_of_their_key(
    tmp_path: Path, key: str, word: str, expected: Any
) -> None:
    from_word, from_file = tmp_path / "empty.yaml", tmp_path / "set.yaml"
    from_word.write_text("VERSION: 2\n")
    from_file.write_text(f'{key}: "{word}"\n')
    for cfg in (load_config(str(from_word), [key, word]), load_config(str(from_file))):
        for name in key.split("."):
            cfg = cfg[name]
        assert cfg == expected
        assert type(cfg) is type(expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            "coco/panoptic/mask2former_R50",
            {
                "SOLVER.MAX_ITER": 368750,
                "SOLVER.STEPS": (327778, 355092),
                "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
                "INPUT.IMAGE_SIZE": 1024,
                "INPUT.MIN_SCALE": 0.1,
                "INPUT.MAX_SCALE": 2.0,
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 133,
            },
        ),
        (
            "ade20k/semantic/mask2former_R50",
            {
                "SOLVER.MAX_ITER": 160000,
                "SOLVER.LR_SCHEDULER_NAME": "WarmupPolyLR",
                "INPUT.CROP.SIZE": [512, 512],
                "INPUT.MIN_SIZE_TRAIN": tuple(int(0.1 * x * 512) for x in range(5, 21)),
                "INPUT.MAX_SIZE_TRAIN": 2048,
                "INPUT.COLOR_AUG_SSD": True,
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 150,
            },
        ),
        (
            "ade20k/semantic/mask2former_swin_base",
            {
                "INPUT.CROP.SIZE": [640, 640],
                "INPUT.MIN_SIZE_TRAIN": tuple(int(0.1 * x * 640) for x in range(5, 21)),
                "MODEL.SWIN.EMBED_DIM": 128,
                "MODEL.SWIN.WINDOW_SIZE": 12,
            },
        ),
        (
            "cityscapes/semantic/mask2former_R50",
            {
                "SOLVER.MAX_ITER": 90000,
                "SOLVER.LR_SCHEDULER_NAME": "WarmupPolyLR",
                "INPUT.CROP.SIZE": [512, 1024],
                "INPUT.MIN_SIZE_TRAIN": tuple(int(0.1 * x * 1024) for x in range(5, 21)),
                "MODEL.RESNETS.NORM": "SyncBN",
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
            },
        ),
    ],
)
def test_fine_tuning_has_the_published_schedule(config: str, expected: dict[str, Any]) -> None:
    """Mask2Former, arXiv 2112.01527, section 4.1 and appendix, and its published configs."""
    everywhere = {
        "SOLVER.IMS_PER_BATCH": 16,
        "SOLVER.BASE_LR": 0.0001,
        "SOLVER.WEIGHT_DECAY": 0.05,
        "SOLVER.BACKBONE_MULTIPLIER": 0.1,
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.01,
        "MODEL.MASK_FORMER.CLASS_WEIGHT": 2.0,
        "MODEL.MASK_FORMER.MASK_WEIGHT": 5.0,
        "MODEL.MASK_FORMER.DICE_WEIGHT": 5.0,
        "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT": 0.1,
        "MODEL.MASK_FORMER.DEC_LAYERS": 10,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 100,
        "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 12544,
        "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 6,
    }
    assert_values(f"finetune/{config}", everywhere | expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            "ade20k/semantic/per_pixel_baseline_R50",
            {"MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead"},
        ),
        (
            "ade20k/semantic/per_pixel_baseline_plus_R50",
            {
                "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselinePlusHead",
                "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
                "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 150,
                "MODEL.MASK_FORMER.DROPOUT": 0.1,
                "MODEL.MASK_FORMER.DEC_LAYERS": 6,
            },
        ),
    ],
)
def test_per_pixel_baselines_have_the_published_hyper_parameters(
    config: str, expected: dict[str, Any]
) -> None:
    """MaskFormer's published configs (arXiv 2107.06278)."""
    everywhere = {
        "SOLVER.IMS_PER_BATCH": 16,
        "SOLVER.MAX_ITER": 160000,
        "SOLVER.BASE_LR": 0.0001,
        "SOLVER.WEIGHT_DECAY": 0.0001,
        "SOLVER.BACKBONE_MULTIPLIER": 0.1,
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.01,
        "SOLVER.AMP.ENABLED": False,
        "INPUT.SIZE_DIVISIBILITY": 512,
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 150,
    }
    assert_values(f"finetune/{config}", everywhere | expected)


def test_deeplab_has_the_schedule_of_detectron2() -> None:
    """detectron2's projects/DeepLab, but with a ResNet-50 instead of a ResNet-103."""
    assert_values(
        "finetune/cityscapes/semantic/deeplab_v3_plus_R50",
        {
            "SOLVER.OPTIMIZER": "SGD",
            "SOLVER.IMS_PER_BATCH": 16,
            "SOLVER.MAX_ITER": 90000,
            "SOLVER.BASE_LR": 0.01,
            "SOLVER.BACKBONE_MULTIPLIER": 1.0,
            "SOLVER.WEIGHT_DECAY": 0.0001,
            "SOLVER.WARMUP_ITERS": 1000,
            "SOLVER.CLIP_GRADIENTS.ENABLED": False,
            "INPUT.MIN_SIZE_TRAIN": (512, 768, 1024, 1280, 1536, 1792, 2048),
            "INPUT.CROP.SIZE": [512, 1024],
            "INPUT.COLOR_AUG_SSD": False,
            "MODEL.RESNETS.RES5_DILATION": 2,
            "MODEL.RESNETS.RES5_MULTI_GRID": [1, 2, 4],
            "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [6, 12, 18],
            "MODEL.SEM_SEG_HEAD.LOSS_TYPE": "hard_pixel_mining",
        },
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            "coco/panoptic/maskformer_R50",
            {
                "SOLVER.BASE_LR": 0.0001,
                "SOLVER.WEIGHT_DECAY": 0.0001,
                "SOLVER.BACKBONE_MULTIPLIER": 0.1,
                "SOLVER.WARMUP_FACTOR": 1.0,
                "SOLVER.WARMUP_ITERS": 10,
                "INPUT.MAX_SIZE_TRAIN": 1333,
                "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "TransformerEncoderPixelDecoder",
                "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 6,
                "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "transformer_encoder",
                "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ": False,
                "MODEL.RESNETS.DEPTH": 50,
            },
        ),
        (
            "coco/panoptic/maskformer_swin_large",
            {
                "SOLVER.BASE_LR": 0.00006,
                "SOLVER.WEIGHT_DECAY": 0.01,
                "SOLVER.BACKBONE_MULTIPLIER": 1.0,
                "SOLVER.WARMUP_FACTOR": 1e-6,
                "SOLVER.WARMUP_ITERS": 1500,
                "INPUT.MAX_SIZE_TRAIN": 1000,
                "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
                "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
                "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ": True,
                "MODEL.SWIN.EMBED_DIM": 192,
                "MODEL.SWIN.WINDOW_SIZE": 12,
                "MODEL.SWIN.DROP_PATH_RATE": 0.3,
            },
        ),
    ],
)
def test_maskformer_has_the_published_hyper_parameters(
    config: str, expected: dict[str, Any]
) -> None:
    """MaskFormer, arXiv 2107.06278, section 4.1 and appendix, and its published configs."""
    everywhere = {
        "SOLVER.IMS_PER_BATCH": 64,
        "SOLVER.MAX_ITER": 554400,
        "SOLVER.STEPS": (369600,),
        "SOLVER.GAMMA": 0.1,
        "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.01,
        "INPUT.DATASET_MAPPER_NAME": "detr_panoptic",
        "INPUT.MIN_SIZE_TRAIN": (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        "INPUT.CROP.TYPE": "absolute_range",
        "INPUT.CROP.SIZE": [384, 600],
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 133,
        "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "StandardTransformerDecoder",
        "MODEL.MASK_FORMER.CLASS_WEIGHT": 1.0,
        "MODEL.MASK_FORMER.MASK_WEIGHT": 20.0,
        "MODEL.MASK_FORMER.DICE_WEIGHT": 1.0,
        "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT": 0.1,
        "MODEL.MASK_FORMER.DROPOUT": 0.1,
        "MODEL.MASK_FORMER.DEC_LAYERS": 6,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 100,
        "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": 0,
        "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": 0.8,
        "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": 0.8,
        "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": True,
        "MODEL.DDEP.MASK_LOSS": "dense",
    }
    assert_values(f"finetune/{config}", everywhere | expected)


def test_mask_rcnn_has_the_recipe_of_torchvisions_tutorial() -> None:
    epoch = 60  # 120 images in batches of 2
    recipe = {
        "SOLVER.OPTIMIZER": "SGD",
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.BASE_LR": 0.005,
        "SOLVER.BACKBONE_MULTIPLIER": 1.0,
        "SOLVER.MOMENTUM": 0.9,
        "SOLVER.WEIGHT_DECAY": 0.0005,
        "SOLVER.WEIGHT_DECAY_NORM": 0.0005,
        "SOLVER.CLIP_GRADIENTS.ENABLED": False,
        "SOLVER.MAX_ITER": 10 * epoch,
        "SOLVER.STEPS": (3 * epoch, 6 * epoch, 9 * epoch),
        "SOLVER.GAMMA": 0.1,
        "SOLVER.WARMUP_ITERS": epoch - 1,
        "SOLVER.WARMUP_FACTOR": 0.001,
        "MODEL.BACKBONE.FREEZE_AT": 2,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
        "INPUT.MIN_SIZE_TRAIN": (800,),
        "INPUT.MAX_SIZE_TRAIN": 1333,
        "INPUT.RANDOM_FLIP": "horizontal",
    }
    for kind in ("mask", "faster"):
        config = f"finetune/penn_fudan/instance/{kind}_rcnn_R50_FPN"
        assert_values(config, recipe | {"MODEL.MASK_ON": kind == "mask"})
