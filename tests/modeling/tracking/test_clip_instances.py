from __future__ import annotations

import torch

from ddep.modeling.tracking import clip_instances


def test_queries_that_have_found_something_come_best_first() -> None:
    #                 class 0, class 1, no object
    mask_cls = torch.tensor([[1.0, 4, 0], [6, 0, 0], [0, 0, 5], [3, 3, 3], [5, 0, 0]])
    masks = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    masks[4] = -1.0  # nowhere to be seen
    embeddings = torch.arange(10.0).view(5, 2)
    found = clip_instances(mask_cls, masks, embeddings, score_threshold=0.3, max_instances=9)
    exponentials = mask_cls.double().exp()
    expected = exponentials / exponentials.sum(1, keepdim=True)
    kept = [1, 0, 3]
    torch.testing.assert_close(found.class_probabilities, expected[kept, :2].float())
    assert torch.equal(found.masks, masks[kept])
    assert torch.equal(found.embeddings, embeddings[kept])
    assert torch.equal(found.scores, found.class_probabilities.max(1).values)
    few = clip_instances(mask_cls, masks, embeddings, score_threshold=0.3, max_instances=2)
    assert torch.equal(few.masks, masks[kept[:2]])
    none = clip_instances(mask_cls, masks, embeddings, score_threshold=1.0, max_instances=2)
    assert none.masks.shape == (0, 2, 3, 4) and none.class_probabilities.shape == (0, 2)
    assert none.scores.shape == (0,)
