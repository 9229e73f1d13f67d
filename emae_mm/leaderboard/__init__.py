"""Records of finished runs beside published results, as Markdown, CSV and one HTML page.

Nothing here needs torch or OpenMMLab: a leaderboard can be made where only the records are.
"""

from emae_mm.leaderboard.paper_tables import PaperTable, PaperTableSpec, build_paper_tables
from emae_mm.leaderboard.paper_text import print_paper_tables, write_paper_tables
from emae_mm.leaderboard.published import load_published
from emae_mm.leaderboard.records import FoundRecord, find_records, identify, read_record, write_record
from emae_mm.leaderboard.schema import (
    DEMO_DATA,
    TASKS,
    CodeVersion,
    FileIdentity,
    Hardware,
    Metric,
    Record,
    RecordError,
)
from emae_mm.leaderboard.tables import build
from emae_mm.leaderboard.text import print_summary
from emae_mm.leaderboard.write import LeaderboardFiles, leaderboard_command, write_leaderboard

__all__ = [
    "DEMO_DATA",
    "TASKS",
    "CodeVersion",
    "FileIdentity",
    "FoundRecord",
    "Hardware",
    "LeaderboardFiles",
    "Metric",
    "PaperTable",
    "PaperTableSpec",
    "Record",
    "RecordError",
    "build",
    "build_paper_tables",
    "find_records",
    "identify",
    "leaderboard_command",
    "load_published",
    "print_paper_tables",
    "print_summary",
    "read_record",
    "write_leaderboard",
    "write_paper_tables",
    "write_record",
]
