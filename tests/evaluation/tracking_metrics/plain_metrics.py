"""The tracking metrics from their definitions: loops, and all assignments tried."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ddep.evaluation.tracking_metrics import Frame

# frame number, true track, predicted track
Match = tuple[int, int, int]


def best_assignment(scores: np.ndarray) -> list[tuple[int, int]]:
    """The pairs (row, column) with the greatest sum of scores, of all assignments."""
    rows, columns = scores.shape
    if rows > columns:
        return [(i, j) for j, i in best_assignment(scores.T)]
    choices = (list(enumerate(c)) for c in itertools.permutations(range(columns), rows))
    return max(choices, key=lambda pairs: sum(scores[pair] for pair in pairs), default=[])


def frames_of(frames: Sequence[Frame], field: str, track: int) -> int:
    return sum(int(track in getattr(frame, field)) for frame in frames)


def plain_hota(frames: Sequence[Frame]) -> dict[str, float]:
    """Equations 10 to 17 of arXiv 2009.07736, match by match."""
    aligned: dict[tuple[int, int], float] = {}
    for frame in frames:
        similarity = frame.similarity
        for i, true in enumerate(frame.true_ids):
            for j, found in enumerate(frame.found_ids):
                total = similarity[i].sum() + similarity[:, j].sum() - similarity[i, j]
                share = similarity[i, j] / total if total else 0
                aligned[true, found] = aligned.get((true, found), 0) + share

    def alignment(true: int, found: int) -> float:
        common = aligned.get((true, found), 0)
        lengths = frames_of(frames, "true_ids", true) + frames_of(frames, "found_ids", found)
        return common / (lengths - common)

    curves: dict[str, list[float]] = {}
    for step in range(1, 20):
        matches: list[Match] = []
        near: list[float] = []
        for t, (true_ids, found_ids, similarity) in enumerate(frames):
            fit = [[alignment(true, found) for found in found_ids] for true in true_ids]
            pairs = best_assignment(np.reshape(fit, similarity.shape) * similarity)
            pairs = [(i, j) for i, j in pairs if similarity[i, j] >= 0.05 * step - 1e-12]
            matches += [(t, true_ids[i], found_ids[j]) for i, j in pairs]
            near += [similarity[i, j] for i, j in pairs]
        trues = sum(len(frame.true_ids) for frame in frames)
        founds = sum(len(frame.found_ids) for frame in frames)
        associations = []
        for _, true, found in matches:
            tpa = sum(match[1:] == (true, found) for match in matches)
            fna = frames_of(frames, "true_ids", true) - tpa
            fpa = frames_of(frames, "found_ids", found) - tpa
            associations.append((tpa / (tpa + fna + fpa), tpa / (tpa + fna), tpa / (tpa + fpa)))
        det_a = len(matches) / max(1, trues + founds - len(matches))
        ass_a, ass_re, ass_pr = np.mean(associations, axis=0) if matches else (0, 0, 0)
        point = {
            "HOTA": (det_a * ass_a) ** 0.5,
            "DetA": det_a,
            "AssA": ass_a,
            "LocA": np.mean(near) if near else 1,
            "DetRe": len(matches) / max(1, trues),
            "DetPr": len(matches) / max(1, founds),
            "AssRe": ass_re,
            "AssPr": ass_pr,
        }
        for name, value in point.items():
            curves.setdefault(name, []).append(value)
    return {name: 100 * float(np.mean(curve)) for name, curve in curves.items()}


def plain_clear(frames: Sequence[Frame]) -> dict[str, float]:
    """Matches are continued where they can be; what is left is matched by similarity."""
    last: dict[int, int] = {}
    previous: dict[int, int] = {}
    found_in: dict[int, int] = {}
    starts: dict[int, int] = {}
    tp = fp = fn = switches = 0
    near = 0.0
    for true_ids, found_ids, similarity in frames:
        pairs = []
        if len(true_ids) and len(found_ids):
            scores = similarity.copy()
            for i, j in np.ndindex(*scores.shape):
                scores[i, j] += 1000 * (previous.get(true_ids[i]) == found_ids[j])
            pairs = best_assignment(np.where(similarity >= 0.5, scores, 0))
            pairs = [(i, j) for i, j in pairs if similarity[i, j] >= 0.5]
            matched = {true_ids[i]: found_ids[j] for i, j in pairs}
            switches += sum(last.get(true, found) != found for true, found in matched.items())
            for true in matched:
                found_in[true] = found_in.get(true, 0) + 1
                starts[true] = starts.get(true, 0) + (true not in previous)
            last.update(matched)
            previous = matched
        tp += len(pairs)
        fn += len(true_ids) - len(pairs)
        fp += len(found_ids) - len(pairs)
        near += sum(similarity[i, j] for i, j in pairs)
    tracks = {true for frame in frames for true in frame.true_ids}
    shares = [found_in.get(t, 0) / frames_of(frames, "true_ids", t) for t in tracks]
    objects = max(1, tp + fn)
    return {
        "MOTA": 100 * (1 - (fn + fp + switches) / objects) if tp + fn else -100 * fp,
        "MODA": 100 * (1 - (fn + fp) / objects) if tp + fn else -100 * fp,
        "sMOTA": 100 * (near - fp - switches) / objects,
        "MOTP": 100 * near / max(1, tp),
        "IDSW": switches,
        "Frag": sum(number - 1 for number in starts.values()),
        "FP": fp,
        "FN": fn,
        "MT": sum(share > 0.8 for share in shares),
        "PT": sum(0.2 <= share <= 0.8 for share in shares),
        "ML": sum(share < 0.2 for share in shares),
    }


def plain_identity(frames: Sequence[Frame]) -> dict[str, float]:
    """The best of all ways to give true tracks predicted ones."""
    true_tracks = sorted({true for frame in frames for true in frame.true_ids})
    found_tracks = sorted({found for frame in frames for found in frame.found_ids})

    def common(i: int, j: int) -> int:
        number = 0
        for true_ids, found_ids, similarity in frames:
            if true_tracks[i] in true_ids and found_tracks[j] in found_ids:
                row = list(true_ids).index(true_tracks[i])
                number += similarity[row, list(found_ids).index(found_tracks[j])] >= 0.5
        return number

    counts = np.zeros((len(true_tracks), len(found_tracks)))
    for i, j in np.ndindex(*counts.shape):
        counts[i, j] = common(i, j)
    pairs = best_assignment(counts)
    tp = sum(common(i, j) for i, j in pairs)
    trues = sum(len(frame.true_ids) for frame in frames)
    founds = sum(len(frame.found_ids) for frame in frames)
    return {
        "IDF1": 100 * 2 * tp / max(1, trues + founds),
        "IDP": 100 * tp / max(1, founds),
        "IDR": 100 * tp / max(1, trues),
    }
