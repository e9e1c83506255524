"""A small stand-in for the source package of detectron2 0.5, broken in the same places."""

from __future__ import annotations

import tarfile
import textwrap
from pathlib import Path

NAME = "detectron2_cdo-0.5"

FILES = {
    "LICENSE": "Apache License\n",
    "setup.py": 'raise SystemExit("this setup.py wants a compiler")\n',
    "setup.cfg": "[egg_info]\ntag_build =\n",
    "detectron2/__init__.py": '__version__ = "0.5"\n',
    "detectron2/data/__init__.py": "",
    "detectron2/data/build.py": """
        import numpy as np
        def histogram():
            return np.zeros(3, dtype=np.int)
        """,
    "detectron2/data/datasets/__init__.py": "",
    "detectron2/data/datasets/pascal_voc.py": """
        import numpy as np
        def names():
            return np.array(["a"], dtype=np.str)
        """,
    "detectron2/data/transforms/__init__.py": "",
    "detectron2/data/transforms/transform.py": """
        from PIL import Image
        def extent(interp=Image.LINEAR):
            return interp
        """,
    "detectron2/engine/__init__.py": "",
    "detectron2/evaluation/__init__.py": """
        from detectron2.evaluation import fast_eval_api
        """,
    "detectron2/evaluation/fast_eval_api.py": "from detectron2 import _C\n",
    "detectron2/evaluation/pascal_voc_evaluation.py": """
        import numpy as np
        def difficult():
            return np.array([1, 0]).astype(np.bool)
        """,
    "detectron2/evaluation/sem_seg_evaluation.py": """
        import numpy as np
        def accuracy():
            return np.full(2, np.nan, dtype=np.float), np.array([1], dtype=np.int)
        """,
    "detectron2/layers/__init__.py": "",
    "detectron2/layers/deform_conv.py": "from detectron2 import _C\n",
    "detectron2/layers/roi_align_rotated.py": "from detectron2 import _C\n",
    "detectron2/layers/rotated_boxes.py": """
        from detectron2 import _C
        def pairwise_iou_rotated(boxes1, boxes2):
            return _C.box_iou_rotated(boxes1, boxes2)
        """,
    "detectron2/model_zoo/__init__.py": "",
    "detectron2/model_zoo/configs/Base.yaml": "VERSION: 2\n",
    "detectron2/model_zoo/model_zoo.py": """
        import os
        import pkg_resources
        def get_config_file(config_path):
            return pkg_resources.resource_filename(
                "detectron2.model_zoo", os.path.join("configs", config_path)
            )
        """,
    "detectron2/projects/__init__.py": "",
    "detectron2/structures/__init__.py": "",
    "detectron2/structures/masks.py": """
        import numpy as np
        def keep():
            return np.asarray([1, 0], dtype=np.bool)
        """,
    "detectron2/utils/__init__.py": "",
    "detectron2/utils/collect_env.py": """
        def compiled():
            try:
                import detectron2._C as _C
            except ImportError as e:
                return f"not built correctly: {e}"
        """,
    "detectron2/utils/video_visualizer.py": """
        import numpy as np
        def is_crowd():
            return np.zeros((2,), dtype=np.bool)
        """,
    "detectron2/utils/visualizer.py": """
        import numpy as np
        class Visualizer:
            def mask(self):
                return np.ones(2).astype(np.bool)
            def brighter(self, modified_color):
                return modified_color
        """,
    "projects/PointRend/point_rend/__init__.py": "NAME = 'PointRend'\n",
    "projects/DeepLab/deeplab/__init__.py": "NAME = 'DeepLab'\n",
    "projects/Panoptic-DeepLab/panoptic_deeplab/__init__.py": "NAME = 'Panoptic-DeepLab'\n",
}

# Uses every place that is broken in FILES, in an environment that has the fixed package.
USE_EVERYTHING = """
import importlib.metadata, json, os
from detectron2.data.build import histogram
from detectron2.data.datasets.pascal_voc import names
from detectron2.data.transforms.transform import extent
from detectron2.evaluation.pascal_voc_evaluation import difficult
from detectron2.evaluation.sem_seg_evaluation import accuracy
from detectron2.layers import deform_conv, roi_align_rotated
from detectron2.layers.rotated_boxes import pairwise_iou_rotated
from detectron2.model_zoo.model_zoo import get_config_file
from detectron2.projects import deeplab, panoptic_deeplab, point_rend
from detectron2.structures.masks import keep
from detectron2.utils.collect_env import compiled
from detectron2.utils.video_visualizer import is_crowd
from detectron2.utils.visualizer import Visualizer
try:
    pairwise_iou_rotated(None, None)
except ImportError as error:
    compiled_op = str(error)
metadata = importlib.metadata.metadata("detectron2")
print(json.dumps({
    "kinds": "".join(array.dtype.kind for array in (
        histogram(), names(), difficult(), *accuracy(), keep(), is_crowd(), Visualizer().mask())),
    "interpolation": int(extent()),
    "colour": Visualizer().brighter((-1e-16, 0.5, 1.0 + 1e-15)),
    "config": os.path.relpath(get_config_file("Base.yaml"), os.path.dirname(deeplab.__file__)),
    "config_exists": os.path.isfile(get_config_file("Base.yaml")),
    "projects": [point_rend.NAME, deeplab.NAME, panoptic_deeplab.NAME],
    "compiled_op": compiled_op,
    "environment": compiled(),
    "version": metadata["Version"],
    "summary": metadata["Summary"],
}))
"""


def write_sdist(path: Path, changes: dict[str, str] | None = None) -> Path:
    """Write the stand-in as ``path`` (.tar.gz), with the texts of some files changed."""
    source = path.parent / NAME
    for name, text in {**FILES, **(changes or {})}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(textwrap.dedent(text).lstrip("\n"), "utf-8")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source, arcname=NAME)
    return path
