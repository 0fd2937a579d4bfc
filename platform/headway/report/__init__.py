"""What a run came to: in numbers (`Report`), and told for a page that is sent round (`headway.report.page`)."""

from headway.report.summary import RECOVERY, Report, load

__all__ = ["RECOVERY", "Report", "load"]
