"""Groups of vectors, the clusters whose ids they keep, and the words that tell a cluster from the others.

As a program it reads vectors as halfvec_send() writes them, and prints the group of each, so that minutes of work are
in a process of their own: python -m pgflywheel.analysis.clusters DIMENSIONS MINIMUM < vectors
Sources: Campello, Moulavi, Sander (2013), "Density-Based Clustering Based on Hierarchical Density Estimates";
Grootendorst (2022), "BERTopic", arXiv 2203.05794 (class-based tf-idf).
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[Any, np.dtype[np.float64]]

MOST_DIMENSIONS = 50
HEADER_BYTES = 4
MOST_TEXTS, MOST_CHARACTERS, WORDS = 100, 500, 4
_WORD = re.compile(r"[^\W_]{3,30}")
_COMMON = frozenset(
    """
    about after again all also and any are because been before being but can cannot could did does doing don for from
    get got had has have having her here hers him his how into isn its just let like may might more most must not now
    off only other our out over own please same shall she should some such than thank thanks that the their them then
    there these they this those through too under until very want was wasn were what when where which while who whom
    why will with would you your yours
    """.split()  # noqa: SIM905
)
Key = TypeVar("Key", bound=Hashable)


def grouped(vectors: Matrix, minimum: int) -> list[int]:
    """Return the group of each unit vector, -1 for none; groups have ``minimum`` vectors and more.

    Groups are the leaves of the hierarchy: the usual choice, by excess of mass, puts all of banking77 into three.
    """
    import numpy as np
    from sklearn.cluster import HDBSCAN
    from threadpoolctl import threadpool_limits

    minimum = max(2, minimum)
    if len(vectors) < minimum:
        return [-1] * len(vectors)
    if np.ptp(vectors, axis=0).max() < 1e-6:
        return [0] * len(vectors)
    with threadpool_limits(1):
        model = HDBSCAN(
            min_cluster_size=minimum, min_samples=min(minimum, 5), cluster_selection_method="leaf", copy=True
        )
        labels = model.fit_predict(_reduced(vectors))
    return [max(-1, int(label)) for label in labels]


def _reduced(vectors: Matrix) -> Matrix:
    """Return the directions in which vectors differ most, as unit vectors; short ones as they are."""
    import numpy as np
    from sklearn.decomposition import PCA

    if min(vectors.shape) <= MOST_DIMENSIONS:
        return vectors
    reduced: Matrix = PCA(MOST_DIMENSIONS, svd_solver="randomized", random_state=0).fit_transform(vectors)
    lengths: Matrix = np.linalg.norm(reduced, axis=1, keepdims=True)
    return reduced / np.maximum(lengths, 1e-12)


def read_vectors(data: bytes, dimensions: int) -> Matrix:
    """Return vectors from what halfvec_send() wrote, one after another: two counts, then big-endian halves."""
    import numpy as np

    row = HEADER_BYTES + 2 * dimensions
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, row)
    halves = np.ascontiguousarray(rows[:, HEADER_BYTES:]).view(">f2")
    vectors: Matrix = halves.astype(np.float64)
    return vectors


def kept(before: Sequence[Key | None], groups: Sequence[int]) -> list[Key | None]:
    """Return for each group the old cluster whose id it keeps: with most members in common, half of either at least."""
    shared = Counter((old, group) for old, group in zip(before, groups, strict=True) if old is not None and group >= 0)
    olds, news = Counter(old for old in before if old is not None), Counter(group for group in groups if group >= 0)
    found: dict[int, Key] = {}
    for (old, group), n in sorted(shared.items(), key=lambda pair: (-pair[1], pair[0][1], str(pair[0][0]))):
        half = 2 * n >= min(olds[old], news[group])
        if half and group not in found and old not in found.values():
            found[group] = old
    return [found.get(group) for group in range(max(news, default=-1) + 1)]


def words_of(texts: Sequence[str]) -> Counter[str]:
    """Return in how many texts each word is: letters and digits only, so that no text can be more than words."""
    counted: Counter[str] = Counter()
    for text in texts[:MOST_TEXTS]:
        found = {word for word in _WORD.findall(text[:MOST_CHARACTERS].lower()) if word.isalnum()}
        counted.update(word for word in found - _COMMON if not word.isdigit())
    return counted


def named(clusters: Mapping[Key, Sequence[str]], most: int = WORDS) -> dict[Key, str]:
    """Return a few words for each cluster: frequent in its texts, rare in those of others; empty without any."""
    counted = {key: words_of(texts) for key, texts in clusters.items()}
    everywhere: Counter[str] = Counter()
    for words in counted.values():
        everywhere.update(words)
    usual = everywhere.total() / max(1, len(counted))
    return {key: _best(words, everywhere, usual, most) for key, words in counted.items()}


def _best(words: Counter[str], everywhere: Counter[str], usual: float, most: int) -> str:
    """Return the words that weigh most; a word of a single text names a cluster only where there is no other."""
    total = words.total() or 1
    often = [word for word, n in words.items() if n > 1] or list(words)
    weights = {word: words[word] / total * math.log1p(usual / everywhere[word]) for word in often}
    return " ".join(sorted(weights, key=lambda word: (-weights[word], word))[:most])


def main() -> None:
    """Group the vectors on stdin."""
    dimensions, minimum = int(sys.argv[1]), int(sys.argv[2])
    json.dump(grouped(read_vectors(sys.stdin.buffer.read(), dimensions), minimum), sys.stdout)


if __name__ == "__main__":
    main()
