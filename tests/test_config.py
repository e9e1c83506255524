"""Every shipped config loads, and mistakes in configs are explained in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddep.config import load_config
from ddep.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_config_loads(path: Path) -> None:
    cfg = load_config(str(path))
    assert cfg.VERSION == 2
    if not path.name.startswith("Base-"):
        assert cfg.MODEL.META_ARCHITECTURE in ("DenoisingPretrainer", "MaskFormer")
        denoises = cfg.MODEL.META_ARCHITECTURE == "DenoisingPretrainer"
        assert denoises == (cfg.INPUT.DATASET_MAPPER_NAME == "ddep_denoising")
        assert cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME == "MSDeformAttnPixelDecoder"


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
        ("VERSION: 2\n", ["SOLVER.MAX_ITER"], "KEY VALUE pairs"),
        ("VERSION: 2\n", ["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
        ("MODEL: [\n", [], "bad.yaml"),
        ("_BASE_: absent.yaml\n", [], "absent.yaml"),
    ],
)
def test_mistake_is_one_line(
    tmp_path: Path, yaml_text: str, overrides: list[str], message: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml_text)
    with pytest.raises(UserError) as error:
        load_config(str(path), overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"absent\.yaml does not exist"):
        load_config("absent.yaml")
