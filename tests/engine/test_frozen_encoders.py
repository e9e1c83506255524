"""MODEL.BACKBONE.FREEZE: an encoder that fine-tuning leaves as it is, in every kind of model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn

from ddep.checkpoint import read_checkpoint
from ddep.checkpoint.frozen_encoder import encoder_weights
from ddep.checkpoint.groups import group_of
from ddep.engine import Trainer, main, setup
from ddep.errors import UserError
from ddep.modeling.encoder import encoder_modules, encoder_parameters
from tests.engine.test_exact_resume import differences, state
from tests.engine.tiny_runs import (
    arguments,
    classification_config,
    detection_config,
    detr_config,
    one_thread,
    per_pixel_config,
    shapes_config,
    shapes_root,
)
from training_memory import SavedTensors

__all__ = ["one_thread"]

_TIMM = ("MODEL.BACKBONE.NAME", "TimmBackbone", "MODEL.DDEP.TIMM.NAME")
_VIT = (*_TIMM, "test_vit", "MODEL.DDEP.TIMM.DROP_PATH_RATE", 0.5)
_REIN = (*_VIT, "MODEL.REIN.ENABLED", True, "MODEL.REIN.TOKENS", 5, "MODEL.REIN.RANK", 2)
# The config of each kind of model, keys on top, and how the names of its encoder's weights start.
KINDS: dict[str, tuple[Callable[[Path], str], tuple[Any, ...], str]] = {
    "swin": (shapes_config, ("MODEL.SWIN.DROP_PATH_RATE", 0.5), "backbone."),
    "resnet": (partial(per_pixel_config, head="DeepLabV3PlusHead"), (), "backbone."),
    "timm": (shapes_config, (*_TIMM, "test_resnet"), "backbone."),
    "vit": (
        shapes_config,
        _VIT,
        "backbone.",
    ),
    "rein": (shapes_config, _REIN, "backbone.model."),
    "lora": (
        partial(per_pixel_config, head="PerPixelBaselineHead"),
        (*_VIT, "MODEL.LORA.RANK", 2, "SOLVER.LAYER_DECAY", 0.9),
        "backbone.model.",
    ),
    "fpn": (detection_config, (), "backbone.bottom_up."),
    "classifier": (classification_config, (), "backbone."),
    "detr": (detr_config, (), "backbone."),
}


@pytest.fixture(params=KINDS)
def words(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Any]]:
    make_config, keys, _ = KINDS[request.param]
    with shapes_root(tmp_path):
        common = ("MODEL.BACKBONE.FREEZE", True, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 2)
        yield ["--config-file", make_config(tmp_path), *keys, *common]


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return KINDS[request.node.callspec.params["words"]][2]


def weights_of(words: list[Any], path: Path) -> tuple[CfgNode, Path]:
    """The config with random weights for it, written to ``path``."""
    torch.save({}, path)
    cfg = setup(arguments(*words, "MODEL.WEIGHTS", path, "OUTPUT_DIR", path.parent / "unused"))
    torch.manual_seed(1)
    torch.save(Trainer.build_model(cfg).state_dict(), path)
    return cfg, path


def test_it_keeps_nothing_learns_nothing_and_stays_in_eval_mode(
    words: list[Any], prefix: str, tmp_path: Path
) -> None:
    cfg, _ = weights_of(words, tmp_path / "start.pth")
    model = Trainer.build_model(cfg)
    parameters = encoder_parameters(model)
    assert parameters and all(name.startswith(prefix) for name in parameters)
    (encoder,) = encoder_modules(model)
    model.eval()
    model.train()
    assert model.training
    assert not any(module.training for module in encoder.modules())

    saved: list[int] = []
    outputs: dict[str, torch.Tensor] = {}

    def after(_: nn.Module, __: object, features: dict[str, torch.Tensor]) -> None:
        saved.append(counter.bytes)
        outputs.update(features)

    encoder.register_forward_pre_hook(lambda *_: saved.append(counter.bytes))
    encoder.register_forward_hook(after)
    batch = next(iter(Trainer.build_train_loader(cfg)))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with EventStorage(), SavedTensors(without=model.parameters()) as counter:
        losses = model(batch)
    is_adapted = any(group_of(name) == "adapter" for name, _ in model.named_parameters())
    assert (saved[0] == saved[1]) is not is_adapted
    assert {feature.requires_grad for feature in outputs.values()} == {is_adapted}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) is (name not in parameters), name
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    trained = {
        parameter
        for group in Trainer.build_optimizer(cfg, model).param_groups
        for parameter in group["params"]
    }
    assert trained == set(model.parameters()) - set(parameters.values())


@pytest.mark.slow
def test_training_keeps_it_and_resumes_to_the_bit(
    words: list[Any], prefix: str, tmp_path: Path
) -> None:
    _, path = weights_of(words, tmp_path / "start.pth")
    words = [*words, "MODEL.WEIGHTS", path, "SOLVER.CHECKPOINT_PERIOD", 1]
    words += ["SOLVER.EMA.ENABLED", True]
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    trainer = Trainer(setup(arguments(*words, "OUTPUT_DIR", whole)))
    trainer.resume_or_load(resume=False)
    trainer.train()
    before, after = read_checkpoint(str(path))["model"], trainer.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    adapters = {name for name in before if group_of(name) == "adapter"}
    assert changed > adapters
    assert not any(name.startswith(prefix) for name in changed - adapters)
    saved = read_checkpoint(str(whole / "model_final.pth"))["model"]
    assert before.keys() - saved.keys() == encoder_weights(trainer.model).keys()

    interrupted.mkdir()
    shutil.copy(whole / "model_0000000.pth", interrupted)
    (interrupted / "last_checkpoint").write_text("model_0000000.pth")
    main(arguments("--resume", *words, "OUTPUT_DIR", interrupted))
    final = [state(folder / "model_final.pth") for folder in (whole, interrupted)]
    assert differences(*final) == []


def test_weights_are_needed(tmp_path: Path) -> None:
    with shapes_root(tmp_path):
        config = shapes_config(tmp_path)
        with pytest.raises(UserError, match="frozen but has no.* MODEL.BACKBONE.FREEZE False"):
            setup(arguments("--config-file", config, "MODEL.BACKBONE.FREEZE", True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*_REIN, "MODEL.REIN.TOKENS", 4], "TOKENS is 4, but MODEL.MASK_FORMER.NUM_OBJECT_QUERIES"),
        ([*_REIN, "MODEL.REIN.TOKENS", 1], "MODEL.REIN.TOKENS is 1; expected at least 2"),
        ([*_REIN, "MODEL.BACKBONE.FREEZE", False], "REIN.ENABLED is True, but MODEL.BACKBONE.FREE"),
        (["MODEL.LORA.RANK", 2], "LORA.RANK is 2, but MODEL.BACKBONE.NAME is D2SwinTransformer"),
        (
            [*_REIN, "MODEL.META_ARCHITECTURE", "ImageClassifier"],
            "LINK_QUERIES is True, but .* ImageClassifier has no queries; set it to False",
        ),
        (
            [*_REIN, "MODEL.META_ARCHITECTURE", "DenoisingPretrainer"],
            "denoising keeps the encoder as it is",
        ),
        (
            [*_REIN, "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5"],
            "LINK_QUERIES is True, but the transformer decoder is StandardTransformerDecoder",
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused(words: list[Any], message: str, tmp_path: Path) -> None:
    mapper = ["INPUT.DATASET_MAPPER_NAME", ""] if "MODEL.META_ARCHITECTURE" in words else []
    frozen = ["MODEL.BACKBONE.FREEZE", True, "MODEL.DDEP.FREEZE_BACKBONE", True]
    config = shapes_config(tmp_path)
    with pytest.raises(UserError, match=message):
        setup(arguments("--config-file", config, *frozen, *words, *mapper))
