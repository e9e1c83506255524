"""What the machine's device cannot do."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode


def adapt_to_device(cfg: CfgNode) -> list[str]:
    """Switch off in ``cfg`` what the machine does not have, in place.

    Without a usable GPU, MODEL.DEVICE becomes "cpu". On the CPU there is no automatic mixed
    precision with float16 and no synchronised batch norm.

    Returns:
        A line for each change.
    """
    notes = []
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        notes.append(f"MODEL.DEVICE is {cfg.MODEL.DEVICE}, but torch finds no GPU: running on cpu")
        cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.DEVICE != "cpu":
        return notes
    if cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.PRECISION == "float16":
        notes.append("SOLVER.AMP.ENABLED is True, but float16 needs a GPU: training in float32")
        cfg.SOLVER.AMP.ENABLED = False
    for key, node in (("RESNETS", cfg.MODEL.RESNETS), ("SEM_SEG_HEAD", cfg.MODEL.SEM_SEG_HEAD)):
        if node.NORM == "SyncBN":
            notes.append(f"MODEL.{key}.NORM is SyncBN, which needs GPUs: using BN instead")
            node.NORM = "BN"
    return notes
