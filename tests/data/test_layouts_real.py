"""Real data with counts that are known."""

import time

import pytest
from layout_files import SHARED

from radiffuse.data.body import content_box
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.checking.check import check_path
from radiffuse.data.layouts import open_dataset


def real(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"shared/data/{name} is not beside the project")
    return SHARED / name


def test_cxr_lungs():
    result = check_path(real("cxr-lungs"), workers=0)
    assert result.issues == ()
    summary = result.summary
    assert (summary["layout"], summary["cases"], summary["labelled"]) == ("pairs", 59, 59)
    assert summary["patients"] == 38
    assert {found["value"] for found in summary["classes"].values()} == {0, 1, 255}


def test_cxr_classes():
    dataset = open_dataset(real("cxr-classes"))
    assert (dataset.layout, len(dataset)) == ("classes", 2100)
    began = time.perf_counter()
    result = check_path(real("cxr-classes"))
    assert time.perf_counter() - began < 60
    assert result.issues == ()
    assert result.summary["targets"] == {"bacteria": 700, "normal": 700, "virus": 700}
    assert result.summary["patients"] == 972 + 593
    assert result.summary["size"]["smallest"] == result.summary["size"]["largest"] == [224, 224]
    assert {record.channels for record in result.cases} == {1}
    kinds = {case.group.rstrip("0123456789"): case.target for case in dataset}
    assert kinds["normal"] == "normal"
    assert kinds.keys() == {"normal", "person"}


def test_ct_abdomen():
    result = check_path(real("ct-abdomen"), workers=0)
    assert [issue.severity for issue in result.issues] == ["warning"]
    assert "3 lists of classes" in result.issues[0].problem
    shapes = {record.name: record.spatial_shape for record in result.cases}
    assert shapes == {"abdomen": (122, 101, 112), "slab": (512, 512, 20)}


def test_ct_sarcoma():
    result = check_path(real("ct-sarcoma"), workers=0)
    assert result.issues == ()
    summary = result.summary
    assert (summary["cases"], summary["labelled"], summary["patients"]) == (10, 10, 10)
    assert summary["spatial_dims"] == {"3": 10}
    assert summary["spacing"]["median"] == pytest.approx([0.9766, 0.9766, 3.27], abs=1e-3)
    assert summary["classes"]["class-1"]["cases"] == 10


@pytest.mark.parametrize("name", ["ct-abdomen", "ct-sarcoma"])
def test_no_labelled_voxel_lies_outside_of_the_body(name):
    for case in open_dataset(real(name)):
        box = content_box(read_case_image(case).array, "body")
        label = read_case_label(case).array[0] > 0
        assert label[box].sum() == label.sum()
