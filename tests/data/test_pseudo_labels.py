from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddep.data.pseudo_labels import (
    PseudoLabels,
    SoftLabel,
    common_root,
    dequantise,
    label_path,
    quantise,
    read_index,
    read_label,
    write_label,
)
from ddep.data.video_frames import name_frame
from ddep.errors import UserError


def test_eight_bits_keep_probabilities_within_the_stated_error() -> None:
    probabilities = torch.rand(19, 20, 30, generator=torch.Generator().manual_seed(0))
    probabilities = (probabilities * 12).softmax(0)
    levels = quantise(probabilities)
    # Half a level of the square root.
    error = ((torch.from_numpy(levels).double() / 255) ** 2 - probabilities.double()).abs()
    bound = probabilities.double().sqrt() / 255 + (0.5 / 255) ** 2
    assert (error <= bound + 1e-7).all()
    found = dequantise(levels)
    torch.testing.assert_close(found.sum(0), torch.ones(20, 30))
    assert (found - probabilities).abs().max() < 0.01
    # Small ones keep their order of magnitude, which 8 bits of the probability itself would not.
    small = (probabilities > 1e-4) & (probabilities < 1e-3)
    ratio = found[small] / probabilities[small]
    assert small.any() and ratio.min() > 0.5 and ratio.max() < 2


def test_a_file_gives_back_its_label(tmp_path: Path) -> None:
    probabilities = torch.zeros(3, 2, 4)
    probabilities[1] = 1
    path = tmp_path / "inner" / "a.npz"
    write_label(path, SoftLabel(probabilities, (1.5, 3.25)), more=torch.ones(2).numpy())
    label = read_label(path)
    assert torch.equal(label.probabilities, probabilities)
    assert label.covered == (1.5, 3.25)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"a\.npz is damaged .*make the pseudo-labels again"):
        read_label(path)
    with pytest.raises(UserError, match=r"b\.npz is missing; make the pseudo-labels again"):
        read_label(path.with_name("b.npz"))


def test_labels_are_where_their_images_are_below_the_root(tmp_path: Path) -> None:
    images = [str(tmp_path / "x" / name) for name in ("a.png", "a.jpg", "in/b.png")]
    root = common_root(images)
    assert root == str(tmp_path / "x")
    folder = tmp_path / "labels"
    paths = [label_path(folder, root, name).relative_to(folder) for name in images]
    assert [str(path) for path in paths] == [
        "images/a.png.npz",
        "images/a.jpg.npz",
        "images/in/b.png.npz",
    ]
    member = f"tar://{tmp_path}/x/t.tar?offset=512&size=9#c/d.png"
    found = label_path(folder, root, member).relative_to(folder)
    assert str(found) == "images/t.tar/c/d.png.npz"
    frame = name_frame(str(tmp_path / "x" / "v.mp4"), 25, 1_000_000)
    found = label_path(folder, root, frame).relative_to(folder)
    assert str(found) == "images/v.mp4#000025.npz"
    with pytest.raises(UserError, match="is not in .*x, whose images the pseudo-labels"):
        label_path(folder, root, str(tmp_path / "y" / "a.png"))


def test_folders_that_are_not_finished_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PSEUDO_LABELS is empty; make pseudo-labels with"):
        read_index("")
    with pytest.raises(UserError, match=r"has no pseudo_labels\.json; .* --resume"):
        read_index(str(tmp_path))
    (tmp_path / "pseudo_labels.json").write_text('{"version": 2}')
    with pytest.raises(UserError, match="is not of version 1; make the pseudo-labels again"):
        read_index(str(tmp_path))
    (tmp_path / "pseudo_labels.json").write_text('{"version": 1, "root": "/"}')
    with pytest.raises(UserError, match="is damaged .*; make the pseudo-labels again"):
        read_index(str(tmp_path))
    index = PseudoLabels("/x", ["images:/x"], 2, ["a", "b"], {"model": "run"}, [])
    index.write(tmp_path)
    assert read_index(str(tmp_path)) == index
