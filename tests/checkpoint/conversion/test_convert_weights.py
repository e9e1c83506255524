"""Tests for all formats: recognition, sources of weights, fitting to a model."""

from __future__ import annotations

import pytest
import torch

from ddep.checkpoint.conversion import FORMATS, convert
from ddep.checkpoint.conversion.entries import children, find, joined, renamed
from ddep.errors import UserError
from tests.checkpoint.small_checkpoints import (
    DECODER,
    SETTINGS,
    SMALL,
    pretraining,
    segmentation,
    swin,
)

WEIGHTS = {"a.0.w": torch.ones(2, 3), "a.1.w": torch.zeros(1, 3), "b": torch.ones(4)}


@pytest.mark.parametrize(("expected", "file"), SMALL, ids=str)
def test_every_format_is_recognised_by_its_names_alone(expected: str, file: str) -> None:
    state = SMALL[expected, file]()
    assert [name for name, form in FORMATS.items() if form.recognises(state)] == [expected]
    conversion = convert(state, settings=SETTINGS.get(file.split("/")[0], dict)())
    assert conversion.format_name == expected
    assert conversion.weights.keys() == conversion.sources.keys()
    used = {source for sources in conversion.sources.values() for source in sources}
    assert used.isdisjoint(conversion.unused)
    assert used.union(conversion.unused) == state.keys()


def test_the_error_names_what_is_looked_for() -> None:
    with pytest.raises(UserError, match="nothing matches the format swin or resnet or") as caught:
        convert(WEIGHTS)
    for name, form in FORMATS.items():
        assert f"{form.LOOKED_FOR} ({name})" in str(caught.value)
    assert "found 3 weights, a.0.w, a.1.w, b, ..." in str(caught.value)
    with pytest.raises(UserError, match=r"the format vit: .*; looked for blocks\.0\.attn\.qkv\.w"):
        convert(swin(), "vit")


def test_weights_of_two_formats_are_ambiguous() -> None:
    state = {**swin(), **SMALL["resnet", "legacy.pth"]()}
    with pytest.raises(UserError, match="formats swin and resnet; choose one with --from"):
        convert(state)
    assert convert(state, "swin").format_name == "swin"


def test_converted_weights_are_not_converted_again() -> None:
    converted = convert(SMALL["resnet", "legacy.pth"]()).weights
    with pytest.raises(
        UserError,
        match="already have this project's names .*; name the file in MODEL.WEIGHTS as it",
    ):
        convert(converted)
    assert convert(converted, "detectron2").weights.keys() == converted.keys()
    bottom_up = {n.replace("backbone.", "backbone.bottom_up."): t for n, t in converted.items()}
    head = {"roi_heads.box_predictor.cls_score.weight": torch.ones(2, 3)}
    for detector in (converted | head, bottom_up | head, bottom_up):
        assert convert(detector).weights.keys() == converted.keys()


def test_fitting_resizes_reports_and_computes() -> None:
    state = swin()
    # This damaged index would lead outside the table.
    state["layers.1.blocks.0.attn.relative_position_index"][0, 0] = 10**9
    conversion = convert(state)
    table = "backbone.layers.0.blocks.0.attn.relative_position_bias_table"
    index = "backbone.layers.0.blocks.0.attn.relative_position_index"
    model = {name: tensor.to("meta") for name, tensor in conversion.weights.items()}
    model[table] = torch.empty(81, 1, device="meta")
    model[index] = torch.empty(25, 25, device="meta")
    del model["backbone.patch_embed.norm.bias"]
    model["backbone.norm0.weight"] = torch.empty(8, device="meta")
    model["backbone.new.relative_position_index"] = torch.empty(4, 4, device="meta")
    conversion.fit(model)
    assert conversion.resized == {table: ((25, 1), (81, 1)), index: ((9, 9), (25, 25))}
    assert conversion.missing == ["backbone.norm0.weight"]
    assert "patch_embed.norm.bias" in conversion.unused
    assert conversion.weights[index].max() == 80
    assert conversion.weights[index.replace("layers.0", "layers.1")].max() == 24
    assert conversion.weights["backbone.new.relative_position_index"].max() == 8
    assert not any(tensor.is_meta for tensor in conversion.weights.values())


def test_another_size_of_anything_else_is_refused() -> None:
    conversion = convert(swin())
    model = {**conversion.weights, "backbone.patch_embed.norm.bias": torch.ones(9)}
    with pytest.raises(
        UserError, match=r"norm\.bias is \(8,\) in the file and \(9,\) in the model"
    ):
        conversion.fit(model)


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match=r"no weight fits the model: found back.*expected c\.w"):
        convert(swin()).fit({"c.weight": torch.ones(1)})


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize("value", ["0.5", [0.5, 0.5], [0.5, None, 0.5], 0.5, [1, float("nan"), 1]])
def test_pixel_statistics_are_three_numbers(key: str, value: object) -> None:
    with pytest.raises(
        UserError, match=rf"config\.json: pretrained_cfg\.{key} is .*; expected thr"
    ):
        convert(swin(), "swin", {"pretrained_cfg": {key: value}})


def test_old_names_of_mask2former_are_renamed() -> None:
    state = segmentation()
    state["sem_seg_head.adapter_1.weight"] = torch.ones(1)
    state["criterion.empty_weight"] = torch.ones(5)
    conversion = convert(state)
    assert conversion.unused == []
    renames = {
        "sem_seg_head.predictor.query_feat.weight": "sem_seg_head.predictor.static_query.weight",
        f"{DECODER}.adapter_1.weight": "sem_seg_head.adapter_1.weight",
    }
    for target, sources in conversion.sources.items():
        assert sources == (renames.get(target, target),)
        assert conversion.weights[target] is state[sources[0]]
    state["sem_seg_head.predictor.query_feat.weight"] = torch.ones(4, 4)
    with pytest.raises(
        UserError, match=r"static_query\.weight and .* would both become .*query_fe"
    ):
        convert(state)


def test_pretraining_keeps_what_fine_tuning_loads() -> None:
    state = pretraining()
    conversion = convert(state)
    assert conversion.unused == ["denoising_head.conv.weight"]
    assert conversion.weights.keys() == state.keys() - {"denoising_head.conv.weight"}
    for name, tensor in conversion.weights.items():
        assert tensor is state[name]
        assert conversion.sources[name] == (name,)


@pytest.mark.parametrize(
    "name", ["backbone.fpn_lateral2.weight", "sem_seg_head.decoder.res2.fuse_conv.0.weight"]
)
def test_pretraining_of_other_decoders_keeps_them(name: str) -> None:
    kept = {"backbone.bottom_up.stem.conv1.weight": torch.ones(1), name: torch.ones(1)}
    conversion = convert({**kept, "denoising_head.conv.weight": torch.ones(4)})
    assert conversion.format_name == "ddep"
    assert conversion.weights.keys() == kept.keys()
    assert conversion.unused == ["denoising_head.conv.weight"]


def test_entries_are_made_of_one_or_several_weights() -> None:
    entry = joined(WEIGHTS, ("a.0.w", "a.1.w"))
    assert entry.sources == ("a.0.w", "a.1.w")
    assert torch.equal(entry.tensor, torch.tensor([[1.0] * 3, [1.0] * 3, [0.0] * 3]))
    with pytest.raises(UserError, match=r"different shapes: a\.0\.w is \(2, 3\), b is \(4,\)"):
        joined(WEIGHTS, ("a.0.w", "b"))
    with pytest.raises(UserError, match="c is not in the file, but others that go with it are"):
        joined(WEIGHTS, ("b", "c"))
    assert find(WEIGHTS, "b", 1) is WEIGHTS["b"]
    with pytest.raises(UserError, match=r"b has shape \(4,\); expected 2 dimensions, none empty"):
        find(WEIGHTS, "b", 2)
    assert children(WEIGHTS, "a.") == 2
    assert list(renamed(WEIGHTS, lambda name: f"x.{name}" if name != "b" else None)) == [
        "x.a.0.w",
        "x.a.1.w",
    ]
    with pytest.raises(UserError, match=r"a\.0\.w and a\.1\.w would both become x; the file"):
        renamed(WEIGHTS, lambda name: "x")
