"""The data sets, one a file. Importing this package registers them below $DETECTRON2_DATASETS."""

from __future__ import annotations

from pathlib import Path

from ddep.data.datasets.ade20k import register_ade20k
from ddep.data.datasets.ade20k_full import register_ade20k_full
from ddep.data.datasets.bdd100k import register_bdd100k
from ddep.data.datasets.camvid import register_camvid
from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.cityscapes import register_cityscapes
from ddep.data.datasets.coco import register_coco
from ddep.data.datasets.from_config import register_from_config
from ddep.data.datasets.gta5 import register_gta5
from ddep.data.datasets.mapillary_vistas import register_mapillary_vistas
from ddep.data.datasets.pascal_context import register_pascal_context
from ddep.data.datasets.penn_fudan import register_penn_fudan
from ddep.data.datasets.shapes import register_shapes
from ddep.data.datasets.synthia import register_synthia

__all__ = ["dataset_root", "register_all", "register_from_config"]


def register_all(root: Path) -> None:
    """Register every data set that the project adds to detectron2's, below ``root``.

    Doing it again moves them to another root.
    """
    register_camvid(root)
    register_penn_fudan(root)
    register_shapes(root)
    register_coco(root)
    register_ade20k(root)
    register_ade20k_full(root)
    register_cityscapes(root)
    register_mapillary_vistas(root)
    register_bdd100k(root)
    register_gta5(root)
    register_synthia(root)
    register_pascal_context(root)


register_all(dataset_root())
