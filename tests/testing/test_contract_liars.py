"""Every lie is caught, by the rule that it breaks, in words that name the rule."""

from __future__ import annotations

from typing import Any

import heavy_card
import liars
import lying_aggregations as aggregations
import lying_controllers as controllers
import lying_judges as judges
import lying_losses as losses
import lying_rewards as rewards
import lying_selectors as selectors
import pytest
from liars import REFERENCE, card

from alignzoo.plugin import Card
from alignzoo.testing import ContractError, check_method, checks_for


def coupled(method: type, **facts: Any) -> Card:
    return card(method, batch_coupled=True, **facts)


def aggregator(method: type, **facts: Any) -> Card:
    return coupled(method, aggregates=True, options=liars.Temperature, **facts)


def logistic(method: type, **facts: Any) -> Card:
    return card(method, needs=REFERENCE, **facts)


def of_responses(method: type, **facts: Any) -> Card:
    return card(method, needs=losses.READS_KL, reads="responses", batch_coupled=True, **facts)


def of_lists(method: type, **facts: Any) -> Card:
    return card(method, needs=REFERENCE, reads="lists", **facts)


def of_chosen(method: type, **facts: Any) -> Card:
    return card(method, reads="chosen", swaps=False, **facts)


def of_tokens(method: type, **facts: Any) -> Card:
    return card(method, needs=frozenset({"token-logps"}), **facts)


PAIRS = frozenset({"pairs"})


def sam(method: type, *, passes: int = 2, **facts: Any) -> Card:
    return card(method, options=controllers.Rho, passes=passes, **facts)


LIES: list[tuple[Card, str, str]] = [
    (logistic(liars.Reduced), "one-value-per-pair", r"shape \(\)"),
    (logistic(liars.Peeking), "declared-fields", "chosen_scores read at its defaults, and needs do not name 'scores'"),
    (logistic(liars.PeekingThroughACopy), "declared-fields", "groups read"),
    (card(liars.Logistic), "declared-fields", "needs do not name 'reference'"),
    (card(liars.Logistic, needs=REFERENCE | {"scores"}), "declared-fields", "the declared need 'scores' to be used"),
    (
        logistic(liars.DeclaresForNothing, options=liars.NeedsWhenFancyOptions),
        "declared-fields",
        "the declared need 'token-logps' to be used",
    ),
    (logistic(liars.Dead, options=liars.DeadOptions), "no-dead-option", "option 'strength' to change something"),
    (logistic(liars.Unguessable, options=liars.WordOptions), "no-dead-option", r"Field\(\.\.\., examples"),
    (logistic(liars.Detached), "gradcheck", "autograd's gradient to be the numerical one"),
    (logistic(liars.Overflowing), "finite", "finite values at a margin of -5000 nats"),
    (logistic(liars.NaNGradient), "finite", "finite gradients at a margin of -5000"),
    (logistic(liars.Coupled), "independent-pairs", "declare batch_coupled=True"),
    (card(liars.PaddingCoupled, needs=frozenset({"token-logps"})), "independent-pairs", "use the mask, not the width"),
    (logistic(liars.FirstPairCounts), "permutation", "values of permuted pairs"),
    (logistic(liars.OneSidedRewards), "swap", "rewards of swapped pairs"),
    (coupled(liars.Forgets, needs=REFERENCE), "state", r"running statistic into state_dict\(\)"),
    (logistic(liars.CountsCalls), "state", "two evaluations of the same batch"),
    (logistic(liars.SavesAnObject, options=liars.Beta), "state", r"state_dict\(\) contains a Beta"),
    (logistic(liars.Fails), "permutation", "ZeroDivisionError: by the author\n  raised in __call__, liars.py:"),
    (logistic(liars.Logistic, options=liars.LooseOptions), "options", "an unknown option to be refused"),
    (logistic(liars.Logistic, options=liars.ThawedOptions), "options", "ThawedOptions.beta can be set"),
    (card(liars.Logistic, kind="robust"), "target", "a subclass of RobustWrapper"),
    (card(liars.Logistic, target="liars:Missing"), "target", "has no attribute 'Missing'"),
    (heavy_card.CARD, "card-without-torch", "importing heavy_card imports torch"),
    (aggregator(liars.WrongWeights), "weights-are-the-gradient", "correct the closed form"),
    (aggregator(liars.OverflowingMinimum), "finite", "finite objective where losses reach"),
    (card(liars.OverflowingValues), "finite", "finite per_pair at a margin of"),
    (card(liars.SilentReduction, needs=frozenset({"groups"})), "declared-coupling", "expected aggregates=True"),
    (coupled(liars.SilentReduction, aggregates=True), "declared-fields", "groups read"),
    (card(liars.ForgetsInside, needs=frozenset({"swap"})), "state", r"running statistic into state_dict\(\)"),
    (card(liars.ForgetsInside), "declared-swap", r"no pairs.swap\(\) without the need 'swap'"),
    (card(liars.SilentAggregator, options=liars.Temperature), "declared-coupling", "expected aggregates=True"),
    (coupled(liars.Flat, aggregates=True), "declared-coupling", "since the card says aggregates"),
    (aggregator(liars.InOrder), "permutation", "not to depend on the order of the pairs"),
    (card(liars.CentredValues), "declared-coupling", "not to depend on the others"),
    (card(liars.CentredValues), "splits", "a relative difference"),
    (card(liars.PeekingWrapper), "declared-fields", "ref_chosen_logps read"),
    (card(liars.FlatWeights, options=liars.Temperature), "shapes", "to be detached"),
    (sam(controllers.Subtracts), "restoration", "changed weights"),
    (sam(controllers.LeavesAfterAnError), "restoration-after-failure", "changed weights .* forward 3 of 4 failed"),
    (sam(controllers.LeavesAtItsOwnCount), "restoration-after-failure", "changed weights"),
    (sam(controllers.UnfreezesAll), "restoration", "changed requires_grad flags"),
    (card(controllers.LeavesAHook, options=controllers.EveryOther), "restoration", "changed hooks"),
    (sam(controllers.PerMicroBatch), "accumulation", "an option scope='microbatch'"),
    (sam(controllers.OncePerStepOnly, passes=1), "passes", "at most 1 forward-backward pass in a step; found 2"),
    (sam(controllers.Silent), "survival", "to log geometry/survival; found nothing in step 0"),
    (sam(controllers.ZeroIsNotPlain), "radius-zero", "bit for bit, at rho=0"),
    (card(controllers.ForgetsMomentum), "state", "another gradient in step 3"),
    (card(controllers.RankNoise), "ranks", "the same on all ranks"),
    (sam(controllers.ReportsThePerturbed), "step-report", "not the one at the perturbed weights"),
    (card(controllers.AsksForAProbe), "declared-probe", r"no probe\(None\) without the need 'probe'"),
    (card(controllers.Plain, needs=frozenset({"probe"})), "declared-probe", "is never called"),
    (card(controllers.MovesTheReference), "declared-reference", r"moving_reference\(\) not to be called"),
    (card(controllers.Plain, moves_reference=True), "declared-reference", "found that it is not"),
    (card(controllers.EvaluatesOthers), "evaluation", "the initial weights in for_evaluation"),
    (card(controllers.Stubborn), "restoration-after-failure", "an error inside a step to come out of it"),
    (card(liars.Flip), "declared-swap", r"no pairs.swap\(\) without the need 'swap'"),
    (card(liars.Flat, needs=frozenset({"swap"})), "declared-swap", r"that pairs\.swap\(\) is never called"),
    (card(rewards.Relabels, needs=frozenset({"reward"})), "declared-swap", r"no pairs.swap\(\) without"),
    (card(rewards.Relabels, needs=frozenset({"swap"})), "declared-fields", "needs do not name 'scores'"),
    (
        card(rewards.Relabels, needs=frozenset({"reward", "swap", "groups"})),
        "declared-fields",
        "the declared need 'groups' to be used",
    ),
    (card(liars.Flat, needs=frozenset({"reward"})), "declared-fields", "the declared need 'reward' to be used"),
    (logistic(liars.Forgets), "state", r"running statistic into state_dict\(\)"),
    (of_responses(losses.WithoutKL), "declared-fields", "the declared need 'mismatched' to be used"),
    (
        card(losses.PerResponse, needs=REFERENCE | {"labels"}, reads="responses", batch_coupled=True),
        "declared-fields",
        "roles read at its defaults, and needs do not name 'mismatched'",
    ),
    (
        card(losses.PerResponse, needs=REFERENCE | {"mismatched"}, reads="responses", batch_coupled=True),
        "declared-fields",
        "labels read at its defaults, and needs do not name 'labels'",
    ),
    (of_responses(losses.ValuesOfKL), "one-value-per-pair", r"of shape \(8,\) .* found shape \(16,\)"),
    (of_responses(losses.RewardsByLabel), "swap", "the same rewards under the opposite label"),
    (of_responses(losses.DetachedResponses), "gradcheck", "autograd's gradient to be the numerical one"),
    (
        card(losses.PerResponse, needs=losses.READS_KL, reads="responses"),
        "independent-pairs",
        "the values of a response not to depend on the others",
    ),
    (of_lists(losses.AsWideAsTheLongest), "independent-pairs", "the values of a list not to depend on the others"),
    (of_lists(losses.FirstIsBest), "permutation", "in another order with the same ranks"),
    (of_chosen(losses.Shared), "independent-pairs", "the values of a response not to depend on the others"),
    (of_chosen(losses.Shared), "splits", "a relative difference"),
    (of_chosen(losses.CouplesByAnOption, options=losses.TokensOptions), "independent-pairs", "with by_token=True"),
    (of_chosen(losses.LogsAWord), "metrics", "a finite number as 'size'; found 'large'"),
    (of_chosen(losses.LogsAVector), "metrics", "a finite number as 'logps'; found tensor"),
    (of_chosen(losses.LogsNaN), "metrics", "a finite number as 'mean'; found tensor.nan"),
    (of_chosen(losses.LogsUnderAnOddName), "metrics", "found 'mean log-prob'"),
    (of_chosen(losses.MovesWhileItLogs), "metrics", r"metrics\(\) to leave the method as it was"),
    (of_chosen(losses.ForgetsAfterwards), "state", r"running statistic into state_dict\(\)"),
    (card(losses.OneSided), "around", "a loss that reads responses, since the card says so; found AttributeError"),
    (card(losses.WrapperThatLogsAWord), "metrics", "a finite number as 'largest'"),
    (card(aggregations.OneNumber), "one-logp-per-response", r"shape \(\)"),
    (of_tokens(aggregations.Frozen), "gradcheck", "differentiated in the policy's log-probs"),
    (of_tokens(aggregations.Perplexity), "finite", "inf"),
    (of_tokens(aggregations.ByTheWidth), "of-its-prompt", "another when the other prompts are taken away"),
    (of_tokens(aggregations.ShortestOfAll), "of-its-prompt", "another when the other prompts are taken away"),
    (card(aggregations.ByRank), "any-label", "the same log-probs under the opposite labels"),
    (card(aggregations.OfThePolicy), "any-model", "responses.logps read"),
    (card(aggregations.Tail), "one-logp-per-response", "a finite|failed|TypeError|NoneType"),
    (card(aggregations.Total, needs=frozenset({"token-logps"})), "declared-fields", "'token-logps' to be used"),
    (of_tokens(aggregations.Drawn), "repeatable", "two evaluations of the same batch"),
    (of_tokens(aggregations.WeighedAtRandom), "token-weights", "the same weights for the same tokens"),
    (of_tokens(aggregations.WeighedByAllPrompts), "token-weights", "the responses of its prompt alone"),
    (of_tokens(aggregations.OneWeightEach), "one-logp-per-response", "returned shape"),
    (of_tokens(aggregations.Unbounded), "one-logp-per-response", "returned NaN or infinity"),
    (of_tokens(aggregations.PeeksAtHiddenStates), "token-weights", "tokens.hidden read"),
    (
        card(aggregations.Weighed, needs=frozenset({"token-logps", "hidden-states"})),
        "token-weights",
        "that they are not",
    ),
    (card(aggregations.Total, options=aggregations.Power), "no-dead-option", "option 'power' to change something"),
    (card(selectors.Nothing), "selection", "returned a NoneType"),
    (card(selectors.ByNumber), "selection", "rows names row 111"),
    (card(selectors.Twice), "selection", "rows names a row twice"),
    (card(selectors.FlipsWhatItDrops), "selection", "flipped names a row that is not kept"),
    (card(selectors.WholeResponse, shapes=PAIRS), "selection", "it moves 5 of the 5 tokens|it moves"),
    (card(selectors.Ordered), "selection", "keeps the order of its rows, which its card does not say"),
    (card(selectors.Drawn), "repeatable", "the same selection from a new object"),
    (card(selectors.Thinned, options=selectors.DeadOptions), "no-dead-option", "option 'depth' to change something"),
    (card(selectors.Peeks), "declared-needs", "ctx.safe to be read only with the need 'safety'"),
    (card(selectors.Thinned, needs=frozenset({"scores"})), "declared-needs", "the declared need 'scores' to be used"),
    (card(selectors.AsksForTheModel), "selection", "reads ctx.model, and its card lacks loads=True"),
    (card(selectors.Thinned, loads=True), "declared-needs", "loads=True to ask for ctx.model"),
    (card(selectors.Thinned, orders=True), "declared-needs", "orders=True to keep the order"),
    (card(selectors.TrainsThePolicy, loads=True, shapes=PAIRS), "policy-unchanged", "bit for bit"),
    (card(selectors.DrawsFromTorch), "policy-unchanged", "torch's random state"),
    (card(judges.OneTooFew), "verdicts", "6 of Verdict; found 5"),
    (card(judges.Words), "verdicts", "6 of Verdict; found 6: str"),
    (card(judges.Percent), "verdicts", r"with a score in \[0, 1\]"),
    (card(judges.ByPlace), "independent-responses", "depends on its own response only"),
    (card(judges.Drawn), "repeatable", "the same verdicts from a new object"),
    (card(judges.NewName), "identity", "one and the same text"),
    (card(judges.Neither, measures="preference"), "verdicts", "first, second or tie"),
    (card(rewards.OneTooFew), "scores", "a list of 8 scores; found 7 of them"),
    (card(rewards.NotANumber), "scores", "finite numbers; found nan"),
    (card(rewards.Tensors), "scores", "a list of 8 scores; found a Tensor"),
    (card(rewards.Centred), "independent-responses", "another score one at a time"),
    (card(rewards.ByPlace), "independent-responses", "another score in another order"),
    (card(rewards.Drawn), "repeatable", "the same scores when asked again"),
    (card(rewards.Length, options=rewards.DeadOptions), "no-dead-option", "option 'depth' to change something"),
    (card(rewards.Length, options=rewards.CostOptions), "no-dead-option", "'price', marked with cost, to leave"),
    (card(rewards.Nameless, options=rewards.PathOptions), "identity", "kept scores of the one would be taken"),
    (card(rewards.NewEveryTime), "identity", "the same for the same reward"),
    (card(rewards.LeavesItsMode), "policy-unchanged", "changed training modes"),
    (card(rewards.AsksForAProbe), "declared-needs", r"no probe\(None\) without the need 'probe'"),
    (card(rewards.Length, needs=frozenset({"probe"})), "declared-needs", "is never called"),
    (card(rewards.Length, needs=frozenset({"scores"})), "declared-needs", "own score changes nothing"),
]


@pytest.mark.parametrize(("liar", "rule", "words"), LIES, ids=lambda x: x.name if isinstance(x, Card) else None)
def test_a_lie_is_caught_by_its_rule(liar: Card, rule: str, words: str) -> None:
    (check,) = [check for check in checks_for(liar) if check.rule == rule]
    with pytest.raises(ContractError, match=rf"(?s)^{liar.kind} '{liar.name}' breaks {rule}: .*{words}"):
        check()


def test_a_lie_breaks_no_other_rule_than_its_own() -> None:
    report = check_method(
        logistic(liars.Coupled), rules=["permutation", "swap", "finite", "one-value-per-pair", "state"]
    )
    assert report.ok


def test_the_same_coupling_is_right_where_it_is_declared() -> None:
    report = check_method(coupled(liars.Coupled, needs=REFERENCE), rules=["splits", "ranks"])
    assert report.ok
