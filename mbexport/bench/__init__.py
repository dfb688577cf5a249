"""Latency that can be trusted: fresh processes, raw samples, figures derived from them, and a verdict."""

from mbexport.bench.rows import BenchReport, BenchRow, FailedRow, rows_of
from mbexport.bench.run import bench

__all__ = ["BenchReport", "BenchRow", "FailedRow", "bench", "rows_of"]
