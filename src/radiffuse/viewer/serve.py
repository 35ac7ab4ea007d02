"""The command ``radiffuse view``."""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
import tempfile
import threading
import webbrowser
from importlib.util import find_spec
from pathlib import Path

from ..config import View
from ..errors import InputError
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
        raise InputError(
            "radiffuse view", f"needs {' and '.join(missing)}", "pip install 'radiffuse[view]'"
        )
    import uvicorn

    from .app import make_app

    with tempfile.TemporaryDirectory(prefix="radiffuse-view-") as folder:
        state = make_state(settings, Path(folder))
        token = secrets.token_urlsafe(32)
        with bind(settings.port) as bound:
            port = bound.getsockname()[1]
            address = f"http://127.0.0.1:{port}/{token}/"
            print(f"radiffuse view: {address}\nCtrl-C ends it.", file=sys.stderr, flush=True)
            server = uvicorn.Server(
                uvicorn.Config(
                    make_app(state, token, port),
                    log_level="warning",
                    access_log=False,  # it would hold the token
                    server_header=False,
                    timeout_graceful_shutdown=1,
                    ws="none",
                )
            )
            if settings.browser:
                threading.Timer(0.5, webbrowser.open, (address,)).start()
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=[bound])
        state.jobs.stop()
    return 0


def make_state(settings: View, folder: Path) -> State:
    """What the server holds at first: the paths of the command line.

    Raises:
        InputError: A path is neither run nor scans, or the masks are missing.
    """
    from ..data.layouts import open_dataset
    from .scans import MOST, mask_layers

    dropped = folder / "dropped"
    dropped.mkdir(mode=0o700)
    state = State(settings, folder, Intake(dropped, settings.upload_limit * 10**6))
    masks = Path(settings.masks) if settings.masks else None
    if masks is not None and not masks.is_dir():
        raise InputError(masks, "is no folder", "Give the folder of radiffuse predict")
    found = 0
    for text in settings.paths or ():
        path = Path(text).expanduser()
        if not path.exists():
            raise InputError(path, "does not exist", "Check the spelling of the path")
        if state.runs.add(path):
            continue
        dataset = open_dataset(path, settings.reader)
        cases = dataset.cases[: MOST - len(state.scans.all())]
        if len(cases) < len(dataset):
            print(f"radiffuse view: shows the first {MOST} scans", file=sys.stderr)
        for item in state.scans.add(cases, dataset.classes):
            for layer in mask_layers(masks, item, state.scans) if masks else ():
                state.scans.attach(item, layer)
                found += 1
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
