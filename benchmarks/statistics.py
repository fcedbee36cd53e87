"""AUROC with an interval, and the bootstrap over patients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.table import Row, compare, missing

MILLION, MANY = 1_000_000, 100_000
BOOTSTRAPS, TIMED = 1000, 2
RESAMPLES = 200


def rows() -> Iterator[Row]:
    """Yield the comparisons."""
    yield delong_against_bootstraps()
    yield delong_against_confidenceinterval()
    yield clustered()


def scored(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, score and patient of n rows, about two a patient."""
    rng = np.random.default_rng(0)
    truth = rng.random(n) < 0.3
    return truth, truth + rng.normal(size=n), rng.integers(0, n // 2, n)


def delong_against_bootstraps() -> Row:
    """A million rows; two bootstraps are timed of the thousand."""
    from sklearn.metrics import roc_auc_score

    from medtl.metrics.ranking import auroc

    truth, score, _ = scored(MILLION)
    rng = np.random.default_rng(1)

    def theirs() -> object:
        drawn = [rng.integers(0, MILLION, MILLION) for _ in range(TIMED)]
        return [roc_auc_score(truth[rows], score[rows]) for rows in drawn]

    return compare(
        f"AUROC with 95 % interval, n = {MILLION:,}",
        f"scikit-learn, {BOOTSTRAPS} bootstraps",
        lambda: auroc(truth, score).value,
        theirs,
        lambda a, b: f"{a:.4f} and {np.mean(b):.4f}; {TIMED} bootstraps timed",  # type: ignore[str-format, arg-type]
        target=1000,
        times=BOOTSTRAPS / TIMED,
    )


def delong_against_confidenceinterval() -> Row:
    """A million rows, both by DeLong."""
    from medtl.metrics.ranking import auroc

    what, other, target = f"AUROC with 95 % interval, n = {MILLION:,}", "confidenceinterval", 20
    try:
        from confidenceinterval import roc_auc_score
    except ImportError as fault:
        return missing(what, other, fault, target)
    truth, score, _ = scored(MILLION)
    whole = truth.astype(int)  # it takes no booleans

    def ours() -> object:
        found = auroc(truth, score)
        return found.value, (found.low, found.high)

    def shown(*both: object) -> str:
        return " and ".join(f"{v:.4f} ({lo:.4f} to {hi:.4f})" for v, (lo, hi) in both)  # type: ignore[misc]

    return compare(what, other, ours, lambda: roc_auc_score(whole, score), shown, target=target)


def clustered() -> Row:
    """Average over the resamples of patients: all of ours, two of scikit-learn's."""
    from sklearn.metrics import roc_auc_score

    from medtl.metrics.ranking import area_under_roc, coarsen, rank
    from medtl.metrics.resampling import bootstrap_counts
    from medtl.metrics.scores import CI

    truth, score, patients = scored(MANY)
    members = np.argsort(patients, kind="stable")
    sizes = np.bincount(patients)
    starts = np.cumsum(sizes) - sizes
    present = np.flatnonzero(sizes)
    rng = np.random.default_rng(1)

    def ours() -> object:
        ranking = coarsen(rank(truth, score, patients))
        (draws,) = bootstrap_counts(ranking, [area_under_roc], CI(resamples=RESAMPLES))
        return draws

    def theirs() -> object:
        return [roc_auc_score(truth[rows], score[rows]) for rows in _drawn()]

    def _drawn() -> Iterator[np.ndarray]:
        for _ in range(TIMED):
            picked = rng.choice(present, present.size)
            within = np.arange(sizes[picked].sum())
            within -= np.repeat(np.cumsum(sizes[picked]) - sizes[picked], sizes[picked])
            yield members[np.repeat(starts[picked], sizes[picked]) + within]

    return compare(
        f"{RESAMPLES} bootstraps of patients, AUROC, n = {MANY:,}",
        "scikit-learn on drawn patients",
        ours,
        theirs,
        lambda a, b: f"{np.mean(a):.4f} and {np.mean(b):.4f}; {TIMED} bootstraps timed",  # type: ignore[arg-type]
        target=10,
        times=RESAMPLES / TIMED,
    )
