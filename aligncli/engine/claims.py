"""Whether a study's claims hold on what was measured.

A claim is one or more sums of metrics over rows that should be positive (config/study.py). They are taken seed by
seed; with two or more seeds their 95 % confidence intervals (Student's t, paired by seed) decide: a claim holds where
all of them lie above zero, and fails where one lies below.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aligncli.config import Claim
from aligncli.engine.study_rows import RowResult, deviation, mean, paired_sums, paper_sum

Verdict = Literal["holds", "within noise", "does not hold", "undefined"]
# Two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom, as many as MAX_SEEDS needs
T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
    *(2.040, 2.037, 2.035, 2.032, 2.030, 2.028, 2.026, 2.024, 2.023, 2.021),
    *(2.020, 2.018, 2.017, 2.015, 2.014, 2.013, 2.012, 2.011, 2.010),
)


@dataclass(frozen=True)
class ClaimResult:
    """One claim. `margin` is the mean over seeds of the sum whose interval reaches lowest, `noise` its half width.

    With one seed there is no noise to compare with: `noise` is NaN and the sign alone decides. A claim on a metric
    that a run does not have, such as the AP of objects that no image shows, is undefined.
    """

    text: str
    metric: str
    holds: bool
    verdict: Verdict
    margin: float
    noise: float
    paper_margin: float
    seeds: int


def judge(claim: Claim, rows: Sequence[RowResult]) -> ClaimResult | None:
    """The claim on what was measured; None where one of its rows was not run at this scale."""
    by_name = {row.name: row for row in rows}
    involved = {name for weights in claim.weights for name in weights}
    if not all(by_name[name].measured for name in involved):
        return None
    sums = [paired_sums(weights, by_name, claim.metric) for weights in claim.weights]
    margin, noise = min(((mean(values), half_width(values)) for values in sums), key=_lowest)
    verdict = _verdict(sums)
    papers = [paper_sum(weights, by_name, claim.metric) for weights in claim.weights]
    return ClaimResult(
        text=claim.text,
        metric=claim.metric,
        holds=verdict == "holds",
        verdict=verdict,
        margin=margin,
        noise=noise,
        paper_margin=min(papers),
        seeds=len(sums[0]),
    )


def _verdict(sums: Sequence[Sequence[float]]) -> Verdict:
    """All of a claim's sums have to lie above zero, beyond their noise."""
    intervals = [(mean(values), 0.0 if len(values) < 2 else half_width(values)) for values in sums]
    if any(math.isnan(middle) for middle, _ in intervals):
        return "undefined"
    if all(middle > noise for middle, noise in intervals):
        return "holds"
    below = any(middle < -noise for middle, noise in intervals)
    return "does not hold" if below or len(sums[0]) < 2 else "within noise"


def _lowest(interval: tuple[float, float]) -> float:
    """Where an interval of a middle and half a width begins; one that is undefined comes before all others."""
    middle, noise = interval
    return -math.inf if math.isnan(middle) else middle - (0.0 if math.isnan(noise) else noise)


def count_verdicts(claims: Sequence[ClaimResult]) -> str:
    """How many claims came out how, in words. With one seed the sign alone decides, so nothing is noise."""
    counts = Counter(claim.verdict for claim in claims)
    told = f"{counts['holds']} of {len(claims)} claims hold, {counts['within noise']} are within noise, "
    told += f"{counts['does not hold']} do not hold"
    return told + (f", {counts['undefined']} are undefined" if counts["undefined"] else "")


def explain_margins(claims: Sequence[ClaimResult]) -> str:
    """What their margins are, in words."""
    if all(claim.seeds == 1 for claim in claims):
        return "margin: the smallest difference that the claim needs."
    return (
        "margin: of the differences that the claim needs the least sure one, paired by seed, ± half its 95 % "
        "confidence interval (Student's t)."
    )


def half_width(values: Sequence[float]) -> float:
    """Half the 95 % confidence interval of the mean; NaN for one value, and where a value is NaN."""
    return T_95[len(values) - 2] * deviation(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
