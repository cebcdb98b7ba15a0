"""Sets of runs over grids and seeds: what is asked, its runs, the processes that work on them."""
