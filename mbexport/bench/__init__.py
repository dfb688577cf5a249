"""Latency that can be trusted: fresh processes, raw samples, figures derived from them, and a verdict."""

from mbexport.bench.budget import seconds
from mbexport.bench.rows import BenchReport, BenchRow, FailedRow, rows_of
from mbexport.bench.run import bench
from mbexport.bench.settings import Settings

__all__ = ["BenchReport", "BenchRow", "FailedRow", "Settings", "bench", "rows_of", "seconds"]
