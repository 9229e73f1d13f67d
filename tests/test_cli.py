"""The command line: quick, and clear about mistakes."""

import subprocess
import sys

HEAVY = ("torch", "mmengine", "mmcv", "timm", "numpy", "matplotlib")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "emae_mm.cli", *arguments], capture_output=True, text=True, timeout=120
    )


def test_help_imports_nothing_heavy():
    code = f"import sys, emae_mm.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    result = run("--help")
    assert result.returncode == 0
    for command in ("demo", "suite", "leaderboard", "doctor"):
        assert command in result.stdout


def test_a_mistake_is_one_message_and_status_2(tmp_path):
    result = run("leaderboard", str(tmp_path / "absent"), "--out", str(tmp_path / "board"))
    assert result.returncode == 2
    assert "absent" in result.stderr and "fix:" in result.stderr and "Traceback" not in result.stderr
    result = run("suite", "no-such-suite", "--data-root", str(tmp_path))
    assert result.returncode == 2 and "no-such-suite" in result.stderr and "Traceback" not in result.stderr


def test_the_leaderboard_of_published_results_alone_needs_no_work_dir(tmp_path):
    import csv

    result = run("leaderboard", str(tmp_path), "--out", str(tmp_path / "board"))
    assert result.returncode == 2 and "record" in result.stderr
    from emae_mm.leaderboard import load_published, write_leaderboard

    files = write_leaderboard([], tmp_path / "board")
    rows = list(csv.DictReader(files.csv.open()))
    assert {row["kind"] for row in rows} == {"published"} and len(rows) <= len(load_published())
