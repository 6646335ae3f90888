"""`psld report`: a trained run on one page, a single HTML file that needs nothing else."""

from psld.report.build import ReportSettings, TrainedRun, build_report, require_place, run_folder, write_report

__all__ = ["ReportSettings", "TrainedRun", "build_report", "require_place", "run_folder", "write_report"]
