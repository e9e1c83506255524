"""Exported files give what the model gives, at other sizes and without this project."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from ddep.errors import UserError
from ddep.export import ExportedModel, check_export, export_to_onnx, export_to_torch
from ddep.export.trace import exportable, trace
from tests.modeling.meta_arch.small_denoiser import noisy_input
from tests.modeling.meta_arch.small_denoiser import small_config as denoiser_config
from tests.modeling.meta_arch.small_mask_former import PANOPTIC, image_of_size, tiny_config

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

ROOT = Path(__file__).parents[2]
# One and two images; smaller and larger than the one that is traced, sides padded and not; Swin
# has a row and columns of windows that others lack.
SIZES = [(1, 64, 200), (2, 161, 130)]


def export(to: str, cfg: CfgNode, model: nn.Module, folder: Path, **options: object) -> Path:
    if to == "onnx":
        path = folder / "model.onnx"
        export_to_onnx(cfg, model, str(path), **options)
    else:
        path = folder / f"{to}.pt2"
        decompose = to == "decomposed"
        export_to_torch(cfg, model, str(path), decompose=decompose, **options)
    return path


def run_tool(*words: object) -> None:
    """tools/export.py, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export.py", *map(str, words)])
        runpy.run_path(str(ROOT / "tools" / "export.py"), run_name="__main__")


def images_of(batch: int, height: int, width: int) -> Tensor:
    """RGB images; models of BGR ones get them with ``flip(1)``."""
    return torch.stack([image_of_size(height, width, seed) for seed in range(batch)]).float()


@pytest.fixture(scope="module")
def mask2former() -> tuple[CfgNode, nn.Module]:
    """A Swin with shifted windows and both decoders, whose queries are of several classes."""
    torch.manual_seed(1)
    cfg = tiny_config(**PANOPTIC)
    cfg.MODEL.SWIN.DEPTHS = [1, 2, 1, 1]
    cfg.MODEL.MASK_FORMER.DEC_LAYERS = 2
    cfg.INPUT.FORMAT = "BGR"
    test = cfg.MODEL.MASK_FORMER.TEST
    test.SEMANTIC_ON = test.PANOPTIC_ON = test.INSTANCE_ON = True
    test.OBJECT_MASK_THRESHOLD = 0.3
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    model = build_model(cfg).eval()
    model.sem_seg_head.predictor.class_embed.weight.data *= 4
    return cfg, model


@pytest.fixture(scope="module")
def onnx_file(mask2former: tuple[CfgNode, nn.Module], tmp_path_factory) -> Path:
    """What the tool makes of a run's folder."""
    cfg, model = mask2former
    run = tmp_path_factory.mktemp("run")
    (run / "config.yaml").write_text(cfg.dump())
    torch.save({"model": model.state_dict()}, run / "model_final.pth")
    run_tool("--model", run, "--to", "onnx", "--output", run / "model.onnx", "--post-processing")
    return run / "model.onnx"


@pytest.fixture(scope="module")
def torch_file(mask2former: tuple[CfgNode, nn.Module], tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    return export("decomposed", *mask2former, folder, post_processing=True)


def agreement(one: Tensor, other: Tensor) -> float:
    return (one == other).float().mean().item()


def check_segmentations(model: nn.Module, exported: ExportedModel) -> None:
    for size in SIZES:
        images = images_of(*size)
        with torch.no_grad():
            expected = model([{"image": image} for image in images.flip(1)])
        found = exported(images=images)
        assert found.keys() == exported.description["outputs"].keys()
        for i, results in enumerate(expected):
            assert agreement(found["semantic"][i], results["sem_seg"].argmax(0)) > 0.999
            segments, about = results["panoptic_seg"]
            assert agreement(found["panoptic"][i], segments) > 0.999
            begins = found["segment_ids"][i] > 0
            assert found["segment_classes"][i][begins].tolist() == [
                segment["category_id"] for segment in about
            ]
            instances, kept = results["instances"], found["scores"][i] > 0
            assert len(instances) > 1 and instances.pred_masks.any()
            torch.testing.assert_close(
                found["scores"][i][kept], instances.scores, rtol=1e-3, atol=0
            )
            assert agreement(found["masks"][i][kept], instances.pred_masks) > 0.999
            boxes = instances.pred_boxes.tensor
            torch.testing.assert_close(found["boxes"][i][kept], boxes, rtol=0, atol=1.5)


def test_onnx_at_other_sizes(mask2former: tuple[CfgNode, nn.Module], onnx_file: Path) -> None:
    import onnx

    exported = ExportedModel(onnx_file)
    check_segmentations(mask2former[1], exported)
    assert exported.description["classes"] == PANOPTIC["stuff_classes"]
    assert exported.description["thing_ids"] == [1, 2]
    file = onnx.load(onnx_file)
    assert {node.domain for node in file.graph.node} == {""}
    assert "GridSample" in {node.op_type for node in file.graph.node}
    assert [entry.version for entry in file.opset_import if not entry.domain] == [20]


@pytest.mark.slow
def test_torch_at_other_sizes(mask2former: tuple[CfgNode, nn.Module], torch_file: Path) -> None:
    exported = ExportedModel(torch_file)
    check_segmentations(mask2former[1], exported)
    assert exported.description["needs_ddep"] is False


ALONE = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("ddep", "detectron2"):
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Blocked())
import torch
images, expected = torch.load(sys.argv[2])
if sys.argv[1].endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1])
    names = [output.name for output in session.get_outputs()]
    results = dict(zip(names, session.run(None, {"images": images.numpy()})))
    panoptic = torch.from_numpy(results["panoptic"])
else:
    panoptic = torch.export.load(sys.argv[1]).module()(images=images)["panoptic"]
assert (panoptic == expected).float().mean() > 0.999
assert "ddep" not in sys.modules
"""


@pytest.mark.parametrize("name", ["onnx_file", pytest.param("torch_file", marks=pytest.mark.slow)])
def test_without_this_project(
    name: str, request: pytest.FixtureRequest, mask2former, tmp_path: Path
) -> None:
    images = images_of(*SIZES[1])
    with torch.no_grad():
        results = mask2former[1]([{"image": image} for image in images.flip(1)])
    expected = torch.stack([result["panoptic_seg"][0] for result in results])
    torch.save((images, expected), tmp_path / "case.pt")
    path = request.getfixturevalue(name)
    command = [sys.executable, "-c", ALONE, str(path), str(tmp_path / "case.pt")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_this_projects_operators(mask2former: tuple[CfgNode, nn.Module], tmp_path: Path) -> None:
    """The graph calls them, and its logits are the model's to the bit."""
    path = export("operators", *mask2former, tmp_path, post_processing=False)
    program = torch.export.load(path)
    graphs = [part.graph for part in program.graph_module.modules() if hasattr(part, "graph")]
    targets = {str(node.target) for graph in graphs for node in graph.nodes}
    called = {target for target in targets if target.startswith("ddep.")}
    assert called == {"ddep.window_attention.default", "ddep.ms_deform_attn_fused.default"}
    exported, (_, model) = ExportedModel(path), mask2former
    for size in SIZES:
        images = images_of(*size)
        with torch.no_grad():
            expected = model.predict_logits([{"image": image} for image in images.flip(1)])
        found = exported(images=images)
        for i, logits in enumerate(expected):
            assert torch.equal(found["pred_logits"][i], logits.mask_cls)
            assert torch.equal(found["pred_masks"][i], logits.mask_pred)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["noise", "image"])
def test_denoiser(target: str, tmp_path: Path) -> None:
    cfg = denoiser_config()
    cfg.MODEL.DDEP.TARGET = target
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [103.0, 116.0, 123.0], [57.0, 58.0, 59.0]
    cfg.INPUT.FORMAT = "BGR"
    model = build_model(cfg).eval()
    exported = ExportedModel(export("onnx", cfg, model, tmp_path, post_processing=True))
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    for batch, height, width in SIZES:
        inputs = [noisy_input(i, height, width, 0.3 + i) for i in range(batch)]
        with torch.no_grad():
            expected = model(inputs)
        # What is in the input, as pixels: noise is on top of the image, not scaled.
        pixels = [(x["clean"] + x["sigma"] * x["noise"]) * std + mean for x in inputs]
        sigma = torch.tensor([x["sigma"] for x in inputs])
        found = exported(images=torch.stack(pixels).flip(1), sigma=sigma)
        for i, results in enumerate(expected):
            noise, denoised = found["noise"][i].flip(0), found["denoised"][i].flip(0)
            torch.testing.assert_close(noise, results["noise"], rtol=1e-3, atol=1e-3)
            pixels_of = results["denoised"] * std + mean
            torch.testing.assert_close(denoised, pixels_of, rtol=1e-3, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("post_processing", [False, True])
def test_per_pixel_with_a_timm_backbone(post_processing: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cfg = tiny_config(stuff_classes=["a", "b", "c"])
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.BACKBONE.NAME = "TimmBackbone"
    cfg.MODEL.DDEP.TIMM.NAME = "convnext_atto"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "PerPixelBaselineHead"
    cfg.INPUT.FORMAT = "RGB"
    model = build_model(cfg).eval()
    path = export("onnx", cfg, model, tmp_path, post_processing=post_processing)
    exported = ExportedModel(path)
    for size in SIZES:
        images = images_of(*size)
        with torch.no_grad():
            expected = model(
                [{"image": image, "height": size[1], "width": size[2]} for image in images]
            )
        scores = torch.stack([results["sem_seg"] for results in expected])
        if post_processing:
            assert agreement(exported(images=images)["semantic"], scores.argmax(1)) > 0.999
        else:
            found = exported(images=images)["sem_seg"]
            torch.testing.assert_close(found, scores, rtol=1e-3, atol=1e-4)


def test_wrong_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"model.onnx: --to torch writes a .pt2; name it so"):
        check_export("torch", str(tmp_path / "model.onnx"))
    with pytest.raises(UserError, match="--decompose is for --to torch"):
        check_export("onnx", str(tmp_path / "model.onnx"), decompose=True)
    with pytest.raises(UserError, match="--size is 0 5; expected height and width"):
        check_export("onnx", str(tmp_path / "model.onnx"), size=(0, 5))
    (tmp_path / "model.pt2").touch()
    with pytest.raises(UserError, match="exists; choose another name or add --overwrite"):
        check_export("torch", str(tmp_path / "model.pt2"))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"package onnxscript, .* pip install -e '\.\[export\]'"):
        check_export("onnx", str(tmp_path / "model.onnx"))


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a file that tools/export.py wrote"):
        ExportedModel(tmp_path / "absent.onnx")
    with pytest.raises(UserError, match="expected a .pt2 or .onnx file"):
        ExportedModel(tmp_path / "model.pth")
    for name in ("damaged.onnx", "damaged.pt2"):
        (tmp_path / name).write_bytes(b"no model")
        with pytest.raises(UserError, match=f"{name} cannot be read: "):
            ExportedModel(tmp_path / name)


def test_detectors_are_refused(tmp_path: Path) -> None:
    cfg = tiny_config()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    with pytest.raises(UserError, match="is GeneralizedRCNN, which --to onnx cannot express; exp"):
        export_to_onnx(cfg, nn.Identity(), str(tmp_path / "no.onnx"), post_processing=True)


def test_one_size(mask2former: tuple[CfgNode, nn.Module]) -> None:
    """Nothing is a symbol, whatever a backbone would make of it; padded and smaller than 33."""
    cfg, model = mask2former
    function = exportable(cfg, model, "torch", post_processing=False)
    program = trace(function, decompose=True, size=(30, 70))
    assert not program.range_constraints
    images = images_of(1, 30, 70)
    with torch.no_grad():
        [expected] = model.predict_logits([{"image": images[0].flip(0)}])
        found = program.module()(images=images)
    torch.testing.assert_close(found["pred_masks"][0], expected.mask_pred, rtol=1e-3, atol=1e-4)
