"""Records of finished runs beside published results, as Markdown, CSV and one HTML page.

Nothing here needs torch or OpenMMLab: a leaderboard can be made where only the records are.
"""

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

__all__ = [
    "DEMO_DATA",
    "TASKS",
    "CodeVersion",
    "FileIdentity",
    "FoundRecord",
    "Hardware",
    "Metric",
    "Record",
    "RecordError",
    "find_records",
    "identify",
    "read_record",
    "write_record",
]
