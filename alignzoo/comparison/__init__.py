"""Groups of runs over seeds: figures with intervals, paired differences, cost."""
