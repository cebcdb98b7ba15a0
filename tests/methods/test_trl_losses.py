"""Every loss of TRL's trainers: TRL computes its value and its gradients on its own batch, we ours on the same tokens
and weights. Losses are found by TRL's own names for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from trl_dpo import FAR, NEAR, cpo_step, dpo_steps, kto_step, tpo_step

from alignzoo import load_method
from alignzoo.contract.card import Composition
from alignzoo.contract.loss import LossCard
from alignzoo.objective.objective import Objective
from alignzoo.objective.terms import Aggregating, Term, Wrapping
from alignzoo.plugin.registry import registry

pytest.importorskip("trl")

Named = tuple[str, Mapping[str, Any]]
"""A method and its options."""


@dataclass(frozen=True)
class Row:
    """A setting of TRL's trainer and what it is here.

    Attributes:
        theirs: of TRL's config.
        losses: the losses of the objective.
        weights: theirs, 1 by default.
        robust: a wrapper, or the options of the one that a name stands for.
        aggregation: of the first loss; its card's by default.
    """

    theirs: Mapping[str, Any]
    losses: Sequence[Named]
    weights: Sequence[float] = ()
    robust: Named | None = None
    aggregation: Named | None = None

    def __str__(self) -> str:
        given = {name: value if isinstance(value, list) else [value] for name, value in self.theirs.items()}
        return ",".join(f"{name}={'+'.join(map(str, values))}" for name, values in given.items())

    def objective(self) -> Objective:
        """The methods of the row as a run would compose them."""
        terms, wrappings = [], []
        for i, (name, options) in enumerate(self.losses):
            card, robust = _parts(name)
            wrappings += [self._wrapping(wrapper) for wrapper in robust]
            loss = load_method("loss", card.name, **options)
            how, how_options = self.aggregation or (card.aggregation, {})
            aggregating = Aggregating(how, load_method("aggregation", how, **how_options)) if how != "sum" else None
            weight = self.weights[i] if self.weights else 1.0
            coupled = card.batch_coupled or loss.options.couples()
            terms.append(Term(loss, card.name, card.reads, weight, aggregating, coupled))
        if self.robust is not None and not wrappings:
            wrappings = [self._wrapping(self.robust[0])]
        return Objective(terms, wrappings)

    def _wrapping(self, name: str) -> Wrapping:
        card = registry().find("robust", name)
        options = dict(self.robust[1]) if self.robust else {}
        return Wrapping(load_method("robust", card.name, **options), card.name, getattr(card, "batch_coupled", False))


def _parts(name: str) -> tuple[LossCard, tuple[str, ...]]:
    """The card of a loss, and the wrappers that its name stands for."""
    found = registry().find("loss", name)
    robust: tuple[str, ...] = ()
    if isinstance(found, Composition):
        robust = found.parts.get("robust", ())
        found = registry().find("loss", found.parts["loss"][0])
    assert isinstance(found, LossCard)
    return found, robust


def dpo(kind: str, options: Mapping[str, Any], robust: Mapping[str, Any] | None = None, **config: Any) -> Row:
    """A ``loss_type`` of DPOConfig, which is a name here too, with dashes."""
    name = kind.replace("_", "-")
    wrapper = None if robust is None else ("", robust)
    return Row({"loss_type": [kind], **config}, [(name, options)], robust=wrapper)


UNCAPPED_WPO: Named = ("wpo", {"cap": False})
DPO_ROWS = [
    dpo("sigmoid", {"beta": 0.3}, beta=0.3),
    dpo("sigmoid_norm", {"beta": 2.5}, beta=2.5),
    dpo("hinge", {"beta": 0.2}, beta=0.2),
    dpo("ipo", {"tau": 0.2}, beta=0.2),
    dpo("exo_pair", {"beta": 0.3, "epsilon": 0.02}, beta=0.3, label_smoothing=0.02),
    dpo("nca_pair", {"beta": 0.15}, beta=0.15),
    dpo("robust", {"beta": 0.3}, {"epsilon": 0.2}, beta=0.3, label_smoothing=0.2),
    dpo("bco_pair", {"beta": 0.3}, beta=0.3),
    dpo("sppo_hard", {"beta": 0.05}, beta=0.05),
    dpo("aot", {"beta": 0.3}, beta=0.3),
    dpo("aot", {"beta": 0.2, "label_smoothing": 0.15}, beta=0.2, label_smoothing=0.15),
    dpo("aot_unpaired", {"beta": 0.3, "label_smoothing": 0.1}, beta=0.3, label_smoothing=0.1),
    dpo("apo_zero", {"beta": 0.25}, beta=0.25),
    dpo("apo_down", {"beta": 0.25}, beta=0.25),
    dpo("discopop", {"beta": 0.1, "tau": 0.04}, beta=0.1, discopop_tau=0.04),
    dpo("sft", {"mean": "tokens"}),
    Row({"f_divergence_type": "forward_kl", "beta": 0.2}, [("f-dpo", {"divergence": "forward-kl", "beta": 0.2})]),
    Row({"f_divergence_type": "js_divergence", "beta": 0.3}, [("f-dpo", {"divergence": "js", "beta": 0.3})]),
    Row(
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7, "beta": 0.3},
        [("f-dpo", {"divergence": "alpha", "alpha": 0.3, "beta": 0.3})],
    ),
    Row({"f_divergence_type": "reverse_kl", "beta": 0.3}, [("f-dpo", {"divergence": "reverse-kl", "beta": 0.3})]),
    Row({"use_weighting": True, "beta": 0.3}, [("dpo", {"beta": 0.3})], robust=UNCAPPED_WPO),
    Row(
        {"use_weighting": True, "beta": 0.2, "loss_type": ["ipo"]}, [("ipo", {"tau": 0.2})], robust=UNCAPPED_WPO
    ),
    Row({"ld_alpha": 0.3, "beta": 0.3}, [("dpo", {"beta": 0.3})], aggregation=("ld", {"alpha": 0.3})),
    Row(
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0], "beta": 0.3},
        [("dpo", {"beta": 0.3}), ("bco-pair", {"beta": 0.3}), ("sft", {"mean": "tokens"})],
        [0.8, 0.2, 1.0],
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", DPO_ROWS, ids=str)
def test_losses_equal_trl_on_its_own_batch(row: Row, tmp_path: Path) -> None:
    """With a policy near the reference, and far from it."""
    for step in dpo_steps(tmp_path, [NEAR, FAR], **row.theirs):
        step.equals(row.objective())


def test_every_loss_of_trls_dpo_trainer_is_in_the_table() -> None:
    """TRL's message about an unknown loss lists those that it has."""
    import re

    import trl.trainer.dpo_trainer as module

    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    theirs = set(re.findall(r'loss_type == "(\w+)"', source))
    assert len(theirs) >= 15
    assert theirs <= {kind for row in DPO_ROWS for kind in row.theirs.get("loss_type", ["sigmoid"])}


UNPAIRED_ROWS = [
    Row(
        {"beta": 0.2, "desirable_weight": 0.9, "undesirable_weight": 1.3},
        [("kto", {"beta": 0.2, "desirable_weight": 0.9, "undesirable_weight": 1.3})],
    ),
    Row({"loss_type": "apo_zero_unpaired", "beta": 0.3}, [("apo-zero-unpaired", {"beta": 0.3})]),
]


@pytest.mark.parametrize("row", UNPAIRED_ROWS, ids=str)
def test_losses_of_responses_equal_trl_on_its_own_batch(row: Row, tmp_path: Path) -> None:
    step, objective = kto_step(tmp_path, **row.theirs), row.objective()
    if row.losses[0][0] == "kto":
        assert objective.metrics(step.responses().detach())["loss/kto/kl"] > 0, "a z₀ of 0 would not tell"
    step.equals(objective)


TPO_ROWS = [
    Row({"beta": 0.2, "tpo_alpha": 0.7}, [("tpo", {"beta": 0.2, "alpha": 0.7})]),
    Row(
        {"loss_type": "tpo-l", "beta": 2.0, "tpo_alpha": 1.0, "tpo_l_gamma": 0.4},
        [("tpo-l", {"beta": 2.0, "alpha": 1.0, "gamma": 0.4})],
    ),
    Row({"beta": 0.01}, [("tpo", {})]),
]


@pytest.mark.parametrize("row", TPO_ROWS, ids=str)
@pytest.mark.parametrize("triples", [True, False], ids=["triples", "pairs"])
def test_tpo_equals_trl_on_its_own_batch(row: Row, triples: bool, tmp_path: Path) -> None:
    """Of triples, and where the chosen response is the gold one as well."""
    tpo_step(tmp_path, triples=triples, **row.theirs).equals(row.objective())


CPO_ROWS = [
    Row(  # TRL's likelihood is a mean over the batch's tokens, that of cpo one of each pair's own
        {"loss_type": "sigmoid", "beta": 0.2, "cpo_alpha": 0.6},
        [("cpo", {"beta": 0.2, "alpha": 0.0}), ("sft", {"mean": "tokens"})],
        [1.0, 0.6],
    ),
    Row(
        {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 0.75, "cpo_alpha": 0.0},
        [("simpo", {"beta": 2.5, "gamma_beta_ratio": 0.3})],
    ),
    Row(
        {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 0.5, "cpo_alpha": 0.0, "alpha": 0.25},
        [("alphapo", {"beta": 2.5, "gamma_beta_ratio": 0.2, "alpha": 0.25})],
    ),
    Row(
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.4},
        [("simpo", {"beta": 2.0, "gamma_beta_ratio": 0.25}), ("sft", {"mean": "tokens"})],
        [1.0, 0.4],
    ),
]


@pytest.mark.parametrize("row", CPO_ROWS, ids=str)
def test_losses_without_reference_equal_trl_on_its_own_batch(row: Row, tmp_path: Path) -> None:
    cpo_step(tmp_path, **row.theirs).equals(row.objective())
