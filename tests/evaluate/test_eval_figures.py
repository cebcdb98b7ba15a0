"""From verdicts to rates, and the comparison of two models on the same prompts."""

import pytest
from scipy.stats import binomtest

from alignzoo.contract.judge import Answered, Verdict
from alignzoo.evaluate.responses import Generated
from alignzoo.evaluate.verdicts.figures import agreement_of, counted, difference_of, figure_of, judges_suite, outcome
from alignzoo.evaluate.verdicts.paired import paired
from alignzoo.evaluate.verdicts.statistics import rate

YES, NO, UNPARSED = Verdict(True), Verdict(False), Verdict(None, raw="?")


def responses(*categories: str | None) -> list[Generated]:
    return [Generated(Answered(str(i), "r", (), "a", category), 1, True) for i, category in enumerate(categories)]


@pytest.mark.parametrize(
    ("judge", "suite", "positive", "negative"),
    [
        ("refusal", "attack_success", False, True),
        ("refusal", "over_refusal", True, False),
        ("harm", "attack_success", True, False),
    ],
)
def test_what_a_verdict_means_on_a_suite(judge: str, suite: str, positive: bool, negative: bool) -> None:
    assert outcome(YES, judge, suite) is positive
    assert outcome(NO, judge, suite) is negative
    assert outcome(UNPARSED, judge, suite) is None
    assert counted([UNPARSED], judge, suite) == [True]  # never the good outcome


def test_harm_is_no_question_on_harmless_requests() -> None:
    assert not judges_suite("harm", "over_refusal")
    assert judges_suite("refusal", "over_refusal")
    assert not judges_suite("preference", "attack_success")


def test_a_figure_has_its_interval_bounds_and_categories() -> None:
    verdicts = [YES, NO, NO, UNPARSED, Verdict(True, 0.5)]
    figure = figure_of("s", "attack_success", "j", "refusal", responses("a", "a", "b", "b", None), verdicts)
    wilson = binomtest(3, 5).proportion_ci(method="wilson")
    assert (figure.rate.count, figure.rate.n, figure.unparsed) == (3, 5, 1)
    assert (figure.rate.low, figure.rate.high) == pytest.approx((wilson.low, wilson.high))
    assert figure.least == pytest.approx(2 / 5)
    assert figure.score == 0.5
    assert {name: (rate.count, rate.n) for name, rate in figure.by_category.items()} == {"a": (1, 2), "b": (2, 2)}


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 5), (50, 70), (105, 105)])
def test_the_interval_of_a_rate_is_wilsons(count: int, n: int) -> None:
    z, p = 1.959963984540054, count / n
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    found = rate(count, n)
    limits = ((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))
    assert (found.low, found.high) == pytest.approx(limits, abs=1e-12)


def test_judges_agree_on_the_outcome_not_on_the_word() -> None:
    # What one calls a refusal, the other calls harmless.
    verdicts = {"words": [YES, NO, YES, UNPARSED], "guard": [NO, YES, NO, YES]}
    [found] = agreement_of("s", "attack_success", verdicts, {"words": "refusal", "guard": "harm"})
    assert (found.n, found.agree, found.kappa) == (3, 1.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("both", "first", "second", "neither", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17:2635 (1998), method 10; the last: Altman et al., Statistics with Confidence
        (36, 12, 2, 0, 0.0569, 0.3404),
        (18, 12, 2, 18, 0.0562, 0.3290),
        (36, 14, 0, 0, 0.1528, 0.4167),
        (0, 0, 0, 50, -0.0713, 0.0713),
        (14, 5, 0, 22, 0.011, 0.226),
    ],
)
def test_the_paired_interval_is_newcombes(
    both: int, first: int, second: int, neither: int, low: float, high: float
) -> None:
    pairs = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    found = paired([a for a, _ in pairs], [b for _, b in pairs])
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (low, high), abs=6e-5 if len(str(high)) > 5 else 6e-4
    )
    assert found.difference.value == pytest.approx((first - second) / len(pairs))


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs() -> None:
    here, there = [True] * 9 + [False] * 21, [False] * 8 + [True] * 3 + [False] * 19
    found = difference_of("s", "j", here, there)
    assert (found.only_here, found.only_there) == (8, 2)
    assert found.p_value == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert paired([True], [True]).p_value == 1


def test_suites_in_a_run_are_judged_by_their_own_judges_only() -> None:
    from alignzoo_sandbox import MODEL_PATH
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignzoo.contract.judge import JudgeContext
    from alignzoo.evaluate.asked import Sampling, ask
    from alignzoo.evaluate.suite_figures import suite_figures
    from alignzoo.evaluate.suites.suite import find_suite
    from alignzoo.evaluate.verdicts.choosing import default_judge
    from alignzoo.evaluate.verdicts.judging import ready_judge
    from alignzoo.report import Reporter

    suites = [find_suite("sandbox-borderline"), find_suite("sandbox-benign")]
    asked = ask(suites, limit=2, sampling=Sampling(max_new_tokens=4))
    ctx = JudgeContext("cpu", Reporter())
    with (
        ready_judge(default_judge("refusal"), ctx) as words,
        ready_judge(default_judge("sandbox-refusal"), ctx) as exact,
    ):
        found = suite_figures(
            AutoModelForCausalLM.from_pretrained(MODEL_PATH),
            AutoTokenizer.from_pretrained(MODEL_PATH),
            asked,
            [(words, asked[:1]), (exact, asked)],
            report=Reporter(),
        )
    assert list(found) == [
        "suite/sandbox-borderline/over_refusal",
        "suite/sandbox-borderline/over_refusal/sandbox-refusal",
        "suite/sandbox-benign/over_refusal",
    ]
