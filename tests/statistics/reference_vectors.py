"""Reference vectors: what the library must answer to inputs whose answers other software computed.

`evaluate(kind, input)` only calls the library; tests/reference_vectors.jsonl holds one vector a line.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from infinito.questions import golden
from infinito.statistics import anova as variance
from infinito.statistics import correlation, reml, sequential
from infinito.statistics import paired as statistics

Answer = dict[str, Any]


def paired(b: list[float], c: list[float]) -> Answer:
    d = np.subtract(b, c)
    test = statistics.paired_t(d)
    dz, gz = statistics.effect_size(d)
    return {
        "mean_diff": test.mean,
        "sd_diff": test.sd,
        "t": test.t,
        "df": test.df,
        "p_two_sided": test.p,
        "ci95": [test.ci_low, test.ci_high],
        "cohen_dz": dz["value"],
        "hedges_gz": gz["value"],
        "dz_ci95_noncentral_t": [dz["ci_low"], dz["ci_high"]],
        "signflip_exact_p": statistics.sign_flip(d, rng=np.random.default_rng(0)),
        "wins": int((d > 0).sum()),
        "nonzero": int((d != 0).sum()),
        "sign_test_p": statistics.sign_test(d),
        "prob_improvement": statistics.probability_of_improvement(d)["value"],
    }


def wilcoxon(d: list[float]) -> Answer:
    return dict(zip(["W_plus", "W_min", "p_two_sided"], statistics.wilcoxon(d), strict=True))


def tost(b: list[float], c: list[float], eps: float) -> Answer:
    d = np.subtract(b, c)
    test = statistics.tost(d, eps)
    rope, better = statistics.bayes_rope(d, eps)
    return {
        "t_lower": test.t_lower,
        "p_lower": test.p_lower,
        "t_upper": test.t_upper,
        "p_upper": test.p_upper,
        "p_tost": test.p,
        "ci90": [test.ci_low, test.ci_high],
        "bayes_P_rope": rope,
        "bayes_P_better": better,
    }


def multiple(p: list[float]) -> Answer:
    return {
        "holm": statistics.adjust(p, "holm"),
        "bh": statistics.adjust(p, "fdr_bh"),
        "bonferroni": statistics.adjust(p, "bonferroni"),
    }


def anova(Y: list[Any]) -> Answer:
    y = variance.grid(Y)
    ms = variance.mean_squares(y)
    raw, limits, crossed = variance.components(ms), variance.intervals(ms), variance.crossed_test(ms)
    f, p = variance.f_test(ms)["init"]
    answer = {
        "grand_mean": ms.grand_mean,
        "MS_init": ms.init,
        "MS_data": ms.data,
        "MS_inter": ms.interaction,
        "var_init": raw["init"],
        "var_data": raw["data"],
        "ci95_var_init_mls": limits["init"],
        "ci95_var_data_mls": limits["data"],
        "F_init": f,
        "p_init": p,
        "crossed_se": crossed.se,
        "crossed_df": crossed.df,
        "crossed_t": crossed.t,
        "crossed_p": crossed.p,
        "crossed_ci95": [crossed.ci_low, crossed.ci_high],
        "blup_init": variance.blup(y),
        "reml": list(reml.reml(ms).values()),
    }
    if y.shape[2] == 1:
        return answer | {"var_inter_plus_resid": raw["interaction_and_residual"]}
    return answer | {
        "MS_resid": ms.residual,
        "var_inter": raw["interaction"],
        "var_resid": raw["residual"],
        "ci95_var_inter_mls": limits["interaction"],
        "ci95_var_resid": limits["residual"],
    }


def icc(Y: list[Any]) -> Answer:
    return {f"ICC_{name}": value for name, value in variance.icc(variance.mean_squares(variance.grid(Y))).items()}


def spearman(x: list[float], y: list[float]) -> Answer:
    result = correlation.spearman(x, y)
    return {
        "rho": result.rho,
        "p_asymptotic_t": result.p,
        "ci95_bonett_wright": [result.ci_low, result.ci_high],
        "kendall_tau_b": correlation.kendall(x, y),
    }


def bootstrap(x: list[float], seed: int) -> Answer:
    bca, percentile = (
        statistics.bootstrap(x, rng=np.random.default_rng(seed), method=method) for method in ("BCa", "percentile")
    )
    return {
        "bca_ci95": [bca["ci_low"], bca["ci_high"]],
        "percentile_ci95": [percentile["ci_low"], percentile["ci_high"]],
        "boot_se": bca["standard_error"],
        "acceleration": statistics.acceleration(x),
    }


def best_of_k(k: int, sd: float, mean: float) -> Answer:
    largest = statistics.expected_maximum(k)
    return {"E_max_std_normal": largest, "expected_best_under_null": mean + largest * sd}


def expected_max(v: list[float], n: int) -> Answer:
    return {
        "with_replacement": golden.expected_best(v, n),
        "unbiased_without_replacement": golden.expected_best(v, n, replacement=False),
    }


def e_value(d: list[float], g: float) -> Answer:
    return {"log_e": sequential.log_e_value(d, g), "t": statistics.paired_t(d).t}


def power(d: float, power: float | None = None, n: int | None = None) -> Answer:
    if n is not None:
        return {"power": statistics.power(d, n)}
    assert power is not None
    needed = statistics.pairs_needed(d, power)
    return {"n_real": needed, "n": math.ceil(needed)}


KINDS: dict[str, Callable[..., Answer]] = {
    function.__name__: function
    for function in (
        paired,
        wilcoxon,
        tost,
        multiple,
        anova,
        icc,
        spearman,
        bootstrap,
        best_of_k,
        expected_max,
        e_value,
        power,
    )
}


def _plain(value: Any) -> Any:
    """Arrays and numpy numbers as plain Python."""
    if isinstance(value, dict):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def evaluate(kind: str, input: dict[str, Any]) -> Answer:
    """The library's answer to the input of a vector of this kind, with the keys of its `expected`, in plain Python."""
    return _plain(KINDS[kind](**input))
