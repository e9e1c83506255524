"""Write a trained model as a folder that Hugging Face's ``from_pretrained`` loads."""

from __future__ import annotations

import os

from detectron2.modeling import build_model

from ddep.checkpoint import Checkpointer
from ddep.data.datasets.custom import register_custom_sets
from ddep.errors import UserError
from ddep.export.atomic_folder import atomic_folder, check_replaceable
from ddep.export.huggingface_model import FILES, check_expressible, to_hugging_face
from ddep.tasks import load_config, task_of
from ddep.tasks.class_names import class_names


def export_to_hugging_face(
    source: str, destination: str, *, config_file: str | None = None, overwrite: bool = False
) -> None:
    """Write ``source`` as a folder with config, weights and image processor; print what is dropped.

    Args:
        source: a checkpoint of a trained Mask2Former or MaskFormer.
        destination: the folder to write; its parent is created.
        config_file: the config it was trained with; None takes ``config.yaml`` beside ``source``,
            where training writes it.
        overwrite: whether to replace an existing folder of such files.

    Raises:
        UserError: Hugging Face's classes cannot express the model, ``source`` lacks some of its
            weights, or ``destination`` must not or cannot be written; it is then unchanged.
    """
    check_replaceable(destination, FILES, overwrite=overwrite)
    config_file = config_file or _config_beside(source)
    cfg = load_config(config_file)
    task = task_of(cfg)
    if "hf" not in task.exports:
        raise UserError(
            f"{config_file} is for {task.name}, which Hugging Face's segmentation models do not "
            "express; give a checkpoint that segmentation training wrote, and its own config"
        )
    check_expressible(cfg)
    cfg.MODEL.DEVICE = "cpu"
    register_custom_sets(cfg)
    model = build_model(cfg)
    checkpointer = Checkpointer(model, encoder=cfg.MODEL.BACKBONE.FROZEN_WEIGHTS)
    checkpointer.load(source)
    absent = checkpointer.absent_parameters()
    if absent:
        raise UserError(
            f"{source} lacks {len(absent)} weights of the model, such as {absent[0]}; give a "
            "checkpoint of segmentation training and its config"
        )
    names = class_names(cfg)
    exported = to_hugging_face(model.state_dict(), cfg, names)
    with atomic_folder(destination, FILES, overwrite=overwrite) as folder:
        exported.write(folder)
    dropped = checkpointer.report.unused
    if dropped:
        print(f"dropped {len(dropped)} weights that the model does not have: {dropped[0]}, ...")
    if names is None:
        print("the classes have no names, as no data set of the config is known: LABEL_0, ...")
    [architecture] = exported.config["architectures"]
    print(f"wrote {destination}: {len(exported.weights)} weights of {architecture}")


def _config_beside(source: str) -> str:
    path = os.path.join(os.path.dirname(source), "config.yaml")
    if not os.path.isfile(path):
        raise UserError(
            f"--to hf needs the config that {source} was trained with: there is no {path}; name it "
            "with --config-file"
        )
    return path
