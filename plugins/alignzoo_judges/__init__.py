"""Judges of generated responses, one file each."""

from alignzoo.plugin import Card, hookimpl
from alignzoo_judges import chat, classifier, endpoint, pairwise, pairwise_scores, refusal
from alignzoo_judges.presets import harmbench, llama_guard, md_judge, shieldgemma, strongreject, wildguard


@hookimpl
def alignzoo_methods() -> list[Card]:
    """The judges."""
    return [
        refusal.CARD,
        endpoint.CARD,
        pairwise.CARD,
        pairwise.ENDPOINT_CARD,
        pairwise_scores.CARD,
        pairwise_scores.LONGER_CARD,
        classifier.CARD,
        chat.CARD,
        llama_guard.CARD,
        wildguard.CARD,
        md_judge.CARD,
        shieldgemma.CARD,
        harmbench.CARD,
        strongreject.CARD,
    ]
