"""Sets of runs over grids and seeds, and what runs them."""
