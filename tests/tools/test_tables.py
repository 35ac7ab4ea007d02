"""Tables of documents come from results, and stale ones are found."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from radiffuse.errors import InputError
from tables import claims_table, csv_table, main, render_tables

CLAIMS = Path(__file__).parents[2] / "results" / "claims.csv"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.csv").write_text("name,dice,note\nx|y,0.5,<b>\nz,-1e-3,\n")
    (tmp_path / "README.md").write_text(
        "before\n\n<!-- table: results/a.csv columns=name,dice -->\nold\n<!-- /table -->\n\nafter\n"
    )
    return tmp_path


def test_tables_are_filled_in_place(project: Path) -> None:
    document = project / "README.md"
    assert render_tables(document, project / "results")
    assert document.read_text() == (
        "before\n\n<!-- table: results/a.csv columns=name,dice -->\n\n"
        "| name | dice |\n| --- | --: |\n| x\\|y | 0.5 |\n| z | -1e-3 |\n\n"
        "<!-- /table -->\n\nafter\n"
    )
    assert not render_tables(document, project / "results")


def test_check_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = project / "README.md"
    before = document.read_text()
    given = [str(document), "--results", str(project / "results")]
    assert main([*given, "--check"]) == 1
    assert document.read_text() == before
    assert "out of date" in capsys.readouterr().out
    assert main(given) == 0
    assert main([*given, "--check"]) == 0


def test_cells_cannot_become_markup(project: Path) -> None:
    table = csv_table(project / "results" / "a.csv")
    assert "&lt;b>" in table
    assert "<b>" not in table


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<!-- table: results/a.csv -->\nx\n", "line 1 has no end"),
        (
            "a\n<!-- table: results/a.csv -->\n<!-- table: results/a.csv -->\n<!-- /table -->\n",
            "line 2 has no end",
        ),
        ("<!-- table: results/b.csv -->\n<!-- /table -->\n", "not readable"),
        ("<!-- table: results/a.csv columns=name,iou -->\n<!-- /table -->\n", "no column iou"),
        ("<!-- table: ../secret.csv -->\n<!-- /table -->\n", "outside"),
        ("<!-- table: results/ragged.csv -->\n<!-- /table -->\n", "row 2 has 1 cells"),
        ("<!-- table: results/empty.csv -->\n<!-- /table -->\n", "empty"),
    ],
)
def test_unusable_tables_are_named(
    project: Path, text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "results" / "ragged.csv").write_text("a,b\n1\n")
    (project / "results" / "empty.csv").write_text("")
    document = project / "doc.md"
    document.write_text(text)
    with pytest.raises(InputError, match=problem):
        render_tables(document, project / "results")
    assert document.read_text() == text
    assert main([str(document), "--results", str(project / "results")]) == 2
    assert problem in capsys.readouterr().err


def test_every_claim_is_in_the_table_of_claims() -> None:
    with CLAIMS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    ids = [row["id"] for row in rows]
    assert len(ids) == len(set(ids))
    assert {i.split("-")[0] for i in ids} == {"ptdr", "guided", "recycling", "dino"}
    table = claims_table(CLAIMS)
    assert all(f"| {i} |" in table for i in ids)
    words = r"better|worse|worse than claimed|no difference larger than 0\.01|not decided"
    one = rf"(?:{words})(?: in \d+ of \d+)?"
    verdicts = re.compile(rf"(?:{one})(?:; {one})*(?: on this draw)?|shown|not tested")
    for row in rows:
        assert all(row[name] for name in ("claim", "done", "size", "reach")), row["id"]
        assert verdicts.fullmatch(row["verdict"]), row["verdict"]
        # A verdict needs its evidence; without one there is none.
        evidence = [row[name] for name in ("data", "command", "seeds", "value")]
        assert all(evidence) if row["verdict"] != "not tested" else not any(evidence)


def test_claims_need_their_columns(tmp_path: Path) -> None:
    (tmp_path / "claims.csv").write_text("id,claim\na,b\n")
    with pytest.raises(InputError, match="verdict"):
        claims_table(tmp_path / "claims.csv")
