"""The server of ``radiffuse view``: who is let in, what is taken, what comes back, and every refusal."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import struct
import threading
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra 'view': pip install 'radiffuse[view]'")
from fastapi.testclient import TestClient
from PIL import Image

import radiffuse
import viewer_files as files
from radiffuse.data.plan import Plan
from radiffuse.data.readers import read_label, read_scan, write_label
from radiffuse.data.scan import Scan
from radiffuse.errors import InputError
from radiffuse.system.files import seal
from radiffuse.system.hardware import folder_size
from radiffuse.viewer import guard, uploads
from radiffuse.viewer.app import make_app, page_files
from radiffuse.viewer.corrections import Corrections
from radiffuse.viewer.jobs import Job, Jobs
from radiffuse.viewer.refusal import Refused
from radiffuse.viewer.runs import POINTS, Runs, curves, described, flat
from radiffuse.viewer.scans import Layer, counts, overlap
from radiffuse.viewer.serve import bind, make_state
from radiffuse.viewer.state import State
from tiny_runs import chosen_run, finished_run

ROOT = f"/{files.TOKEN}/"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewer")
    files.make_run(folder / "flat")
    files.make_run(folder / "diffusion", diffusion=True)
    files.make_run(folder / "solid", dims=3)
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    (tmp_path / "server").mkdir()
    state = make_state(files.settings_of(upload_limit=1), tmp_path / "server")
    yield state
    state.jobs.stop()


@pytest.fixture
def trained(state: State, runs: Path) -> None:
    """The server knows the runs."""
    assert state.runs.add(runs)


@pytest.fixture
def client(state: State) -> TestClient:
    app = make_app(state, files.TOKEN, files.PORT)
    return TestClient(app, base_url=files.ADDRESS, raise_server_exceptions=False)


def drop(client: TestClient, name: str, content: bytes) -> Any:
    return client.post(f"{ROOT}api/scans", params={"name": name}, content=content)


def run_id(client: TestClient, name: str) -> str:
    found = client.get(f"{ROOT}api/state").json()["runs"]
    return next(run["id"] for run in found if run["name"].endswith(name))


def finished(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while job["state"] in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
        job = client.get(f"{ROOT}api/jobs/{job['id']}").json()
    return job


# ------------------------------------------------------------------------------------------------ who is let in


@pytest.mark.parametrize(
    "path", ["/", "/api/state", "/wrong/", f"/{files.TOKEN[:-1]}/", f"//{files.TOKEN}/"]
)
def test_without_the_token_nothing_is_answered(client: TestClient, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        response = client.request(method, f"{files.ADDRESS}{path}")
        assert response.status_code == 403
        assert files.TOKEN not in response.text


def test_the_token_is_compared_in_constant_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = guard.hmac.compare_digest
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: calls.append(1) or real(a, b))
    assert client.get(f"{ROOT}api/state").status_code == 200
    assert client.get("/zzz/api/state").status_code == 403
    assert len(calls) == 2


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        f"evil.example:{files.PORT}",
        "127.0.0.1",
        "127.0.0.1:1",
        "",
        f"127.0.0.1:{files.PORT}.evil.example",
    ],
)
def test_another_host_is_refused_even_with_the_token(client: TestClient, host: str) -> None:
    response = client.get(ROOT, headers={"host": host})
    assert response.status_code == 421


def test_two_hosts_are_refused(client: TestClient) -> None:
    own = f"127.0.0.1:{files.PORT}"
    assert client.get(ROOT, headers=[("host", own), ("host", "evil.example")]).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": f"http://127.0.0.1:{files.PORT + 1}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=lambda h: "-".join(h.values()),
)
def test_requests_of_other_pages_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert client.request(method, f"{ROOT}api/state", headers=headers).status_code == 403


def test_own_page_is_let_in(client: TestClient) -> None:
    own = {"origin": files.ADDRESS, "sec-fetch-site": "same-origin"}
    assert client.get(ROOT, headers=own).status_code == 200


def test_only_the_page_itself_is_opened_from_elsewhere(client: TestClient) -> None:
    """From the file that leads to it, a browser says ``cross-site``; the page without a request of its own is empty."""
    opened = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}
    assert client.get(ROOT, headers=opened).status_code == 200
    assert client.get(f"{ROOT}api/state", headers=opened).status_code == 403
    assert client.post(ROOT, headers=opened).status_code == 403
    assert client.get(ROOT, headers=opened | {"sec-fetch-dest": "iframe"}).status_code == 403
    assert client.get(ROOT, headers=opened | {"origin": "null"}).status_code == 403


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_are_refused(client: TestClient, method: str) -> None:
    response = client.request(method, f"{ROOT}api/state", headers={"origin": files.ADDRESS})
    assert response.status_code == 405


@pytest.mark.parametrize("path", ["", "js/main.js", "api/state", "api/scans/999", "nothing"])
def test_every_answer_is_sealed(client: TestClient, path: str) -> None:
    headers = client.get(f"{ROOT}{path}").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert not {"unsafe-inline", "unsafe-eval", "wasm-unsafe-eval", "*"} & set(
        policy.replace("'", "").split()
    )
    assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "set-cookie" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert not [name for name in headers if name.startswith("access-control")]
    assert "server" not in headers


def test_a_refusal_is_sealed_too(client: TestClient) -> None:
    assert "content-security-policy" in client.get("/").headers


def test_the_socket_is_bound_to_loopback() -> None:
    with bind(0) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"
        bound.listen()
        with pytest.raises(InputError, match="cannot be used"):
            bind(bound.getsockname()[1])


def test_nothing_but_the_pages_own_files_is_handed_out(client: TestClient) -> None:
    for path in (
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "js/../../app.py",
        "vendor/build.mjs",
        "/etc/passwd",
    ):
        assert client.get(f"{ROOT}{path}").status_code in (403, 404), path
    for path in page_files():
        assert client.get(f"{ROOT}{path}").status_code == 200, path


def test_the_drawing_library_is_vendored_with_its_licence() -> None:
    found = page_files()
    assert b"WebAssembly" not in found["vendor/niivue.js"]  # the policy would stop it
    notice = found["vendor/NOTICE.txt"].decode()
    for words in (
        "@niivue/niivue           0.69.0",
        "Copyright (c) 2021, Niivue",
        "gl-matrix",
        "fflate",
        "zarr",
    ):
        assert words in notice


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    for name, content in page_files().items():
        if "vendor/" in name or name.endswith(".svg"):
            continue
        text = content.decode()
        assert "http:" not in text.replace("http://www.w3.org/", ""), name
        assert "https:" not in text, name
        assert "innerHTML" not in text, name
        assert "insertAdjacentHTML" not in text, name


# ------------------------------------------------------------------------------------------------ what is taken


def test_a_dropped_film_is_shown_as_it_is(client: TestClient, tmp_path: Path) -> None:
    content = files.film_bytes(tmp_path)
    (item,) = drop(client, "patient.png", content).json()
    info = client.get(f"{ROOT}api/scans/{item['id']}").json()
    assert (info["dims"], info["shape"], info["unit"]) == (2, [24, 20], "px")
    raw = client.get(f"{ROOT}api/scans/{item['id']}/image").content
    (tmp_path / "again.png").write_bytes(content)
    assert raw == read_scan(tmp_path / "again.png").array.tobytes()


def test_a_dropped_volume_keeps_its_place(client: TestClient, tmp_path: Path) -> None:
    content = files.volume_bytes(tmp_path)
    (item,) = drop(client, "ct.nii.gz", content).json()
    info = client.get(f"{ROOT}api/scans/{item['id']}").json()
    assert info["voxel"] == pytest.approx(2 * 2 * 2.5 / 1000)
    assert info["unit"] == "mL"
    shown = nibabel.Nifti1Image.from_bytes(
        client.get(f"{ROOT}api/scans/{item['id']}/image").content
    )
    (tmp_path / "again.nii.gz").write_bytes(content)
    scan = read_scan(tmp_path / "again.nii.gz")
    assert np.array_equal(np.asarray(shown.dataobj), scan.array[0])
    assert np.allclose(shown.affine, scan.affine)


def test_a_series_in_a_zip_file_becomes_one_volume(client: TestClient, state: State) -> None:
    (item,) = drop(client, "disc.zip", files.series_zip()).json()
    assert item["dicom"]
    assert "Doe" not in str(item)
    assert "4711" not in str(item)
    info = client.get(f"{ROOT}api/scans/{item['id']}").json()
    assert info["shape"] == [10, 12, 6]
    assert info["hounsfield"] == [True]
    written = {p.name for p in state.intake.folder.rglob("*") if p.is_file()}
    assert written == {f"{i:06d}.dcm" for i in range(1, 7)}  # neither the program nor the zip file


def test_a_scan_is_described_while_a_job_adds_layers(
    client: TestClient, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(client, "a.png", files.film_bytes(tmp_path))
    (item,) = state.scans.all()

    def layer(number: int) -> Layer:
        return Layer(
            f"run-{number}", "mask", "mask", lambda: np.zeros((1, 6, 5), np.uint8), ("b", "c")
        )

    def named(_: Any, classes: tuple[str, ...]) -> tuple[str, ...]:
        state.scans.attach(item, layer(len(item.layers) + 1))  # as a job does in its thread
        return classes

    state.scans.attach(item, layer(0))
    monkeypatch.setattr(Corrections, "named", named)
    found = client.get(f"{ROOT}api/scans/{item.id}")
    assert [one["id"] for one in found.json()["layers"]] == ["run-0"]


def test_a_removed_scan_leaves_nothing(client: TestClient, state: State, tmp_path: Path) -> None:
    (item,) = drop(client, "a.png", files.film_bytes(tmp_path)).json()
    assert client.delete(f"{ROOT}api/scans/{item['id']}").status_code == 200
    assert client.get(f"{ROOT}api/scans/{item['id']}").status_code == 404
    assert not list(state.intake.folder.iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.html", b"<script>alert(1)</script>"),
        ("program.png", b"MZ" + bytes(500)),
        ("picture.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("table.csv", b"image\n/etc/passwd\n"),
        ("coco.json", b'{"images": [], "annotations": [], "categories": []}'),
        ("weights.pkl", b"\x80\x04."),
        ("film.png", b""),
        ("scan.nii", b"\x89PNG\r\n\x1a\n" + bytes(40)),
        ("head.mhd", b"ObjectType = Image\nNDims = 3\nElementDataFile = /etc/passwd\n"),
    ],
)
def test_other_types_are_refused(
    client: TestClient, state: State, name: str, content: bytes
) -> None:
    response = drop(client, name, content)
    assert response.status_code == 415
    assert str(state.folder) not in response.text
    assert not list(state.intake.folder.iterdir())


def test_a_damaged_scan_is_named_without_the_servers_paths(
    client: TestClient, state: State, tmp_path: Path
) -> None:
    response = drop(client, "cut.nii.gz", files.volume_bytes(tmp_path)[:-200])
    if response.status_code == 200:  # the header is sound; the fault shows when it is opened
        response = client.get(f"{ROOT}api/scans/{response.json()[0]['id']}")
    assert response.status_code in (415, 422)
    assert str(state.folder) not in response.text


@pytest.mark.parametrize(
    "name",
    [
        "../../x.png",
        "..\\..\\x.png",
        "/etc/x.png",
        "C:\\x.png",
        "a\0b.png",
        "<img src=x>.png",
        "x" * 400 + ".png",
    ],
)
def test_names_of_files_never_become_paths(
    client: TestClient, state: State, tmp_path: Path, name: str
) -> None:
    response = drop(client, name, files.film_bytes(tmp_path))
    assert response.status_code == 200
    inside = [p for p in state.folder.rglob("*.png") if p.is_file()]
    assert [p.parent.parent for p in inside] == [state.intake.folder]


def test_a_file_beyond_the_limit_is_refused(client: TestClient, state: State) -> None:
    response = drop(client, "big.png", bytes(state.intake.limit + 1))
    assert response.status_code == 413
    assert not list(state.intake.folder.iterdir())


def test_a_file_that_hides_its_length_is_cut_off_at_the_limit(
    client: TestClient, state: State
) -> None:
    sent = []

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            sent.append(1)
            yield bytes(200_000)

    response = drop(client, "big.png", chunks())  # type: ignore[arg-type]
    assert response.status_code == 413
    assert not list(state.intake.folder.iterdir())


def test_all_dropped_files_together_are_limited(
    client: TestClient, state: State, tmp_path: Path
) -> None:
    (state.intake.folder / "full").write_bytes(bytes(4 * state.intake.limit))
    response = drop(client, "one.png", files.film_bytes(tmp_path))
    assert response.status_code == 507


@pytest.mark.parametrize("says", [True, False])
def test_files_that_come_in_together_share_what_is_left(tmp_path: Path, says: bool) -> None:
    """Each would fit alone: what one announces, or may become, is no longer there for the others."""
    intake = uploads.Intake(tmp_path, 1000)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            await asyncio.sleep(0)
            yield bytes(100)

    async def together() -> list[Any]:
        files = [intake.receive("a.png", chunks(), 1000 if says else None) for _ in range(6)]
        return await asyncio.gather(*files, return_exceptions=True)

    found = asyncio.run(together())
    assert [getattr(one, "status", 200) for one in found] == [200] * 4 + [507] * 2
    assert folder_size(tmp_path) == 4000
    found[0].unlink()
    assert asyncio.run(intake.receive("b.png", chunks(), 1000)).stat().st_size == 1000


# ------------------------------------------------------------------------------------------------ zip files


def patched(content: bytes, change: Any) -> bytes:
    data = bytearray(content)
    change(data)
    return bytes(data)


def encrypted() -> bytes:
    def change(data: bytearray) -> None:
        for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
            data[data.index(mark) + at] |= 1

    return patched(files.zip_of({"a.dcm": files.dicom_slice(0)}), change)


def linked() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo("a.dcm")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def long_list() -> bytes:
    def change(data: bytearray) -> None:
        struct.pack_into("<I", data, data.rindex(b"PK\5\6") + 12, 2**31)

    return patched(files.zip_of({"a.dcm": b"x"}), change)


def zip64() -> bytes:
    content = files.zip_of({"a.dcm": b"x"})
    at = content.rindex(b"PK\5\6")
    return content[:at] + b"PK\6\7" + bytes(16) + content[at:]


REFUSED_ZIPS = {
    "climbs": (lambda: files.zip_of({"../../a.dcm": files.dicom_slice(0)}), "leads out"),
    "climbs-backwards": (
        lambda: files.zip_of({"x\\..\\..\\a.dcm": files.dicom_slice(0)}),
        "leads out",
    ),
    "absolute": (lambda: files.zip_of({"/etc/a.dcm": files.dicom_slice(0)}), "leads out"),
    "drive": (lambda: files.zip_of({"C:/a.dcm": files.dicom_slice(0)}), "leads out"),
    "link": (linked, "link"),
    "encrypted": (encrypted, "encrypted"),
    "lzma": (lambda: files.zip_of({"a.dcm": files.dicom_slice(0)}, zipfile.ZIP_LZMA), "unusual"),
    "long-list": (long_list, "more than"),
    "zip64": (zip64, "zip64"),
    "empty": (lambda: files.zip_of({}), "no DICOM"),
    "without-dicom": (lambda: files.zip_of({"a.txt": b"x" * 300}), "no DICOM"),
    "zip-in-zip": (lambda: files.zip_of({"a.zip": files.series_zip()}), "no DICOM"),
    "damaged": (lambda: files.series_zip()[:600] + bytes(200) + files.series_zip()[800:], ""),
    "no-list": (lambda: files.series_zip()[:-100], "no list"),
}


@pytest.mark.parametrize("kind", REFUSED_ZIPS)
def test_bad_zip_files_are_refused(client: TestClient, state: State, kind: str) -> None:
    make, words = REFUSED_ZIPS[kind]
    response = drop(client, "disc.zip", make())
    assert response.status_code == 415
    assert words in response.json()["error"]
    assert not list(state.intake.folder.iterdir())


def test_a_zip_bomb_is_cut_off_at_the_limit(client: TestClient, state: State) -> None:
    bomb = files.zip_of({"a.dcm": files.dicom_slice(0)[:2000] + bytes(30 * state.intake.limit)})
    assert len(bomb) < state.intake.limit / 10
    response = drop(client, "bomb.zip", bomb)
    assert response.status_code == 413
    assert not list(state.intake.folder.iterdir())


def test_a_deflated_member_is_not_inflated(client: TestClient, state: State) -> None:
    """300 kB that would become 300 MB, small enough for the limit on what a zip file unpacks to."""
    head = files.dicom_slice(0)
    at = head.index(b"1.2.840.10008.1.2.1")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(bytes(3 * 10**8)) + packer.flush()
    (uid,) = struct.unpack_from("<H", head, at - 2)
    (group,) = struct.unpack_from("<I", head, 140)
    deflated = head[:140] + struct.pack("<I", group + 2) + head[144 : at - 2]
    deflated += struct.pack("<H", uid + 2) + b"1.2.840.10008.1.2.1.99"
    deflated += head[at + uid : 144 + group] + body
    tracemalloc.start()
    response = drop(client, "disc.zip", files.zip_of({"a.dcm": deflated}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert response.status_code == 415
    assert "is a deflated DICOM file" in response.json()["error"]
    assert peak < 50e6


def test_aliases_in_a_study_are_not_unfolded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "study.yaml").write_text("\n".join(lines))
    runs = Runs()
    runs.add(tmp_path)
    found = described(runs.all()[0])
    assert found["settings"] == {}
    assert "aliases are not read" in found["problems"][0]


def test_names_on_the_page_cannot_turn_around_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a\u202egnp.png").write_bytes(files.film_bytes(tmp_path))
    state = make_state(files.settings_of(tmp_path / "a\u202egnp.png"), tmp_path)
    with TestClient(make_app(state, files.TOKEN, files.PORT), files.ADDRESS) as client:
        text = client.get(f"{ROOT}api/state").text
    assert "\u202e" not in text
    name = json.loads(text)["scans"][0]["name"]
    assert name.startswith("a")
    assert name.endswith("gnp")


def test_many_small_members_count_together(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(files.zip_of({f"{i}.dcm": files.dicom_slice(i) for i in range(10)}))
    with pytest.raises(Refused, match="larger") as refused:
        uploads.unpack_dicom(archive, tmp_path / "out", 3 * len(files.dicom_slice(0)))
    assert refused.value.status == 413


def test_what_a_zip_file_holds_takes_of_the_room_that_is_left(tmp_path: Path) -> None:
    sizes = len(zipped := files.series_zip()), len(files.dicom_slice(0))
    intake = uploads.Intake(tmp_path, 10**6)
    home = tmp_path / "00001"
    home.mkdir()
    (home / "a.zip").write_bytes(zipped)
    (tmp_path / "full").write_bytes(bytes(4 * 10**6 - sum(sizes)))
    with pytest.raises(Refused, match="No room") as refused:
        intake.cases(home / "a.zip")
    assert refused.value.status == 507
    assert not home.exists()


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_MEMBERS", 3)
    archive = tmp_path / "a.zip"
    archive.write_bytes(files.series_zip())
    with pytest.raises(Refused, match="more than 3 files"):
        uploads.unpack_dicom(archive, tmp_path / "out", 10**6)


# ------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (b"{", 400),
        (b"[" * 8000, 400),
        (b'{"scan": "1"}', 404),
        (b'{"scan": 1, "run": "1"}', 400),
        (b'{"scan": "1", "run": "1", "path": "/etc"}', 400),
        (b'{"x": "' + b"y" * 20_000 + b'"}', 413),
    ],
)
def test_bad_requests_are_refused(client: TestClient, body: bytes, status: int) -> None:
    response = client.post(
        f"{ROOT}api/segment", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == status


def test_a_plain_form_is_refused(client: TestClient) -> None:
    response = client.post(
        f"{ROOT}api/segment", content=b"{}", headers={"content-type": "text/plain"}
    )
    assert response.status_code == 415


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    "changes",
    [{"samples": 0}, {"samples": 65}, {"samples": True}, {"steps": 1001}, {"steps": 2.5}, {"sampler": "euler"},
     {"uncertainty": "yes"}, {"seed": -1}],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_refused(
    client: TestClient, tmp_path: Path, changes: dict[str, object]
) -> None:
    (item,) = drop(client, "a.png", files.film_bytes(tmp_path)).json()
    body = {"scan": item["id"], "run": run_id(client, "flat")} | changes
    assert client.post(f"{ROOT}api/segment", json=body).status_code == 400


@pytest.mark.parametrize(
    "path", ["scans/9", "scans/9/image", "scans/9/layers/a", "runs/99", "jobs/99"]
)
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    assert client.get(f"{ROOT}api/{path}").status_code == 404


# ------------------------------------------------------------------------------------------------ segmenting


def segmented(
    client: TestClient, item: dict[str, Any], run: str, **wanted: object
) -> dict[str, Any]:
    body = {"scan": item["id"], "run": run_id(client, run), **wanted}
    job = finished(client, client.post(f"{ROOT}api/segment", json=body).json())
    assert job["state"] == "done", job
    return job


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("format", ["png", "nifti"])
def test_the_mask_is_that_of_the_command(
    client: TestClient, runs: Path, tmp_path: Path, format: str
) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "case.png").write_bytes(files.film_bytes(tmp_path))
    radiffuse.predict(
        runs=(str(runs / "flat"),), data=str(tmp_path / "scans"), out=str(tmp_path / "masks"),
        machine={"accelerator": "cpu", "precision": "32-true"},
    )  # fmt: skip
    expected = read_label(tmp_path / "masks" / "case.png").array
    assert len(np.unique(expected)) > 1
    (item,) = drop(client, "case.png", files.film_bytes(tmp_path)).json()
    job = segmented(client, item, "flat")
    base = f"{ROOT}api/scans/{item['id']}/layers/{job['result']['layers'][0]}"
    response = client.get(f"{base}/file", params={"format": format})
    assert response.headers["content-disposition"].startswith("attachment")
    path = tmp_path / f"mask{'.png' if format == 'png' else '.nii.gz'}"
    path.write_bytes(response.content)
    assert np.array_equal(read_label(path).array, expected)
    details = client.get(base).json()
    assert details["counts"][-1] == np.bincount(expected.ravel(), minlength=3).tolist()
    assert details["classes"] == list(files.CLASSES)
    assert client.get(f"{base}/data").content == expected.astype(np.uint8).tobytes()


@pytest.mark.usefixtures("trained")
def test_every_step_of_mask_diffusion_is_kept(client: TestClient, tmp_path: Path) -> None:
    (item,) = drop(client, "a.png", files.film_bytes(tmp_path)).json()
    job = segmented(client, item, "diffusion")
    assert job["total"] == files.STEPS
    assert job["done"] == files.STEPS
    base = f"{ROOT}api/scans/{item['id']}/layers/{job['result']['layers'][0]}"
    details = client.get(base).json()
    assert details["steps"] == files.STEPS
    assert len(details["timesteps"]) == files.STEPS
    assert len(client.get(f"{base}/data").content) == files.STEPS * 24 * 20
    plain = segmented(client, item, "diffusion", keep_steps=False)
    base = f"{ROOT}api/scans/{item['id']}/layers/{plain['result']['layers'][0]}"
    assert client.get(base).json()["counts"] == details["counts"][-1:]


@pytest.mark.usefixtures("trained")
def test_uncertainty_comes_as_maps(client: TestClient, tmp_path: Path) -> None:
    (item,) = drop(client, "a.png", files.film_bytes(tmp_path)).json()
    segmented(client, item, "diffusion", samples=2, uncertainty=True)
    layers = client.get(f"{ROOT}api/scans/{item['id']}").json()["layers"]
    maps = {layer["name"].split(" ")[0]: layer for layer in layers if layer["kind"] == "map"}
    assert {"confidence", "entropy", "variance"} <= set(maps)
    base = f"{ROOT}api/scans/{item['id']}/layers/{maps['entropy']['id']}"
    (tmp_path / "map.tif").write_bytes(
        client.get(f"{base}/file", params={"format": "tiff"}).content
    )
    values = read_scan(tmp_path / "map.tif").array
    assert 0 <= values.min() < values.max() <= 1
    assert client.get(f"{base}/file", params={"format": "png"}).status_code == 400


def test_mirrored_views_of_a_choice_count_as_passes(
    client: TestClient, state: State, tmp_path: Path
) -> None:
    plan = Plan(2, ("image",), ("background", "a"), (16, 16), mirror=(1,))
    chosen = finished_run(tmp_path / "chosen", plan, seed=1)
    shutil.copytree(chosen, tmp_path / "one")
    shutil.move(tmp_path / "one", chosen / "members" / "one")
    content = {"kind": "members", "members": ["one"], "tta": ["mirror"]}
    seal(chosen / "model", "config.json", content)
    assert state.runs.add(chosen)
    (item,) = drop(client, "a.png", files.film_bytes(tmp_path)).json()
    job = segmented(client, item, "chosen")
    assert job["done"] == job["total"] == 2


@pytest.mark.usefixtures("trained")
def test_a_volume_is_segmented_on_its_own_grid(
    client: TestClient, runs: Path, tmp_path: Path
) -> None:
    scores = runs / "solid/validation/cases.csv"
    scores.parent.mkdir()
    rows = "".join(f"{i},{i},x,0.8,0.{84 + i}\n" for i in range(9))
    scores.write_text(f"case,group,class,dice,expected\n{rows}")
    (item,) = drop(client, "ct.nii.gz", files.volume_bytes(tmp_path)).json()
    job = segmented(client, item, "solid")
    assert job["done"] == job["total"] > 1
    base = f"{ROOT}api/scans/{item['id']}/layers/{job['result']['layers'][0]}"
    (tmp_path / "mask.nii.gz").write_bytes(
        client.get(f"{base}/file", params={"format": "nifti"}).content
    )
    mask = read_label(tmp_path / "mask.nii.gz")
    details = client.get(base).json()
    scores.unlink()
    scores.parent.rmdir()
    assert details["note"].startswith("expected Dice 0.")
    assert details["note"].endswith("in 90% of such masks)")
    assert mask.spatial_shape == (20, 18, 12)
    assert np.allclose(mask.affine, np.diag([-2.0, 2.0, 2.5, 1.0]))
    assert details["unit"] == "mL"
    assert details["counts"][0] == np.bincount(mask.array.ravel(), minlength=3).tolist()


@pytest.mark.usefixtures("trained")
def test_a_film_for_a_volume_run_is_refused(client: TestClient, tmp_path: Path) -> None:
    (item,) = drop(client, "a.png", files.film_bytes(tmp_path)).json()
    body = {"scan": item["id"], "run": run_id(client, "solid")}
    job = finished(client, client.post(f"{ROOT}api/segment", json=body).json())
    assert job["state"] == "failed"
    assert "spatial axes" in job["error"]


@pytest.mark.usefixtures("trained")
def test_work_is_cancelled_between_passes(client: TestClient, tmp_path: Path) -> None:
    (item,) = drop(client, "a.png", files.film_bytes(tmp_path)).json()
    body = {"scan": item["id"], "run": run_id(client, "diffusion"), "steps": 1000, "samples": 64}
    job = client.post(f"{ROOT}api/segment", json=body).json()
    while job["done"] < 2:
        job = client.get(f"{ROOT}api/jobs/{job['id']}").json()
        assert job["state"] in ("waiting", "running")
    client.delete(f"{ROOT}api/jobs/{job['id']}")
    job = finished(client, job)
    assert job["state"] == "cancelled"
    assert job["done"] < 1000
    assert not client.get(f"{ROOT}api/scans/{item['id']}").json()["layers"]


def test_a_waiting_job_is_cancelled_at_once_and_the_queue_is_bounded() -> None:
    jobs, gate = Jobs(), threading.Event()
    first = jobs.add("first", lambda job: gate.wait(30))
    while first.state == "waiting":
        time.sleep(0.01)
    waiting = [jobs.add(str(i), lambda job: 1) for i in range(8)]
    with pytest.raises(Refused, match="Too many"):
        jobs.add("ninth", lambda job: 1)
    assert jobs.cancel(waiting[0].id).state == "cancelled"
    gate.set()
    while waiting[-1].state in ("waiting", "running"):
        time.sleep(0.01)
    assert waiting[0].state == "cancelled"
    assert waiting[0].result is None


def test_a_fault_of_a_job_does_not_end_the_queue(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(job: Job) -> None:
        raise KeyError("/a/secret/path")

    jobs = Jobs()
    first, second = jobs.add("first", fail), jobs.add("second", lambda job: 7)
    while second.state != "done":
        time.sleep(0.01)
    assert first.state == "failed"
    assert "secret" not in first.error
    assert "secret" in capsys.readouterr().err


def test_a_mask_of_dicom_comes_back_as_dicom_seg(
    client: TestClient, runs: Path, state: State
) -> None:
    pytest.importorskip("highdicom", reason="needs highdicom to write DICOM-SEG")
    pytest.importorskip("radiffuse.inference.dicom_seg")
    import pydicom

    assert state.runs.add(runs)
    (item,) = drop(client, "disc.zip", files.series_zip()).json()
    job = segmented(client, item, "solid")
    base = f"{ROOT}api/scans/{item['id']}/layers/{job['result']['layers'][0]}"
    assert "dicom-seg" in client.get(base).json()["formats"]
    answer = client.get(f"{base}/file", params={"format": "dicom-seg"})
    assert answer.status_code == 200, answer.text
    content = answer.content
    found = pydicom.dcmread(io.BytesIO(content))
    assert found.Modality == "SEG"
    assert [str(one.SegmentLabel) for one in found.SegmentSequence] == list(files.CLASSES[1:])


# ------------------------------------------------------------------------------------------------ generating


def drawn(client: TestClient, **wanted: object) -> list[dict[str, str]]:
    body = {"run": run_id(client, "run"), "steps": 4, "count": 3, **wanted}
    job = finished(client, client.post(f"{ROOT}api/generate", json=body).json())
    assert job["state"] == "done", job
    images: list[dict[str, str]] = job["result"]["images"]
    return images


def test_the_way_between_two_films_begins_and_ends_at_them(
    client: TestClient, state: State, synthesizer: Path, tmp_path: Path
) -> None:
    assert state.runs.add(synthesizer)
    films = [
        drop(client, f"{i}.png", files.film_bytes(tmp_path, (40, 40), seed=i)).json()[0]["id"]
        for i in range(2)
    ]

    def pixels(image: dict[str, str]) -> Any:
        content = client.get(f"{ROOT}api/made/{image['id']}").content
        with Image.open(io.BytesIO(content)) as picture:
            texts = dict(picture.info)
            return np.asarray(picture).astype(int), texts

    way = drawn(client, kind="interpolate", films=films)
    ends = [drawn(client, kind="variation", films=[film], count=1)[0] for film in films]
    # The first variation has the noise of the whole way, so the ends must be what it draws.
    for one, other in ((way[0], ends[0]), (way[-1], ends[1])):
        assert np.abs(pixels(one)[0] - pixels(other)[0]).max() <= 1
    assert np.abs(pixels(way[0])[0] - pixels(way[-1])[0]).max() > 1
    _, texts = pixels(way[1])
    assert "shows no patient" in texts["Synthetic"]
    assert json.loads(texts["radiffuse"])["strength"] == "0.5000"
    assert json.loads(texts["radiffuse"])["parents"] == "0+1"
    saved = client.get(f"{ROOT}api/made/{way[0]['id']}", params={"save": 1})
    assert saved.headers["content-disposition"].startswith("attachment")


def test_what_cannot_be_drawn_is_refused(
    client: TestClient, state: State, synthesizer: Path, tmp_path: Path
) -> None:
    assert state.runs.add(synthesizer)
    (film,) = drop(client, "a.png", files.film_bytes(tmp_path)).json()
    body = {"run": run_id(client, "run"), "films": [film["id"]]}
    for changes in (
        {"kind": "interpolate"},
        {"films": []},
        {"films": "1"},
        {"kind": "manifold"},
        {"count": 33},
        {"strength": 0},
        {"guidance": "much"},
        {"out": "/tmp/x"},
    ):
        assert client.post(f"{ROOT}api/generate", json=body | changes).status_code == 400, changes
    for id in ("..%2f..%2fx.png", "000001.npy", "x.png"):
        assert client.get(f"{ROOT}api/made/{id}").status_code == 404


# ------------------------------------------------------------------------------------------------ runs


def test_curves_tables_and_settings_of_a_run(
    client: TestClient, state: State, runs: Path, tmp_path: Path
) -> None:
    assert state.runs.add(runs)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "summary.csv").write_text("method,mean\n<b>recycle</b>,0.5\n")
    assert state.runs.add(tmp_path / "study")
    found = client.get(f"{ROOT}api/runs/{run_id(client, 'flat')}").json()
    assert found["curves"]["loss"][:2] == [[1, 1.0], [2, 0.5]]
    assert found["curves"]["validation.dice"] == [[20, 0.5]]
    assert found["settings"]["training.steps"] == "20"
    assert flat({"with_run": ["a", "b"], "from_run": None}) == {"with": "a, b", "from": "None"}
    table = client.get(f"{ROOT}api/runs/{run_id(client, 'study')}").json()["tables"][0]
    assert table["rows"] == [["<b>recycle</b>", "0.5"]]


def test_an_automatic_run_shows_its_choice_and_its_members(
    client: TestClient, state: State, tmp_path: Path
) -> None:
    best = files.make_choice(tmp_path / "best")
    assert state.runs.add(best)
    listed = client.get(f"{ROOT}api/state").json()["runs"]
    assert [(one["name"], one["use"]) for one in listed] == [
        ("best", "segment"),
        ("best: scratch", ""),  # to be looked at; the choice stands for it
    ]
    found, member = (client.get(f"{ROOT}api/runs/{one['id']}").json() for one in listed)
    assert found["choice"]["sentences"] == [
        "chosen: scratch with 50 steps",
        "Not tried: probe, finetune (--hours: too short)",
    ]
    tried, chosen, folds = found["choice"]["tables"]
    assert tried["columns"][5:7] == ["fold 1", "fold 2"]
    assert tried["rows"] == [  # the means of .9 and .8, and .7, of the folds' own tables
        ["scratch", "50", "0.800", "0.700", "1.0", "0.850", "0.700", "a <b>scratch</b> network"],
        ["imagenet", "50", "0.700", "0.600", "1.5", "", "", "a <b>imagenet</b> network"],
    ]
    assert chosen["rows"] == [["scratch", "100", "0"]]
    assert folds["rows"] == [["1", "2", "a, b"], ["2", "1", "c"]]
    assert found["tables"] == []  # candidates.csv is not shown twice
    assert member["curves"]["loss"][0] == [1, 1.0]
    assert member["choice"] == {}
    (best / "choice.json").write_text("{}")
    assert "choice.json" in client.get(f"{ROOT}api/runs/{listed[0]['id']}").json()["problems"][0]


def test_a_run_whose_films_were_in_color_says_so_once(tmp_path: Path) -> None:
    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    chosen_run(tmp_path / "best", replace(plan, colored=(2, 4)))
    finished_run(tmp_path / "gray", plan)
    runs = Runs()
    for name in ("best", "gray"):
        runs.add(tmp_path / name)
    notes = [described(entry)["notes"] for entry in runs.all()]
    line = "2 of the 4 images looked at are in color, and are turned to gray"
    assert notes == [[line], [], []]


def test_damaged_logs_and_tables_are_named_and_left_out(tmp_path: Path) -> None:
    assert curves([{"step": 1, "loss": float("nan")}, {"step": 2, "loss": "x"}]) == {}
    long = curves([{"step": i, "loss": 1.0} for i in range(10_001)])["loss"]
    assert len(long) <= POINTS + 1
    assert (long[0][0], long[-1][0]) == (0, 10_000)
    (tmp_path / "summary.csv").write_bytes(b"\xff\xfe\0x")
    entries = Runs()
    assert entries.add(tmp_path)
    found = described(entries.all()[0])
    assert found["tables"] == []
    assert "summary.csv" in found["problems"][0]


# ------------------------------------------------------------------------------------------------ truth and masks


def test_truth_against_prediction(tmp_path: Path, runs: Path) -> None:
    data, masks = tmp_path / "data", tmp_path / "masks"
    for folder in (data / "images", data / "labels", masks):
        folder.mkdir(parents=True)
    (data / "images" / "a.png").write_bytes(files.film_bytes(tmp_path, (4, 5)))
    film = Scan(np.zeros((1, 4, 5), np.uint8))
    truth, mask = np.zeros((2, 4, 5), np.uint8)
    truth[0], truth[1, 0], truth[3] = 1, 255, 2
    mask[0, :3], mask[2, 0], mask[3] = 1, 1, 1
    mask[1, 0] = 2  # where the truth is not counted
    write_label(data / "labels" / "a.png", truth, film)
    write_label(masks / "a.png", mask, film)
    files.mask_values(masks)
    (tmp_path / "server").mkdir()
    state = make_state(files.settings_of(data, masks=str(masks)), tmp_path / "server")
    client = TestClient(make_app(state, files.TOKEN, files.PORT), base_url=files.ADDRESS)
    base = f"{ROOT}api/scans/1/layers/given-against-truth"
    details = client.get(base).json()
    shown = np.frombuffer(client.get(f"{base}/data").content, np.uint8).reshape(4, 5)
    expected = np.zeros((4, 5), np.uint8)
    expected[0, :3], expected[0, 3:], expected[2, 0], expected[3] = 1, 3, 2, 4
    assert np.array_equal(shown, expected)
    scores = {row["name"]: row["dice"] for row in details["scores"]}
    assert scores == {files.CLASSES[1]: pytest.approx(2 * 3 / (9 + 5)), "heart": 0}


def test_a_mask_of_another_scan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(files.film_bytes(tmp_path, (4, 5)))
    write_label(tmp_path / "masks" / "a.png", np.ones((5, 4), np.uint8), Scan(np.zeros((1, 5, 4))))
    (tmp_path / "server").mkdir()
    settings = files.settings_of(tmp_path / "data", masks=str(tmp_path / "masks"))
    state = make_state(settings, tmp_path / "server")
    client = TestClient(make_app(state, files.TOKEN, files.PORT), base_url=files.ADDRESS)
    response = client.get(f"{ROOT}api/scans/1/layers/given")
    assert response.status_code == 422
    assert "another size" in response.json()["error"]


def test_counts_and_overlap_by_hand() -> None:
    array = np.array([[[0, 1, 1, 255]], [[2, 2, 2, 0]]], np.uint8)
    assert counts(array) == [[1, 2, 0], [1, 0, 3]]
    rows = overlap(np.array([1, 1, 0, 2]), np.array([1, 0, 0, 255]))
    assert rows == [{"value": 1, "dice": pytest.approx(2 / 3), "iou": 0.5}]


@pytest.mark.parametrize("kind", ["missing", "no-masks"])
def test_paths_that_cannot_be_used_end_in_one_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "film.png").write_bytes(files.film_bytes(tmp_path))
    if kind == "missing":
        settings, words = files.settings_of(tmp_path / "nowhere"), "does not exist"
    else:
        (tmp_path / "masks").mkdir()
        settings = files.settings_of(tmp_path / "film.png", masks=str(tmp_path / "masks"))
        words = "holds no mask"
    with pytest.raises(InputError, match=words):
        make_state(settings, tmp_path / "server")
