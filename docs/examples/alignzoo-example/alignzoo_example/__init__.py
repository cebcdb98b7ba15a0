"""What the package brings. Every alignzoo command imports this module, so nothing here imports torch."""

from pathlib import Path

from alignzoo.plugin import Card, Extension, hookimpl

from . import gradient_centralization, probit_dpo


@hookimpl
def alignzoo_methods() -> list[Card]:
    """A loss and a geometry controller."""
    return [probit_dpo.CARD, gradient_centralization.CARD]


@hookimpl
def alignzoo_recipes() -> list[Path]:
    """``alignzoo run --recipe probit-centralized``."""
    return sorted((Path(__file__).parent / "recipes").glob("*.yaml"))


@hookimpl
def alignzoo_observers() -> list[Extension]:
    """``alignzoo run --observe best-margin``."""
    return [
        Extension(
            api=1,
            kind="observer",
            name="best-margin",
            target="alignzoo_example.best_margin:BestMargin",
            summary="Keeps the step with the best held-out reward margin in best_margin.json",
        )
    ]
