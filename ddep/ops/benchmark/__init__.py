"""Times of deformable attention: the reference, unfused, fused, and another library's kernels.

The problem is self-attention of an encoder on three levels, strides 8, 16 and 32 of a square input,
with 8 heads of 32 channels and 4 points: every position is a query. Everything starts from a
module's raw projections and ends at the sampled values, so all implementations do the same work.
"""
