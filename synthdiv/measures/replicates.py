"""Comparisons of arms whose replicate is a trained model: the difference over shared prompts in closed form, its error
pooled over arms, equivalence, power, and the smallest effect that a design detects (docs/statistics.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from synthdiv.core.lazy import np, special
from synthdiv.measures.intervals import NONE, Ends

ENOUGH = 3  # replicates; with fewer a comparison is only described
ALPHA, POWER = 0.05, 0.8
DESCRIPTIVE = f"descriptive: fewer than {ENOUGH} replicates"
NO_POOL = "not pooled: an arm does not vary"
NO_VARIATION = "no interval: the same in every replicate"


@dataclass(frozen=True)
class ReplicateError:
    """The mean square (with `df`) of the interaction of arms and replicates, the error of paired differences; `sd` of
    the models of one arm; p of `equal_errors` (NaN: an arm does not vary)."""

    mean_square: float
    df: int
    sd: float
    p: float

    @property
    def homogeneous(self) -> bool:
        return self.p >= ALPHA


@dataclass(frozen=True)
class Effect:
    """A difference of arms: its standard error and degrees of freedom (NaN: descriptive), its replicates and prompts
    (`n`; 0: a measure of whole sets). `pooled`: its error comes from other arms too. `parts`: the differences to each
    of several arms, of whose best one the value is; `highest`: the best is the highest. `at_most`: the value is too
    large on average, so nothing shows that it is above a bound. No difference is beyond ± `limit`."""

    value: float
    error: float
    df: float
    replicates: int
    n: int
    pooled: bool = False
    note: str = ""
    parts: tuple[Effect, ...] = ()
    highest: bool = False
    at_most: bool = False
    limit: float = math.inf

    def interval(self, level: float = 1 - ALPHA) -> Ends:
        """The t interval, cut at what is possible; (NaN, NaN) where it is descriptive."""
        half = float(special.stdtrit(self.df, (1 + level) / 2)) * self.error
        ends = max(self.value - half, -self.limit), min(self.value + half, self.limit)
        return NONE if math.isnan(half) else ends

    def one_sided(self, bound: float = 0.0) -> tuple[float, float]:
        """p of two tests: that the difference is below `bound`, and that it is above. Better than the best is better
        than each, the largest p (Berger 1982); worse is worse than any, the smallest p times their number."""
        if not self.parts:
            t = (self.value - bound) / self.error
            return float(special.stdtr(self.df, t)), 1.0 if self.at_most else float(special.stdtr(self.df, -t))
        below, above = np.array([part.one_sided(bound) for part in self.parts]).T
        better, worse = (above, below) if self.highest else (below, above)
        ends = float(better.max()), float(np.minimum(1, len(worse) * worse.min()))
        return ends[::-1] if self.highest else ends

    def p(self, bound: float = 0.0) -> float:
        """Two-sided p that the difference is `bound`: twice the smaller of both sides."""
        return float(np.minimum(1, 2 * np.min(self.one_sided(bound))))

    def p_within(self, margin: float) -> float:
        """p of two one-sided tests that the difference lies within ± `margin`."""
        return float(np.max([self.one_sided(margin)[0], self.one_sided(-margin)[1]]))

    def standardized(self, sd: float) -> tuple[float, float, float]:
        """The difference in units of `sd` with its 95 % interval, from the noncentral t distribution."""
        t, scale = self.value / self.error, self.error / sd
        low, high = (float(special.nctdtrinc(self.df, level, t)) * scale for level in (0.975, 0.025))
        return self.value / sd, low, high


def effect(differences: np.ndarray, error: ReplicateError | None = None, factor: float = 2.0) -> Effect:
    """Return the mean of paired `differences` (prompts, replicates), or (1, replicates) of a measure of whole sets.

    V = (MS_P + MS_R) / (P R): new prompts and new replicates both. R - 1 degrees of freedom where MS_R > MS_P, else
    those of Satterthwaite for the sum. MS_P is not in V where P = 1. With a homogeneous `error` MS_R is
    P * `factor` * its mean square, on its degrees of freedom; `factor` is the sum of the squared weights of the arms in
    the difference. Prompts without a value in every replicate are left out.
    """
    table = np.asarray(differences, dtype=float)
    whole = len(table) == 1
    table = table[np.isfinite(table).all(axis=1)]
    prompts, replicates = table.shape
    value, n = float(table.mean()) if table.size else math.nan, 0 if whole else prompts
    if not table.size or replicates < ENOUGH:
        note = DESCRIPTIVE if table.size else "no prompt has a finite value in every arm and replicate"
        return Effect(value, math.nan, math.nan, replicates, n, note=note)
    pooled = error is not None and error.homogeneous
    if error is not None and pooled:
        between, df = prompts * factor * error.mean_square, error.df
    else:
        between, df = prompts * float(table.mean(axis=0).var(ddof=1)), replicates - 1
    within = replicates * float(table.mean(axis=1).var(ddof=1)) if prompts > 1 else 0.0
    if not math.sqrt(between + within) > 1e-12 * abs(value):
        return Effect(value, math.nan, math.nan, replicates, n, note=NO_VARIATION)
    parts = between**2 / df + (within**2 / (prompts - 1) if prompts > 1 else 0.0)
    dof = df if between > within else (between + within) ** 2 / parts
    draft = Effect(value, math.sqrt((between + within) / (prompts * replicates)), dof, replicates, n, pooled)
    if error is None or pooled:
        return draft
    return replace(draft, note=f"not pooled: errors of arms differ (p = {error.p:.2g})" if error.p < ALPHA else NO_POOL)


def replicate_error(arms: np.ndarray) -> ReplicateError:
    """Return the error of `arms` (arms, replicates), at least two of each; columns are replicates with equal seeds."""
    count, replicates = arms.shape
    rest = arms - arms.mean(axis=0) - arms.mean(axis=1, keepdims=True) + arms.mean()
    df = (count - 1) * (replicates - 1)
    spreads = rest.var(axis=1)
    varies = np.isfinite(spreads).all() and (spreads > 1e-24 * np.abs(arms).max() ** 2).all()
    p = 1.0 if count < 3 else equal_errors(rest) if varies and replicates >= ENOUGH else math.nan
    sd = math.sqrt(float(arms.var(axis=1, ddof=1).mean()))
    return ReplicateError(float((rest**2).sum() / df), df, sd, p)


def equal_errors(rest: np.ndarray) -> float:
    """Return p that three arms or more have equal errors, from their residuals (arms, replicates): twice the smaller of
    Bartlett's p, which sees several arms that differ, and that of the noisiest arm: an F test of its sum of squares
    against the mean of the others to that of the others among themselves (Russell and Bradley 1958), times the arms.
    A noisy arm is in the residuals of all others, which hides it from Bartlett's test where there are few."""
    count, replicates = rest.shape
    spreads, df = rest.var(axis=1, ddof=1), replicates - 1
    # scipy's `bartlett` in one go: with 2,000 arms that takes .4 s
    ratio = count * df * (math.log(spreads.mean()) - np.log(spreads).mean())
    bartlett = special.chdtrc(count - 1, ratio / (1 + (count + 1) / (3 * count * df)))
    one = (rest**2).sum(axis=1) * count / (count - 1)
    others = np.maximum((rest**2).sum() - one, 1e-12 * one)  # rounding
    noisiest = count * special.fdtrc(replicates - 1, (count - 2) * (replicates - 1), (count - 2) * one / others).min()
    return min(1.0, 2 * float(bartlett), 2 * float(noisiest))


def detectable(error: float, df: float, alpha: float = ALPHA) -> float:
    """Return the difference that a two-sided t test at `alpha` shows with 80 % power."""
    return float(special.nctdtrinc(df, 1 - POWER, special.stdtrit(df, 1 - alpha / 2))) * error


def expected(table: np.ndarray, replicates: int) -> tuple[float, float]:
    """Return the standard error and the degrees of freedom that `effect` would give `replicates` further models of the
    same prompts, from the variances of the differences (prompts, replicates) of a pilot."""
    table = table[np.isfinite(table).all(axis=1)]
    prompts, models = table.shape
    between, within = prompts * float(table.mean(axis=0).var(ddof=1)), 0.0
    if prompts > 1:
        rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
        noise = float((rest**2).sum()) / ((prompts - 1) * (models - 1))
        within = noise + replicates * max(float(table.mean(axis=1).var(ddof=1)) - noise / models, 0.0)
    parts = between**2 / (replicates - 1) + (within**2 / (prompts - 1) if prompts > 1 else 0.0)
    df = replicates - 1 if between > within else (between + within) ** 2 / parts
    return math.sqrt((between + within) / (prompts * replicates)), df


def smallest_margin(error: float, df: float, alpha: float = ALPHA) -> float:
    """Return the margin within which two one-sided tests show a difference of 0 to be with 80 % power."""
    from scipy.optimize import brentq

    return error * float(brentq(lambda margin: power_of_equivalence(margin, df, alpha) - POWER, 0, 1e4))


def power_of_equivalence(margin: float, df: float, alpha: float = ALPHA) -> float:
    """Return the probability that two one-sided tests at `alpha` show a difference of 0 to be within ± `margin`, in
    units of the true standard error, which is estimated on `df` degrees of freedom."""
    if math.isnan(margin) or math.isnan(df):
        return math.nan
    spread = np.sqrt(special.chdtri(df, (np.arange(2000) + 0.5) / 2000) / df)  # of the estimated error, to the true one
    return float(np.maximum(2 * special.ndtr(margin - special.stdtrit(df, 1 - alpha) * spread) - 1, 0).mean())


def best_on_others(singles: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Return for each replicate which of `singles` (sources, replicates) has the best mean over the *other* ones."""
    others = singles.sum(axis=1, keepdims=True) - singles
    return np.asarray(others.argmax(axis=0) if higher_is_better else others.argmin(axis=0))


def mixture_excess(singles: np.ndarray, multi: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the excess of several sources over a mixture of students of each source alone, and its size m.

    `singles` (sources, replicates, prompts) and `multi` (replicates, prompts) are log-likelihoods of human answers.
    The excess is log-mean-exp over K singles minus that of as many models of `multi`: 0 where these are no more than
    a mixture, below 0 where they are better. It is averaged over the cyclic choices of m = min(K, R - 1) different
    replicates of `multi`, each single from another replicate. Fewer models make a worse mixture, so with m < K the
    excess is too large on average. Pseudo-values (prompts, replicates) of the jackknife over replicates.
    """
    sources, replicates, _ = singles.shape
    size = min(sources, replicates - 1)

    def value(subset: np.ndarray) -> np.ndarray:
        rows = []
        for first in range(len(subset)):
            turn = np.roll(subset, -first)
            alone = singles[np.arange(sources), np.resize(turn, sources)]
            rows.append(
                special.logsumexp(alone, axis=0) - math.log(sources) - special.logsumexp(multi[turn[:size]], axis=0)
            )
        return np.mean(rows, axis=0) + math.log(size)

    all_replicates = np.arange(replicates)
    left = [value(np.delete(all_replicates, at)) for at in all_replicates]
    return replicates * value(all_replicates)[:, None] - (replicates - 1) * np.array(left).T, size


def bootstrap_interval(values: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Ends:
    """Return the percentile interval of the mean of `values` (prompts,): of these models, not of the method."""
    centre = float(np.mean(values))
    values = (np.asarray(values) - centre).astype(np.float32)
    random, n = np.random.default_rng(seed), len(values)
    step = max(1, 1_000_000 // n)
    means = np.concatenate([
        values[random.integers(n, size=(min(step, resamples - first), n), dtype=np.uint32)].mean(axis=1)
        for first in range(0, resamples, step)
    ])  # fmt: skip
    low, high = np.quantile(means, (ALPHA / 2, 1 - ALPHA / 2))
    return centre + float(low), centre + float(high)


def false_positive_rate(levels: np.ndarray) -> float:
    """Return how often two halves of equal models, the first ten of (replicates,), differ at 5 %: over all splits, the
    paired test of their differences. NaN for fewer than six, and where they are the same."""
    import itertools

    levels = levels[:10]  # 126 splits; 20 models have 92,378
    half = len(levels) // 2
    if half < ENOUGH or np.ptp(levels) == 0:
        return math.nan
    splits = [(list(one), [at for at in range(2 * half) if at not in one])
              for one in itertools.combinations(range(2 * half), half) if 0 in one]  # fmt: skip
    return float(np.mean([effect((levels[one] - levels[other])[None]).p() < ALPHA for one, other in splits]))
