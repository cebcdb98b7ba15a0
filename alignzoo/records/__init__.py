"""What run and sweep folders record, read without torch."""

from alignzoo.records.run import RunRecord, read_run
from alignzoo.records.sweep import Cell, Failure, SweepRecord, is_sweep, read_sweep

__all__ = ["Cell", "Failure", "RunRecord", "SweepRecord", "is_sweep", "read_run", "read_sweep"]
