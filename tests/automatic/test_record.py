"""What ``choice.json`` has of a candidate: its name, of which the pool is a part; nothing is told by the name alone."""

from __future__ import annotations

import json
from pathlib import Path

from made_candidates import GIVEN, make_candidate
from radiffuse.automatic.folds import Folds
from radiffuse.automatic.record import Record
from radiffuse.config.values import plain


def test_a_file_has_names_and_comes_back_as_what_was_written(tmp_path: Path) -> None:
    plain_one, pooled = make_candidate(), make_candidate(pool=True)
    record = Record(tmp_path / "choice.json", Folds(()), 1.0, [plain_one, pooled], {})
    record.finer, record.failed = [pooled], ["scratch"]
    record.write()
    content = json.loads(record.path.read_text())
    assert [row["name"] for row in content["candidates"]] == ["imagenet", "imagenet+pool"]
    assert [row["name"] for row in content["finer"]] == ["imagenet+pool"]
    assert content["candidates"][1].keys() == {"name", *plain(pooled)} - {"proposal"}
    again = Record.read(tmp_path, 0.0)
    assert again is not None
    assert (again.candidates, again.finer) == (record.candidates, record.finer)
    assert again.failed == ["scratch"]
    assert [(one.proposal, one.uses_pool) for one in again.candidates] == [
        ("imagenet", False),
        ("imagenet", True),
    ]


def test_a_file_from_before_what_failed_was_listed_still_tells_it(tmp_path: Path) -> None:
    record = Record(
        tmp_path / "choice.json", Folds(()), 1.0, [make_candidate(), make_candidate("scratch")], {}
    )
    record.passed_over = {"imagenet 50": "does not fit into memory", "scratch 50": "no time: 9"}
    record.write()
    content = json.loads(record.path.read_text())
    del content["failed"]
    record.path.write_text(json.dumps(content))
    again = Record.read(tmp_path, 0.0)
    assert again is not None
    assert again.failed == ["imagenet"]
    assert again.to_begin_with.name == "scratch"


def test_the_pool_is_told_by_the_settings_not_by_the_name(tmp_path: Path) -> None:
    record = Record(tmp_path / "choice.json", Folds(()), 1.0, [make_candidate("liver+pool")], {})
    record.write()
    again = Record.read(tmp_path, 0.0)
    assert again is not None
    assert [(one.name, one.uses_pool) for one in again.candidates] == [("liver+pool", False)]


def test_a_candidate_with_the_pool_is_added_once() -> None:
    record = Record(Path("choice.json"), Folds(()), 1.0, [make_candidate()], {})
    for _ in range(2):
        added = record.add_with_pool(record.candidates[0], GIVEN)
        assert (added.name, added.proposal, added.uses_pool) == ("imagenet+pool", "imagenet", True)
    assert [one.name for one in record.candidates] == ["imagenet", "imagenet+pool"]
