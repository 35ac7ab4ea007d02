"""The command ``radiffuse view``."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import threading
import webbrowser
from importlib.util import find_spec
from pathlib import Path

from ..config import View
from ..errors import InputError, missing
from ..system.installing import install
from .state import State
from .uploads import Intake


def view(settings: View) -> int:
    """Serve the page on this computer until interrupted.

    Returns:
        Exit code 0.

    Raises:
        InputError: A path cannot be used, the port is taken, or the extra ``view`` is not installed.
    """
    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InputError("radiffuse view", f"needs {' and '.join(missing)}", install("view"))
    from .ending import server_folder, signals_end

    with signals_end(), server_folder() as folder:
        state = make_state(settings, folder)
        with bind(settings.port) as bound, contextlib.suppress(KeyboardInterrupt):
            try:
                _serve(settings, state, bound)
            finally:
                state.jobs.stop()
    return 0


def _serve(settings: View, state: State, bound: socket.socket) -> None:
    """Answer until a signal comes; the address is told once the server listens."""
    import uvicorn

    from .app import make_app

    token, port = secrets.token_urlsafe(32), bound.getsockname()[1]
    address = f"http://127.0.0.1:{port}/{token}/"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(f"radiffuse view: {address}\nCtrl-C ends it.", file=sys.stderr, flush=True)
                if settings.browser:
                    page = way_to(address, state.folder).as_uri()
                    threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()

    config = uvicorn.Config(
        make_app(state, token, port),
        log_level="warning",
        access_log=False,  # it would hold the token
        server_header=False,
        use_colors=False,  # what is printed holds no escape codes
        timeout_graceful_shutdown=1,
        ws="none",
        lifespan="off",  # the application has none, and a second Ctrl-C would show where it was
    )
    Server(config).run(sockets=[bound])


def way_to(address: str, folder: Path) -> Path:
    """A page that leads on to an address, for this user alone: a browser's command line is for all to read."""
    path = folder / "open.html"
    refresh = f'<meta http-equiv="refresh" content="0; url={address}">'
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f'<!doctype html><meta name="referrer" content="no-referrer">{refresh}')
    return path


def make_state(settings: View, folder: Path) -> State:
    """What the server holds at first: the paths of the command line.

    Raises:
        InputError: A path is neither run nor scans, or the masks are missing.
    """
    from ..data.layouts import open_dataset
    from ..inference.records import Record
    from .scans import MOST, mask_layers
    from .worklist import read_worklist

    dropped = folder / "dropped"
    dropped.mkdir(mode=0o700)
    state = State(settings, folder, Intake(dropped, settings.upload_limit * 10**6))
    masks = Path(settings.masks) if settings.masks else None
    if masks is not None and not masks.is_dir():
        raise InputError(masks, "is no folder", "Give the folder of radiffuse predict")
    state.record = record = Record.read(masks) if masks else None
    if settings.corrections:
        state.corrections.refuse_foreign()
    found = 0
    wanted = read_worklist(Path(settings.worklist)) if settings.worklist else None
    for text in settings.paths or ():
        path = Path(text).expanduser()
        if not path.exists():
            raise missing(path)
        if state.runs.add(path):
            continue
        dataset = open_dataset(path, settings.reader)
        listed = dataset.cases if wanted is None else wanted.of(dataset.cases)
        cases = listed[: MOST - len(state.scans.all())]
        if len(cases) < len(listed):
            print(f"radiffuse view: shows the first {MOST} scans", file=sys.stderr)
        if not state.labelled and dataset.labelled:
            state.labelled = text
        state.classes = state.classes or dataset.classes
        items = state.scans.add(cases, dataset.classes)
        for item in items:
            item.channels, item.patient = (
                dataset.channels,
                item.case.group if dataset.patients_named else "",
            )
            if wanted is not None:
                item.place, item.why = wanted.rows[item.name].place, wanted.rows[item.name].why
            for layer in mask_layers(masks, item, state.scans, record) if masks else ():
                state.scans.attach(item, layer)
                found += 1
        state.take(items)
    if wanted is not None:
        wanted.refuse_missing(state.scans.all())
    if masks is not None and not found:
        raise InputError(masks, "holds no mask named like a scan", "Give the masks of these scans")
    return state


def bind(port: int) -> socket.socket:
    """A socket that only this computer reaches.

    Raises:
        InputError: The port is taken or may not be used.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
    except OSError as error:
        bound.close()
        raise InputError(
            f"--port {port}", f"cannot be used ({error.strerror})", "Choose another, or 0"
        ) from None
    return bound
