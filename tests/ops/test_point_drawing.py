"""Random points: the generator's known answers, uniformity, and the choice of uncertain points."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ddep.ops import draw_seed, uncertain_points, uniform_points
from ddep.ops.point_drawing_reference import philox, random_points
from tests.ops.conftest import force

BITS = 2**24  # of a number in [0, 1)
CANDIDATE_STREAM, REST_STREAM = 1, 2


@pytest.fixture
def any_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_known_answers(counter: str, key: str, expected: str) -> None:
    """Those that are published with the generator, in Random123's kat_vectors."""
    words = [torch.tensor([int(word, 16)]) for word in counter.split()]
    found = philox([int(word, 16) for word in key.split()], words)
    assert [f"{word.item():08x}" for word in found] == expected.split()


def test_points_are_the_generators_words(device: str, implementation: str) -> None:
    """In Python's own integers, for a seed whose halves differ."""
    seed = 0x0123456789ABCDEF
    points = uniform_points(torch.tensor(seed), 3, 70, torch.device(device))
    for row, i in [(0, 0), (0, 1), (1, 6), (2, 33), (2, 69)]:
        key = [seed & 0xFFFFFFFF, seed >> 32]
        words = [i // 2, row, 0, 0]
        for _ in range(10):
            a, b = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
            words = [b >> 32 ^ words[1] ^ key[0], b & 0xFFFFFFFF,
                     a >> 32 ^ words[3] ^ key[1], a & 0xFFFFFFFF]  # fmt: skip
            key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
        expected = [(word >> 8) / BITS for word in words[2 * (i % 2) :][:2]]
        assert points[row, i].tolist() == expected


@pytest.mark.parametrize("seed", [0, 5, 2**63 - 1, -1, -(2**63)])
@pytest.mark.parametrize(("rows", "count"), [(1, 1), (3, 31), (2, 32), (2, 33), (5, 257), (0, 4)])
def test_compiled_points_equal_the_references(
    device: str, compiled: str, seed: int, rows: int, count: int
) -> None:
    points = uniform_points(torch.tensor(seed), rows, count, torch.device(device))
    assert points.dtype == torch.float32 and points.device.type == device
    expected = random_points(torch.tensor(seed), rows, count, 0, torch.device("cpu"))
    assert torch.equal(points.cpu(), expected)


def test_a_point_depends_on_its_row_and_index_only(device: str, implementation: str) -> None:
    many = uniform_points(torch.tensor(8), 9, 1001, torch.device(device))
    few = uniform_points(torch.tensor(8), 2, 10, torch.device(device))
    assert torch.equal(many[:2, :10], few)
    assert not torch.equal(many, uniform_points(torch.tensor(9), 9, 1001, torch.device(device)))


def chi_square(counts: Tensor) -> float:
    """In standard deviations from what uniform numbers have on average."""
    expected = counts.sum() / counts.numel()
    freedom = counts.numel() - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return ((statistic - freedom) / (2 * freedom) ** 0.5).item()


def test_points_are_uniform(device: str, implementation: str) -> None:
    """In the square, from one point of a row to the next, and in their last bits."""
    points = uniform_points(torch.tensor(0), 40, 5000, torch.device(device)).cpu().double()
    assert points.min() >= 0 and points.max() < 1
    x, y = points.unbind(-1)
    pairs = {"a point": (x, y), "the next point": (x[:, 1:], x[:, :-1]), "rows": (y[1:], y[:-1])}
    for name, (one, other) in pairs.items():
        cells = (16 * one).long() * 16 + (16 * other).long()
        counts = torch.bincount(cells.flatten(), minlength=256).double()
        assert abs(chi_square(counts)) < 4, name
    last = torch.bincount((points * BITS).long().flatten() % 256, minlength=256).double()
    assert abs(chi_square(last)) < 4


def test_streams_differ(device: str) -> None:
    """Matching, candidates and the rest of the points share nothing."""
    seed = torch.tensor(3)
    streams = torch.stack([random_points(seed, 2, 500, s, torch.device(device)) for s in range(3)])
    assert streams.unique().numel() > 0.99 * streams.numel()


def test_seeds_follow_the_global_generator() -> None:
    torch.manual_seed(1)
    seeds = [draw_seed() for _ in range(20)]
    torch.manual_seed(1)
    assert [draw_seed() for _ in range(20)] == seeds
    values = torch.stack(seeds)
    assert values.dtype == torch.int64 and len(values.unique()) == 20
    assert values.max() > 2**61  # not only 32 bits


# ---- uncertain points ----


def matched(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor, Tensor]:
    """Logits of three layers, 13 x 17, and four pairs of each."""
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, 5, 13, 17, generator=generator).to(dtype) for _ in range(3)]
    images = torch.tensor([[0, 0, 1, 1]] * 3)
    queries = torch.tensor([[1, 4, 0, 2], [0, 1, 2, 3], [3, 4, 3, 4]])
    return logits, images, queries


def sampled(logits: Tensor, points: Tensor) -> Tensor:
    grid = (2 * points.double() - 1)[None, None]
    maps = logits.double()[None, None]
    return torch.nn.functional.grid_sample(maps, grid, align_corners=False).flatten()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("points", "candidates", "uncertain"),
    [(400, 1200, 300), (50, 51, 50), (8, 9, 0), (300, 257, 1)],
)
def test_the_candidates_nearest_to_zero_are_chosen(
    device: str,
    implementation: str,
    dtype: torch.dtype,
    points: int,
    candidates: int,
    uncertain: int,
) -> None:
    """As torch.topk finds them, in the order in which they were drawn; then uniform points."""
    logits, images, queries = matched(dtype)
    seed = torch.tensor(7)
    on_device = [layer.to(device) for layer in logits], images.to(device), queries.to(device)
    found = uncertain_points(*on_device, seed, points, candidates, uncertain).cpu()
    assert found.shape == (3, 4, points, 2) and found.dtype == torch.float32
    cpu = torch.device("cpu")
    drawn = random_points(seed, 12, candidates, CANDIDATE_STREAM, cpu)
    rest = random_points(seed, 12, points - uncertain, REST_STREAM, cpu)
    assert torch.equal(found[:, :, uncertain:].flatten(0, 1), rest)
    for row in range(12):
        layer, pair = divmod(row, 4)
        values = sampled(logits[layer][images[layer, pair], queries[layer, pair]], drawn[row])
        nearest = values.abs().topk(uncertain, largest=False).indices.sort().values
        assert torch.equal(found[layer, pair, :uncertain], drawn[row, nearest])


def test_compiled_choice_equals_the_references(device: str) -> None:
    """Bit for bit, with numbers as large as in training."""
    logits, images, queries = matched(torch.float32)
    choices = []
    for implementation in ("compiled", "reference"):
        for _ in force(implementation, device):
            arguments = (
                [layer.to(device) for layer in logits],
                images.to(device),
                queries.to(device),
            )
            choices.append(uncertain_points(*arguments, torch.tensor(1), 12544, 37632, 9408))
    assert torch.equal(*choices)


def choice_from(value: Tensor, device: str, uncertain: int = 40) -> tuple[Tensor, Tensor]:
    """The points of one mask, and the drawn candidates, 100 of them."""
    first = torch.zeros(1, 1, dtype=torch.int64, device=device)
    logits = [value[None, None].to(device)]
    found = uncertain_points(logits, first, first, torch.tensor(2), uncertain, 100, uncertain)
    drawn = random_points(torch.tensor(2), 1, 100, CANDIDATE_STREAM, torch.device("cpu"))
    return found[0, 0].cpu(), drawn[0]


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_of_equal_candidates_the_first_are_chosen(
    device: str, implementation: str, value: float
) -> None:
    found, drawn = choice_from(torch.full((1, 1), value), device, uncertain=40)
    assert torch.equal(found, drawn[:40])


@pytest.mark.parametrize("value", [-4.0, torch.nan])
def test_ties_at_the_threshold(device: str, compiled: str, value: float) -> None:
    """Two halves with one absolute logit each: all of the smaller, and the first of the larger.

    The reference's interpolation rounds equal pixels to values that differ.
    """
    halves = torch.full((64, 64), 2.0)
    halves[:, 32:] = value
    found, drawn = choice_from(halves, device, uncertain=60)
    magnitudes = sampled(halves, drawn).abs().nan_to_num(nan=0.0).float()
    expected = magnitudes.argsort(stable=True)[:60].sort().values
    tied = magnitudes == magnitudes[expected].max()
    assert 0 < tied[expected].sum() < tied.sum()
    assert torch.equal(found, drawn[expected])


def test_nan_counts_as_most_uncertain(device: str, implementation: str) -> None:
    """All candidates where the mask is NaN are chosen, and the nearest to 0 of the others."""
    value = torch.linspace(0.001, 1, 90).expand(4, -1).clone()
    value[:, 60:] = torch.nan
    found, drawn = choice_from(value, device, uncertain=50)
    magnitudes = sampled(value, drawn).abs().nan_to_num(nan=0.0)
    assert 20 < (magnitudes == 0).sum() < 45
    assert torch.equal(found, drawn[magnitudes.argsort(stable=True)[:50].sort().values])


def test_rows_differ_and_do_not_depend_on_each_other(device: str, implementation: str) -> None:
    logits, images, queries = matched()
    logits = [layer.to(device) for layer in logits]
    images, queries = images.to(device), queries.to(device)
    queries[:] = 3
    images[:] = 1
    found = uncertain_points(logits, images, queries, torch.tensor(4), 100, 300, 75)
    assert found.flatten(0, 1).unique(dim=0).shape[0] == 12
    first = uncertain_points(logits[:1], images[:1], queries[:1], torch.tensor(4), 100, 300, 75)
    assert torch.equal(first, found[:1])


def test_logits_of_any_strides(device: str, implementation: str) -> None:
    logits, images, queries = matched()
    logits = [layer.to(device) for layer in logits]
    pairs = images.to(device), queries.to(device)
    arguments = torch.tensor(4), 100, 300, 75
    expected = uncertain_points(logits, *pairs, *arguments)
    strided = [layer.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0) for layer in logits]
    assert not strided[0].is_contiguous()
    strided_pairs = [index.T.contiguous().T for index in pairs]
    assert torch.equal(uncertain_points(strided, *strided_pairs, *arguments), expected)


def test_no_pairs(device: str, implementation: str) -> None:
    logits = [torch.randn(2, 5, 4, 4, device=device)]
    none = torch.zeros(1, 0, dtype=torch.int64, device=device)
    assert uncertain_points(logits, none, none, torch.tensor(0), 9, 27, 6).shape == (1, 0, 9, 2)


def test_there_is_no_gradient(device: str, implementation: str) -> None:
    logits, images, queries = matched()
    logits = [layer.to(device).requires_grad_() for layer in logits]
    pairs = images.to(device), queries.to(device)
    assert not uncertain_points(logits, *pairs, torch.tensor(4), 10, 30, 7).requires_grad


def test_bits_do_not_depend_on_threads(compiled_on_cpu: str, any_threads: None) -> None:
    logits, images, queries = matched(torch.float32)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        uniform = uniform_points(torch.tensor(6), 7, 101, torch.device("cpu"))
        chosen = uncertain_points(logits, images, queries, torch.tensor(6), 500, 1500, 375)
        results.append((uniform, chosen))
    for uniform, chosen in results[1:]:
        assert torch.equal(uniform, results[0][0]) and torch.equal(chosen, results[0][1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": torch.tensor([[5]])}, "queries has values from 5 to 5; expected from 0 to 4"),
        ({"images": torch.tensor([[-1]])}, "images has values from -1 to -1; expected from 0 to 1"),
        ({"images": torch.zeros(2, 1, dtype=torch.int64)}, r"images has shape \[2, 1\]; expected"),
        ({"queries": torch.zeros(1, 1)}, "queries is Float; expected int64"),
        ({"seed": torch.tensor([1])}, r"seed is Long of shape \[1\]; expected a scalar of int64"),
        ({"num_uncertain": 11}, "num_uncertain is 11; expected from 0 to num_points 10"),
        ({"mask_logits": []}, "mask_logits is empty"),
        ({"mask_logits": [torch.zeros(2, 5, 0, 4)]}, "mask_logits has masks of 0 x 4; expected"),
        ({"mask_logits": [torch.zeros(2, 5, 4, 4).long()]}, "mask_logits are Long; expected"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(compiled_on_cpu: str, changes: dict, message: str) -> None:
    first = torch.zeros(1, 1, dtype=torch.int64)
    arguments = {
        "mask_logits": [torch.zeros(2, 5, 4, 4)], "images": first, "queries": first,
        "seed": torch.tensor(1), "num_points": 10, "num_candidates": 20, "num_uncertain": 5,
    }  # fmt: skip
    torch.ops.ddep.uncertain_points(**arguments)
    with pytest.raises(ValueError, match=f"^uncertain_points: {message}"):
        torch.ops.ddep.uncertain_points(**{**arguments, **changes})


def test_opcheck(compiled_on_cpu: str) -> None:
    logits, images, queries = matched(torch.float32)
    torch.library.opcheck(torch.ops.ddep.uniform_points.default, (torch.tensor(1), 3, 7))
    torch.library.opcheck(
        torch.ops.ddep.uncertain_points.default,
        ([layer.requires_grad_() for layer in logits], images, queries, torch.tensor(1), 9, 27, 6),
    )
