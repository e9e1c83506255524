"""What is checked before a model is exported, because that takes long."""

from __future__ import annotations

from ddep.errors import UserError
from ddep.output_files import check_replaces_nothing, check_writable

# By the format that --to names.
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}


def check_export(
    format_name: str,
    path: str,
    *,
    decompose: bool = False,
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> None:
    """Check the options of ``tools/export.py``.

    Raises:
        UserError: they contradict each other, or ``path`` must not or cannot be written, or the
            packages that the format needs are not installed.
    """
    suffix = SUFFIXES[format_name]
    if not path.endswith(suffix):
        raise UserError(f"--output {path}: --to {format_name} writes a {suffix}; name it so")
    if decompose and format_name != "torch":
        raise UserError("--decompose is for --to torch; ONNX files have standard operators anyway")
    if size is not None and min(size) < 1:
        raise UserError(f"--size is {size[0]} {size[1]}; expected height and width in pixels")
    check_replaces_nothing("--output", path, {}, overwrite=overwrite)
    check_writable("--output", path)
    if format_name == "onnx":
        check_onnx()


def check_onnx() -> None:
    """Raise :class:`UserError` unless the packages that make and run ONNX files are there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX files need the package {error.name}, which is not installed; run "
            "pip install -e '.[export]' --no-build-isolation in this project's folder"
        ) from error
