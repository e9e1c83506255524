from __future__ import annotations

import json
import shutil
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddep.errors import UserError
from ddep.inference import Predictor
from ddep.tasks import load_config
from ddep.web import analysis as of_analysis
from ddep.web.analysis import INSTANCES, PANOPTIC, SEMANTIC, analyse, ask, with_thresholds
from ddep.web.downloads import write_results
from ddep.web.models import MAX_LOADED, Model, Models
from ddep.web.runs import find_runs
from ddep.web.visit import Visit
from tests.web.tiny_models import write_image


@pytest.fixture(scope="module")
def models(runs: Path) -> Models:
    return Models(find_runs([runs]))


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = write_image(tmp_path_factory.mktemp("images") / "a.png")
    return np.asarray(Image.open(path))


def test_views_are_what_the_model_predicts(models: Models, runs: Path, photograph) -> None:
    result = analyse(models.get("panoptic"), "a.png", photograph)
    expected = Predictor(runs / "panoptic")
    outputs = expected.model([expected.inputs(photograph)])[0]
    assert list(result.views) == [PANOPTIC, SEMANTIC, INSTANCES]
    ids, segments = outputs["panoptic_seg"]
    assert len(segments) > 1
    seen = result.views[PANOPTIC].seen()
    for position, info in enumerate(segments):
        np.testing.assert_array_equal(seen == position, ids.numpy() == info["id"])
    semantic = result.views[SEMANTIC]
    classes = np.array([segment.class_id for segment in semantic.found])[semantic.seen()]
    np.testing.assert_array_equal(classes, outputs["sem_seg"].argmax(0).numpy())
    instances = result.views[INSTANCES]
    best = outputs["instances"].scores.argmax()
    assert instances.found[-1].score == pytest.approx(float(outputs["instances"].scores[best]))
    np.testing.assert_array_equal(
        instances.mask(len(instances.found) - 1), outputs["instances"].pred_masks[best].numpy() > 0
    )


def test_thresholds_act_without_the_model(models: Models, photograph, monkeypatch) -> None:
    model = models.get("panoptic")
    result = analyse(model, "a.png", photograph)
    monkeypatch.setattr(model.network, "predict_logits", None)
    none = with_thresholds(result, {"object_mask_threshold": 1.0, "overlap_threshold": 0.0})
    assert len(result.views[PANOPTIC].found) > 0 and len(none.views[PANOPTIC].found) == 0
    again = with_thresholds(none, result.thresholds)
    np.testing.assert_array_equal(again.views[PANOPTIC].seen(), result.views[PANOPTIC].seen())


def test_a_segments_query_is_the_one_that_owns_its_pixels(models: Models, photograph) -> None:
    result = analyse(models.get("panoptic"), "a.png", photograph)
    segments = result.views[PANOPTIC]
    scores, classes = result.logits.mask_cls.softmax(-1).max(-1)
    for position, segment in enumerate(segments.found):
        answer = ask(result, PANOPTIC, position, 0, 0)
        assert classes[answer.query] == segment.class_id
        assert answer.scores[0] == (segment.name, pytest.approx(float(scores[answer.query])))


def test_a_querys_attention_is_drawn_and_changes_nothing(models: Models, photograph) -> None:
    model = models.get("panoptic")
    result = analyse(model, "a.png", photograph)
    pictures = of_analysis.attention_pictures(result, 3)
    assert [caption for _, caption in pictures] == ["layer 1"]  # the tiny model has one
    assert pictures[0][0].shape == (440, 660, 3)
    others = of_analysis.attention_pictures(result, 1)
    assert not np.array_equal(pictures[0][0], others[0][0])
    again = analyse(model, "a.png", photograph)
    assert torch.equal(again.logits.mask_pred, result.logits.mask_pred)


def test_large_images_have_results_of_the_pictures_size_and_files_of_their_own(
    models: Models, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    image = np.asarray(Image.open(write_image(tmp_path / "a.png", (1600, 400))))
    for name in ("panoptic", "per_pixel"):
        result = analyse(models.get(name), "a.png", image)
        assert result.views[SEMANTIC].seen().shape == (320, 1280)
        files = write_results(result, Visit(result, SEMANTIC).picture((400, 1600)))
        semantic = next(file for file in files if file.endswith("a_semantic.png"))
        assert Image.open(semantic).size == (1600, 400)


def test_files_hold_the_results(models: Models, photograph, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    result = analyse(models.get("panoptic"), "a.png", photograph)
    picture = Visit(result, PANOPTIC).picture(photograph.shape[:2])
    files = {Path(file).name: file for file in write_results(result, picture)}
    assert list(files) == ["a.png", "a_instances.json", "a_panoptic.zip", "a_semantic.png"]
    outputs = of_analysis.full_outputs(result)
    np.testing.assert_array_equal(
        np.asarray(Image.open(files["a_semantic.png"])), outputs["sem_seg"].argmax(0).numpy()
    )
    with zipfile.ZipFile(files["a_panoptic.zip"]) as archive:
        colours = np.asarray(Image.open(BytesIO(archive.read("a.png")))).astype(int)
        (annotation,) = json.loads(archive.read("a.json"))["annotations"]
    ids, segments = outputs["panoptic_seg"]
    np.testing.assert_array_equal(colours @ [1, 256, 65536], ids.numpy())
    # The categories of generated shapes are numbered from 1.
    assert {s["id"]: s["category_id"] for s in annotation["segments_info"]} == {
        info["id"]: info["category_id"] + 1 for info in segments
    }
    instances = json.loads(Path(files["a_instances.json"]).read_text())
    assert {i["category_id"] for i in instances} <= {1, 2, 3, 4}
    assert len(instances) == len(outputs["instances"])


def test_models_that_classify_pixels_have_scores_of_pixels(models: Models, photograph) -> None:
    model = models.get("per_pixel")
    result = analyse(model, "a.png", photograph)
    row, column = 7, 31
    position = int(result.views[SEMANTIC].seen()[row, column])
    answer = ask(result, SEMANTIC, position, row, column)
    outputs = model.network([model.inputs(photograph)])[0]
    expected = outputs["sem_seg"][:, row, column].softmax(0).sort(descending=True).values[:5]
    assert answer.source == "this pixel" and answer.query is None
    assert answer.scores[0][0] == result.views[SEMANTIC].found[position].name
    assert [score for _, score in answer.scores] == pytest.approx(expected.tolist(), abs=1e-3)


def test_detectors_have_instances_and_classifiers_classes(models: Models, photograph) -> None:
    assert list(analyse(models.get("detection"), "a.png", photograph).views) == [INSTANCES]
    classes = analyse(models.get("classification"), "a.png", photograph).outputs["classes"]
    assert classes.shape == (8,)


def test_images_are_resized_where_evaluation_averages_scales(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "per_pixel", run)
    config = load_config(str(run / "config.yaml"), ["TEST.AUG.ENABLED", "True"])
    (run / "config.yaml").write_text(config.dump())
    image = np.zeros((300, 200, 3), dtype=np.uint8)
    sizes = [
        Model("a", folder).inputs(image)["image"].shape for folder in (runs / "per_pixel", run)
    ]
    assert sizes[0] == sizes[1] != (3, 300, 200)


def test_another_sigma_scales_the_same_noise(models: Models, photograph) -> None:
    usual = analyse(models.get("denoising"), "a.png", photograph)
    other = analyse(models.get("denoising"), "a.png", photograph, sigma=1.5)
    pictures = [of_analysis.triptych(result)[0] for result in (usual, other)]
    np.testing.assert_array_equal(pictures[0][2], pictures[1][2])  # the clean image
    assert torch.equal(usual.inputs["noise"], other.inputs["noise"])
    clean = usual.inputs["image"] * (1 + 0.48**2) ** 0.5 - 0.48 * usual.inputs["noise"]
    expected = (clean + 1.5 * usual.inputs["noise"]) / (1 + 1.5**2) ** 0.5
    torch.testing.assert_close(other.inputs["image"], expected, rtol=1e-4, atol=1e-4)
    assert not np.array_equal(pictures[0][1], pictures[1][1])


def test_only_some_models_stay_in_memory(runs: Path) -> None:
    models = Models(find_runs([runs]))
    first = models.get("panoptic")
    assert models.get("panoptic") is first
    others = [name for name in models.names if name != "panoptic"][:MAX_LOADED]
    for name in others:
        models.get(name)
    assert models.get("panoptic") is not first
    with pytest.raises(UserError, match="there is no model ../../etc"):
        models.get("../../etc")


def test_examples_are_images_of_the_runs_data_set(models: Models) -> None:
    model = models.get("panoptic")
    assert [Path(path).parent.name for path in model.examples] == ["val", "val"]
    name, pixels = model.example(0)
    assert name.endswith(".png") and pixels.shape == (48, 48, 3)
