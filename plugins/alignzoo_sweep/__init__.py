"""Sets of runs over grids and seeds."""
