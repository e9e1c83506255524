"""What all mappers share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ddep.data.mappers.base import distinct, to_tensor

MAPS = arrays.arrays(
    st.sampled_from([np.int32, np.uint8, np.int64]),
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.integers(0, 5),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(MAPS)
def test_distinct_values(labels):
    for view in (labels, labels[::-1], labels.T):
        found = distinct(view)
        assert found.dtype == labels.dtype and np.array_equal(found, np.unique(labels))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 300), (64, 48)])
def test_planes(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for pixels in (image, image[:, ::-1], image[::-1], image[..., ::-1], image[:, :, [2, 1, 0]]):
        before = pixels.copy()
        tensor = to_tensor(pixels)
        assert tensor.is_contiguous()
        assert np.array_equal(tensor.numpy(), before.transpose(2, 0, 1))
        tensor.zero_()
        assert np.array_equal(pixels, before)
