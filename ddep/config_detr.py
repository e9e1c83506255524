"""The config keys of DETR: those of its own detectron2 project, with the same defaults."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_detr_config(cfg: CfgNode) -> None:
    """Add MODEL.DETR (META_ARCHITECTURE ``Detr``) to ``cfg``, in place."""
    detr = cfg.MODEL.DETR = CfgNode()
    # Classes, without the no-object class.
    detr.NUM_CLASSES = 80
    # With MODEL.MASK_ON: the checkpoint of the detector, which stays as it is while the mask head
    # learns. It is read when training starts, after MODEL.WEIGHTS. Empty: everything learns.
    detr.FROZEN_WEIGHTS = ""
    # Classes are things and stuff, of a panoptic data set: instances are of things, and with
    # MODEL.MASK_ON there are panoptic segments.
    detr.PANOPTIC_ON = False
    # Weights of the losses of boxes, and of the same costs in the matching. That of classes is 1.
    detr.GIOU_WEIGHT = 2.0
    detr.L1_WEIGHT = 5.0
    # Losses on the predictions of every decoder layer.
    detr.DEEP_SUPERVISION = True
    # Weight of the no-object class in the classification loss.
    detr.NO_OBJECT_WEIGHT = 0.1
    # The transformer.
    detr.NHEADS = 8
    detr.DROPOUT = 0.1
    detr.DIM_FEEDFORWARD = 2048
    detr.ENC_LAYERS = 6
    detr.DEC_LAYERS = 6
    detr.PRE_NORM = False
    detr.HIDDEN_DIM = 256
    detr.NUM_OBJECT_QUERIES = 100
    # Positions of pixels: sine (sines and cosines of rows and columns), or learned, which is for
    # features of up to 50 rows and columns.
    detr.POSITION_EMBEDDING = "sine"
