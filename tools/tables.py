"""Markdown tables of the README and the docs, generated from the CSV files of ``results/``.

A document holds ``<!-- table: results/FILE.csv -->`` and ``<!-- /table -->``; what stands between
is replaced. ``columns=a,b`` after the file chooses columns. ``python tools/tables.py README.md
--check`` exits with 1 where a document is out of date.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from radiffuse.errors import InputError, RadiffuseError
from radiffuse.system.files import write_atomic

OPENING = re.compile(
    r"^<!-- table: (?P<file>\S+?)(?: columns=(?P<columns>[^>]+?))? -->[ \t]*$", re.MULTILINE
)
CLOSING = re.compile(r"^<!-- /table -->[ \t]*$", re.MULTILINE)

CLAIM_COLUMNS = ("id", "claim", "done", "size", "value", "interval", "verdict", "reach")
"""Columns of the table of claims, as a reader wants them."""


def csv_table(path: Path, columns: Sequence[str] | None = None) -> str:
    """A markdown table of a CSV file; columns of numbers are aligned right.

    Args:
        path: The CSV file, with a header.
        columns: Columns in order; None: all.

    Raises:
        InputError: The file is missing, empty, ragged, or lacks a column.
    """
    header, rows = _read(path)
    chosen = list(columns) if columns is not None else header
    missing = [name for name in chosen if name not in header]
    if missing:
        problem = f"has no column {', '.join(missing)}"
        raise InputError(path, problem, f"Choose among {', '.join(header)}")
    places = [header.index(name) for name in chosen]
    cells = [[_cell(row[place]) for place in places] for row in rows]
    right = [
        any(row[i] for row in cells) and all(_is_number(row[i]) for row in cells if row[i])
        for i in range(len(chosen))
    ]
    lines = [[_cell(name) for name in chosen], ["--:" if r else "---" for r in right], *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def claims_table(path: Path) -> str:
    """The claims of the papers and what became of them, one table per paper.

    Args:
        path: ``results/claims.csv``: id, claim, paper, data, done, size, command, seeds, value, interval, test,
            verdict, reach.

    Raises:
        InputError: The file is missing or lacks a column.
    """
    header, rows = _read(path)
    missing = [name for name in (*CLAIM_COLUMNS, "paper") if name not in header]
    if missing:
        raise InputError(path, f"has no column {', '.join(missing)}", "Restore it")
    place = {name: i for i, name in enumerate(header)}
    parts = []
    for paper in dict.fromkeys(row[place["paper"]] for row in rows):
        lines = [CLAIM_COLUMNS, ("---",) * len(CLAIM_COLUMNS)]
        lines += [
            tuple(_cell(row[place[name]]) for name in CLAIM_COLUMNS)
            for row in rows
            if row[place["paper"]] == paper
        ]
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        parts.append(f"**{_cell(paper)}**\n\n{table}")
    return "\n".join(parts)


def render_tables(document: Path, results: Path, *, check: bool = False) -> bool:
    """Fill the marked tables of a document.

    Args:
        document: Markdown file.
        results: The folder ``results``; a marker's path starts with its name.
        check: Only look, write nothing.

    Returns:
        Whether the document was out of date.

    Raises:
        InputError: A marker has no end, or its file cannot be used.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(document, f"not readable ({error})", "Give a markdown file") from error
    pieces, position = [], 0
    while opening := OPENING.search(text, position):
        closing = CLOSING.search(text, opening.end())
        following = OPENING.search(text, opening.end())
        if closing is None or (following is not None and following.start() < closing.start()):
            line = text.count("\n", 0, opening.start()) + 1
            raise InputError(
                document, f"the table of line {line} has no end", "Add <!-- /table -->"
            )
        pieces += [
            text[position : opening.end()],
            "\n\n",
            _render(opening, document, results),
            "\n",
        ]
        position = closing.start()
        pieces.append(text[position : closing.end()])
        position = closing.end()
    rendered = "".join([*pieces, text[position:]])
    if rendered != text and not check:
        write_atomic(document, rendered)
    return rendered != text


def _render(opening: re.Match[str], document: Path, results: Path) -> str:
    root = results.resolve()
    path = (root.parent / opening["file"]).resolve()
    if not path.is_relative_to(root):
        problem = f"the table {opening['file']} lies outside {results.name}/"
        raise InputError(document, problem, "Generate tables from the results alone")
    if opening["columns"] is None and path.name == "claims.csv":
        return claims_table(path)
    columns = opening["columns"]
    return csv_table(path, [name.strip() for name in columns.split(",")] if columns else None)


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            path, f"not readable ({error})", "Run the command that writes it"
        ) from error
    if not lines:
        raise InputError(path, "empty", "Run the command that writes it")
    header, *rows = lines
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            problem = f"row {number} has {len(row)} cells, the header {len(header)}"
            raise InputError(path, problem, "Quote cells that hold commas")
    return header, rows


def _cell(text: str) -> str:
    """Text that cannot leave its cell or become markup."""
    one_line = " ".join(text.split())
    return one_line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill or check the tables of documents.

    Args:
        arguments: Command line; None: that of the process.

    Returns:
        0; with ``--check`` 1 where a document is out of date; 2 for unusable input.
    """
    parser = argparse.ArgumentParser(prog="tools/tables.py", description=main.__doc__)
    parser.add_argument("documents", nargs="+", type=Path, help="markdown files")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of CSV files")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit with 1 if out of date"
    )
    given = parser.parse_args(arguments)
    stale = []
    try:
        stale = [d for d in given.documents if render_tables(d, given.results, check=given.check)]
    except RadiffuseError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for document in stale:
        print(f"{document}: {'out of date' if given.check else 'updated'}")
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
