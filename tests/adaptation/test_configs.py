"""The shipped configs of adaptation fit their methods, and their models can be adapted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY

from ddep.adaptation import adapts, check_adaptation, method_of
from ddep.data.pseudo_labels import KEY
from ddep.errors import UserError
from ddep.tasks import load_config, task_of

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(
    path
    for pattern in ("adapt/gta5/*.yaml", "adapt/synthia/*.yaml", "demo/adapt_*.yaml")
    for path in CONFIGS.glob(pattern)
    if not path.name.startswith("Base-")
)


def test_each_method_has_configs_of_both_models_and_sources() -> None:
    names = {str(path.relative_to(CONFIGS)) for path in FILES}
    methods = ("minent", "advent", "adaptsegnet", "teacher", "sac", "unimatch", "proda")
    for source in ("gta5", "synthia"):
        for model in ("deeplab", "mask2former"):
            assert {f"adapt/{source}/{model}_{method}.yaml" for method in methods} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_methods_accept_their_configs(path: Path) -> None:
    cfg = load_config(str(path))
    assert adapts(cfg) == bool(cfg.DATASETS.TARGET)
    assert cfg.OUTPUT_DIR.split("/")[-1].removeprefix("demo_").startswith("adapt_")
    if cfg.MODEL.ADAPTATION.PSEUDO_LABELS:  # nobody has written them
        with pytest.raises(UserError, match=KEY):
            check_adaptation(cfg)
    else:
        check_adaptation(cfg)
    if adapts(cfg):
        task_of(cfg).check_adaptation(cfg)
    if path.parent.parent.name == "adapt":
        assert list(cfg.DATASETS.TRAIN) == [f"{path.parent.name}_sem_seg_all"]
        assert cfg.DATASETS.TEST == ("cityscapes_fine_sem_seg_val",)
        assert cfg.DATASETS.TARGET in ((), ("cityscapes_fine_sem_seg_train",))


@pytest.mark.parametrize("model", ["deeplab", "mask2former"])
def test_their_models_can_be_built_and_adapted(model: str) -> None:
    cfg = load_config(str(CONFIGS / f"adapt/synthia/{model}_advent.yaml"))
    with torch.device("meta"):
        network = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
        classifier = task_of(cfg).pixel_classifier(cfg, network)
        method = method_of(cfg)(cfg, classifier.num_classes)
    assert classifier.num_classes == 19
    assert len(list(method.parameters())) > 0
