"""Can two sets of vectors be told apart? A classifier that tries, a distance, and the rows that give it away.

Permutations say what chance alone reaches, so nothing is assumed about the vectors.
Sources: Friedman (2003), "On Multivariate Goodness-of-Fit and Two-Sample Testing"; Gretton et al. (2012), "A Kernel
Two-Sample Test", JMLR 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[Any, np.dtype[np.float64]]

FOLDS = 5
MOST_DIMENSIONS = 50
CLASSIFIER_PERMUTATIONS = 40
KERNEL_PERMUTATIONS = 300
MOST_FOR_KERNEL = 500


@dataclass(frozen=True, slots=True)
class Domain:
    """What came of it: ``auc`` over ``chance`` is a difference; ``telling`` are places of current rows, best first."""

    auc: float
    chance: float
    mmd: float
    mmd_p: float
    telling: tuple[int, ...]

    @property
    def drifted(self) -> bool:
        """Tell whether both say that the sets differ, and the classifier is better than a coin by what matters."""
        return self.auc > max(self.chance, 0.55) and self.mmd_p <= 0.01


def compare(
    reference: Sequence[Sequence[float]], current: Sequence[Sequence[float]], *, seed: int = 0, telling: int = 10
) -> Domain:
    """Return how well current rows are told from reference rows, of which there are 10 each at least."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # a worker has other things to do
        rows = _reduced(np.asarray([*reference, *current], dtype=np.float64))
        truth = np.repeat([0, 1], [len(reference), len(current)])
        source = np.random.default_rng(seed)
        chances = _chances(rows, truth, seed)
        by_chance = [_auc(shuffled, _chances(rows, shuffled, seed)) for shuffled in _shuffles(truth, source)]
        mmd, mmd_p = _kernel_test(rows, truth, source)
        order = np.argsort(-chances[len(reference) :], kind="stable")[:telling]
        chance = float(np.quantile(by_chance, 0.95))
        return Domain(_auc(truth, chances), chance, mmd, mmd_p, tuple(int(place) for place in order))


def _shuffles(truth: Matrix, source: Any) -> list[Matrix]:
    return [source.permutation(truth) for _ in range(CLASSIFIER_PERMUTATIONS)]


def _reduced(rows: Matrix) -> Matrix:
    """Return the directions in which rows differ most, which sees no labels and so favours no set."""
    from sklearn.decomposition import PCA

    centred: Matrix = rows - rows.mean(axis=0)
    most = min(MOST_DIMENSIONS, *rows.shape)
    if not centred.any() or most == rows.shape[1]:
        return centred
    reduced: Matrix = PCA(most, svd_solver="randomized", random_state=0).fit_transform(centred)
    return reduced


def _chances(rows: Matrix, truth: Matrix, seed: int) -> Matrix:
    """Return for each row the chance that it is current, by a classifier that has not seen it."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    chances = np.full(len(rows), 0.5)
    if not rows.any():
        return chances
    scaled = rows / max(rows.std(), 1e-12)
    for train, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(scaled, truth):
        model = LogisticRegression(max_iter=200, tol=1e-3).fit(scaled[train], truth[train])
        chances[held] = model.predict_proba(scaled[held])[:, 1]
    return chances


def _auc(truth: Matrix, chances: Matrix) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, chances))


def _kernel_test(rows: Matrix, truth: Matrix, source: Any) -> tuple[float, float]:
    """Return the unbiased squared distance under a Gaussian kernel, and its chance if there were none."""
    import numpy as np

    kept = np.concatenate([np.flatnonzero(truth == side)[:MOST_FOR_KERNEL] for side in (0, 1)])
    kernel, labels = _kernel(rows[kept]), truth[kept]
    found = _mmd(kernel, labels)
    shuffled = [_mmd(kernel, source.permutation(labels)) for _ in range(KERNEL_PERMUTATIONS)]
    at_least = sum(each >= found - 1e-12 for each in shuffled)
    return found, (1 + at_least) / (1 + KERNEL_PERMUTATIONS)


def _kernel(rows: Matrix) -> Matrix:
    """Return the Gaussian kernel as wide as the median distance, without what a row is to itself."""
    import numpy as np

    squares = (rows**2).sum(axis=1)
    apart = np.maximum(0.0, squares[:, None] + squares[None, :] - 2 * rows @ rows.T)
    width = float(np.median(apart[np.triu_indices(len(rows), 1)])) or 1.0
    kernel: Matrix = np.exp(-apart / width)
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _mmd(kernel: Matrix, labels: Matrix) -> float:
    current = labels.astype(float)
    reference = 1.0 - current
    n, m = reference.sum(), current.sum()
    within = reference @ kernel @ reference / (n * (n - 1)) + current @ kernel @ current / (m * (m - 1))
    return float(within - 2 * (reference @ kernel @ current) / (n * m))
