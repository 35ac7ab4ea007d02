"""Names of cases are safe whatever files are called."""

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from radiffuse.data.names import LONGEST, safe_name, unique_names

ANYTHING = st.text(st.characters(codec=None), max_size=200)


@given(ANYTHING)
def test_a_name_is_one_visible_component_of_a_path(text):
    name = safe_name(text)
    assert Path(name).name == name
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert not name.endswith((".", " "))
    assert len(name.encode()) <= LONGEST
    assert not set(name) & set('<>:"/\\|?*')
    assert safe_name(name) == name


@settings(max_examples=30)
@given(st.lists(ANYTHING, unique=True, max_size=8))
def test_names_are_distinct_files(texts):
    names = unique_names(texts, texts)
    assert len({name.casefold() for name in names}) == len(texts)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            Path(folder, f"{name}.nii.gz").touch(exist_ok=False)
        assert len(os.listdir(folder)) == len(texts)
