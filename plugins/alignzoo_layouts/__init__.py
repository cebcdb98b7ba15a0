"""The built-in layouts of preference data: how the rows of each are recognised and read."""

from alignzoo.data.layout import Layout
from alignzoo.plugin import Extension, hookimpl
from alignzoo_layouts import demonstrations, pairs, pku, ranked, unpaired


@hookimpl
def alignzoo_formats() -> list[Extension]:
    """Every layout of these modules, by its name."""
    return [
        Extension(kind="format", name=layout.name, target=f"{module.__name__}:{constant}", summary=layout.columns)
        for module in (pairs, pku, unpaired, ranked, demonstrations)
        for constant, layout in vars(module).items()
        if isinstance(layout, Layout)
    ]
