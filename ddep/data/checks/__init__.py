"""Find the problems of a data set before days of training."""

from ddep.data.checks.annotation_files import (
    check_annotation_files,
    check_folders,
    pair_folders,
)
from ddep.data.checks.dataset_report import DatasetReport
from ddep.data.checks.problems import Problem
from ddep.data.checks.records import ImageReport, LabelSpace, check_record
from ddep.data.checks.video_files import check_video_files

__all__ = [
    "DatasetReport",
    "ImageReport",
    "LabelSpace",
    "Problem",
    "check_annotation_files",
    "check_folders",
    "check_record",
    "check_video_files",
    "pair_folders",
]
