"""One file for each kind of model: its data, checks, training, evaluation and pictures.

Trainer, evaluation, inference, checks and tools ask the task of a config, :func:`task_of`; nothing
else asks which kind of model a config describes.
"""

from ddep.tasks.classification import ClassificationTask
from ddep.tasks.denoising import DenoisingTask
from ddep.tasks.detection import DetectionTask
from ddep.tasks.detr import DetrTask
from ddep.tasks.load_config import load_config
from ddep.tasks.per_pixel import PerPixelSegmentationTask
from ddep.tasks.registry import register_task, registered_tasks, task_of
from ddep.tasks.segmentation import SegmentationTask
from ddep.tasks.task import Task
from ddep.tasks.track_former import TrackFormerTask
from ddep.tasks.video_segmentation import VideoSegmentationTask

__all__ = [
    "ClassificationTask",
    "DenoisingTask",
    "DetectionTask",
    "DetrTask",
    "PerPixelSegmentationTask",
    "SegmentationTask",
    "Task",
    "TrackFormerTask",
    "VideoSegmentationTask",
    "load_config",
    "register_task",
    "registered_tasks",
    "task_of",
]
