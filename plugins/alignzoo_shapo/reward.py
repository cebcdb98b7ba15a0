"""ShaPO, reward level: the worst case over a small subspace of the weights, of a loss whose labels come from a reward.

    p = σ( k·(s_w − s_l)/T ),     ℓ' = p·ℓ(w, l) + (1 − p)·ℓ(l, w),     then the step of ``shapo-token`` on ℓ'

s are the scores of the run's reward (``--reward``; a cost model counts negatively): a pair whose label the reward
contradicts is pulled the other way, and one the reward is unsure of hardly counts. For DPO ℓ' is the soft-label
cross-entropy −p·log σ(βh) − (1 − p)·log σ(−βh). *Revisiting Robustness for LLM Safety Alignment via Selective Geometry
Control*, arXiv 2602.07340, whose code has k = 10 and T = 1.

ℓ' is the wrapper ``soft-label`` around the loss, inside of all other wrappers, so the method is a composition: options
of the perturbation are ``--geometry.…``, k and T are ``--robust.k`` and ``--robust.temperature``. Where the parts
deviate from the released code is said in their files.
"""

from __future__ import annotations

from alignzoo.plugin import Composition, Paper

CARD = Composition(
    kind="geometry",
    name="shapo-reward",
    geometry="shapo-token",
    robust=("soft-label",),
    summary="ShaPO at reward level: shapo-token on labels whose confidence comes from a reward",
    paper=Paper(
        title="Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control", arxiv="2602.07340"
    ),
)
