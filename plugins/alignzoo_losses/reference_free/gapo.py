"""GAPO, the published loss: SimPO at margins relative to a nearby worst case (:mod:`alignzoo_geometry.gapo`)."""

from __future__ import annotations

from alignzoo.plugin import Composition, Paper

COMPOSITION = Composition(
    name="gapo",
    loss="simpo",
    geometry="gapo",
    summary="GAPO: SimPO at margins relative to a geometric anchor",
    family="reference-free losses",
    paper=Paper(
        title="Learning Where It Matters: Geometric Anchoring for Robust Preference Alignment",
        arxiv="2602.04909",
        authors=("Cho, Youngjae", "Kim, Jongsuk", "Kim, Ji-Hoon"),
    ),
    addresses=frozenset({"label-noise"}),
)
