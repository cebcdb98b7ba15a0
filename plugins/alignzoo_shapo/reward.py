"""ShaPO, reward level: the worst case over a small weight subspace, with label confidence from a reward.

    p = σ( k·(s_w − s_l)/T ),     ℓ' = p·ℓ(w, l) + (1 − p)·ℓ(l, w),     then the step of ``shapo-token`` on ℓ'

s are the scores of the run's reward (``--reward``; a cost model has sign −1): a pair whose label the reward contradicts
trains the opposite way, and one with a small reward margin hardly counts. For DPO ℓ' is the soft-label
cross-entropy −p·log σ(βh) − (1 − p)·log σ(−βh). *Revisiting Robustness for LLM Safety Alignment via Selective Geometry
Control*, arXiv 2602.07340, whose code has k = 10 and T = 1.

ℓ' is the wrapper ``soft-label`` around the loss, inside all other wrappers, so the method is a composition: the
perturbation's options are ``--geometry.…``, k and T are ``--robust.k`` and ``--robust.temperature``. The parts' files
document deviations from the released code.
"""

from __future__ import annotations

from alignzoo.plugin import Composition, Paper

CARD = Composition(
    kind="geometry",
    name="shapo-reward",
    geometry="shapo-token",
    robust=("soft-label",),
    summary="ShaPO at reward level",
    family="geometry of alignment",
    addresses=frozenset({"distribution-shift", "label-noise", "safety"}),
    paper=Paper(
        title="Revisiting Robustness for LLM Safety Alignment via Selective Geometry Control",
        arxiv="2602.07340",
        authors=(
            "Yang, Yonghui",
            "Tao, Wenjian",
            "Liu, Jilong",
            "Zhu, Xingyu",
            "Fang, Junfeng",
            "Huang, Weibiao",
            "Wu, Le",
            "Hong, Richang",
            "Chua, Tat-Seng",
        ),
        venue="ICML 2026",
    ),
)
