"""Runs commands of radiffuse in processes that are killed, stopped or starved, and compares what they leave behind.

A server process imports everything heavy once and forks a process for each command, so that a run of a second costs a
second. It is started by ``Runner``; as a script this file is that server.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAVY = (
    *("torch", "pandas", "matplotlib.pyplot", "safetensors.torch", "lightning_fabric"),
    *("scipy.stats", "torch.utils.tensorboard", "diffusers", "transformers"),
    *("radiffuse.cli.settings", "radiffuse.reports.run"),
    *(f"radiffuse.commands.{name}" for name in ("pretrain", "fit", "classify", "predict")),
    *(f"radiffuse.commands.{name}" for name in ("synthesize", "generate", "zeroshot", "judge")),
    *(f"radiffuse.commands.{name}" for name in ("augment", "evaluate", "export", "select")),
)
TIMED = {"seconds", "images_per_second"}
LEFT_OUT = {"tensorboard", ".lock", "cost.json"}
"""What may differ between two equal runs: TensorBoard's mirror and the cost, which hold times, and the lock."""
WRITES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: Exit code; minus the signal where one ended it.
        cpu: Seconds of processor time.
        writes: Operations that changed the file system, as far as Python sees them.
        text: What it said on both streams.
    """

    code: int
    cpu: float
    writes: int
    text: str

    @property
    def killed(self) -> bool:
        """Whether it was killed, or stopped by SIGTERM."""
        return self.code in (-signal.SIGKILL, 128 + signal.SIGTERM)

    @property
    def told(self) -> bool:
        """Whether it was killed, or stopped with one line that says what was kept and that the command goes on."""
        last = [line for line in self.lines if "he same command" in line]
        whole = len(last) == 1 and "stopped" in last[0] and "Traceback" not in self.text
        return self.code == -signal.SIGKILL or whole

    @property
    def lines(self) -> list[str]:
        """Lines on the streams but for those of progress, which tell a count."""
        words = ("preparing", "step", "segmenting", "drawing", "embedding", "encoding", "scoring")
        return [line for line in self.text.splitlines() if line and not line.startswith(words)]

    @property
    def clear(self) -> bool:
        """Whether it ended with exit code 2 and one line that says why."""
        own = [line for line in self.lines if line.startswith("radiffuse: ")]
        return self.code == 2 and len(own) == 1 and "Traceback" not in self.text

    @property
    def clear_after_warning(self) -> bool:
        """Whether it ended with exit code 2 and one line that says why, after at most one warning that it goes on."""
        own = [line for line in self.lines if line.startswith("radiffuse: ")]
        warned = [line for line in own if "going on with" in line]
        clear = len(own) - len(warned) == 1 and len(warned) <= 1
        return self.code == 2 and clear and "Traceback" not in self.text


class Runner:
    """Runs commands; a context manager.

    Args:
        environment: Added to the environment of the commands.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        source = str(Path(__file__).parents[1] / "src")
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(paths),
                **(environment or {}),
            },
        )

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def __call__(
        self,
        arguments: Sequence[object],
        cwd: Path,
        *,
        kill_after: float | None = None,
        kill_at_write: int | None = None,
        number: int = signal.SIGKILL,
        file_size: int | None = None,
        memory: int | None = None,
        clock: float = 0.0,
        seconds: float = 500.0,
    ) -> Outcome:
        """Run ``radiffuse ARGUMENTS`` and wait for its end.

        Args:
            arguments: Words of the command line.
            cwd: Its working folder; the cache lies in ``cwd / "cache"``.
            kill_after: Send a signal after so many seconds of processor time.
            kill_at_write: Send it just before this operation on the file system, counted from 0.
            number: The signal; one that is not SIGKILL is sent to the process alone, which is waited for.
            file_size: Longest file it may write, in bytes; writing more fails as on a full disk.
            memory: Address space it may take beyond what it has at its start, in bytes.
            clock: Seconds that are added to the time of day.
            seconds: It is killed after so much wall time, and TimeoutError is raised.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {
            "arguments": [str(word) for word in arguments],
            "cwd": str(cwd),
            "kill_after": kill_after,
            "kill_at_write": kill_at_write,
            "number": int(number),
            "file_size": file_size,
            "memory": memory,
            "clock": clock,
            "seconds": seconds,
        }
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the server of the runs has died")
        values = json.loads(answer)
        if values.pop("hung"):
            raise TimeoutError(f"{arguments} ran longer than {seconds} s: {values['text'][-500:]}")
        return Outcome(**values)


# --------------------------------------------------------------------------------------------- comparing


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder by its relative path; times in ``log.jsonl`` do not count.

    Hidden files that are not complete yet (``.NAME.part``) are listed as well: a finished run has none.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or LEFT_OUT & set(name.parts):
            continue
        content = path.read_bytes()
        if path.name == "log.jsonl":
            rows = [json.loads(line) for line in content.splitlines()]
            content = json.dumps(
                [{k: v for k, v in r.items() if k not in TIMED} for r in rows]
            ).encode()
        if path.name == "data.json":
            content = json.dumps(json.loads(content) | {"root": ""}).encode()  # absolute
        if (
            path.name == "masks.jsonl"
        ):  # the last line of a case counts; times are those of the files
            entries = {row["case"]: row for row in map(json.loads, content.splitlines())}
            for entry in entries.values():
                entry["scan"] = {
                    k: v for k, v in entry["scan"].items() if k not in ("state", "time")
                }
            content = json.dumps(entries, sort_keys=True).encode()
        if path.name == "report.html":
            content = b""  # shows speed and seconds
        found[name.as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Names that one lacks or that differ."""
    return sorted(n for n in first.keys() | second.keys() if first.get(n) != second.get(n))


def half_written(folder: Path) -> list[str]:
    """Files under their final names that are not whole; journals may end in the middle of a line."""
    import numpy as np
    import yaml
    from PIL import Image
    from safetensors import safe_open

    wrong = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or any(p.startswith(".") for p in parts) or "tensorboard" in parts:
            continue
        try:
            match path.suffix:
                case ".safetensors":
                    with safe_open(path, "pt") as file:
                        list(file.keys())
                case ".json":
                    json.loads(path.read_text())
                case ".yaml":
                    assert isinstance(yaml.safe_load(path.read_text()), dict)
                case ".npy":
                    np.load(path, mmap_mode="r", allow_pickle=False)
                case ".npz":
                    dict(np.load(path, allow_pickle=False))
                case ".png":
                    with Image.open(path) as image:
                        image.load()
                case ".html":
                    assert path.read_text().rstrip().endswith("</html>")
                case ".csv":
                    assert path.read_text().endswith("\n")
        except Exception as error:
            wrong.append(f"{path.relative_to(folder)} ({type(error).__name__}: {error})")
    return wrong


# ---------------------------------------------------------------------------------------------- commands

NETWORK = "--network.preset tiny --network.width 8 --network.multipliers 1,2 --network.blocks 1"
TRAIN = "--training.steps 4 --training.batch_size 4 --training.log_every 1 --training.checkpoint_every 1"
DEVICE = "--machine.accelerator cpu --machine.precision 32-true"
CPU = f"{DEVICE} --machine.workers 2"
NET = f"{NETWORK} --network.attention_factors 2 --network.head_channels 8"
ALL = f"--size 32,32 {TRAIN} {CPU}"
STAGES = " ".join(
    f"--{stage}.training.steps 3 --{stage}.training.batch_size 4 --{stage}.training.checkpoint_every 1"
    for stage in ("dino", "vae")
)


def _inside(group: str) -> str:
    """The same settings as a group of another command."""
    words = f"{TRAIN} {CPU}".replace("--", f"--{group}.")
    return f"{words} --{group}.plan.size 32,32"


COMMANDS = {
    "anatomy": "anatomy chest --count 12 --size 64,64 --seed 5 --out out",
    "prepare": f"pretrain many --out out {NET} --size 32,32 --steps 1 --batch-size 2 {CPU}",
    "pretrain": f"pretrain films --out out {NET} {ALL}",
    "restorative": f"pretrain films --objective restorative --out out {NET} {ALL}",
    "contrastive": f"pretrain films --objective contrastive --out out {NET} {ALL}",
    "finetune": f"fit labelled --method finetune --from pre --labels 4 --out out {NET} {ALL} --validate-every 2",
    "diffusion": f"fit labelled --method diffusion --strategy recycle --labels 4 --out out {NET} {ALL}",
    "coordinates": f"pretrain films --objective coordinates --out out {NET} {ALL}",
    "probe": (
        f"fit labelled --method probe --from pre --timesteps 10 --heads linear,nonlinear --labels 4 "
        f"--out out {ALL}"
    ),
    "synthesize": (
        f"synthesize classes --out out {ALL} --dino.width 64 --dino.depth 1 --dino.patch 4 "
        f"--dino.prototypes 32 --dino.local_crops 1 --dino.training.average_decay 0 --vae.channels 8,16 "
        f"--denoiser.channels 16,32 --denoiser.heads 2 --denoiser.context 16 {STAGES}"
    ),
    "generate": f"generate synth --strategy variation --count 6 --batch 2 --steps 2 --out out {DEVICE}",
    "classify": f"classify classes --out out {ALL}",
    "study": (
        f"study labelled --from pre --methods scratch,finetune --labels 2 --draws 1 --out out {_inside('finetune')} "
        f"{NET.replace('--', '--finetune.')}"
    ),
    "augment": (
        "augment classes --with synth --ratios 0,1 --pools 8 --draws 1 --out out "
        f"--drawing.strategy variation --drawing.steps 2 --drawing.batch 2 {_inside('classify')}"
    ),
    "clean-features": f"pretrain films --objective clean-features --from pre --out out {TRAIN} {CPU}",
    "zeroshot": f"zeroshot pre labelled --clusters 4 --out out {DEVICE}",
    "zeroshot-volumes": f"zeroshot guided scans --names-from drawn --clusters 6 --out out {DEVICE}",
    "export": "export seg --out out",
    "export-onnx": "export seg --format onnx --out out",
    "export-bundle": "export seg --format monai-bundle --out out",
    "export-nnunet": "export pre --format nnunet-encoder --out out",
    "select": f"select many --from seg --count 5 --out out/next.csv {DEVICE}",
    "select-typical": f"select many --count 5 --out out/next.csv {DEVICE}",
    "judge": f"judge films many --draws 5 --out out {DEVICE}",
    "predict": f"predict seg labelled --out out {DEVICE} --confidence",
    "evaluate": "evaluate masks labelled --out out",
    "report": "info seg --report",
}
"""A command of each kind; ``NEEDS`` says what lies in its working folder."""
NEEDS = {
    **dict.fromkeys(("pretrain", "restorative", "contrastive", "coordinates"), ("films",)),
    **dict.fromkeys(("finetune", "probe", "study"), ("labelled", "pre")),
    "augment": ("synth", "classes"),
    **dict.fromkeys(("synthesize", "classify"), ("classes",)),
    "clean-features": ("films", "pre"),
    "zeroshot": ("pre", "labelled"),
    "zeroshot-volumes": ("guided", "scans", "drawn"),
    "export-nnunet": ("pre",),
    **dict.fromkeys(("export", "export-onnx", "export-bundle"), ("seg",)),
    "select": ("many", "seg"),
    "select-typical": ("many",),
    "judge": ("films", "many"),
    "anatomy": (),
    "prepare": ("many",),
    "diffusion": ("labelled",),
    "generate": ("synth", "classes"),
    "predict": ("seg", "labelled"),
    "evaluate": ("masks", "labelled"),
    "report": ("seg",),
}
MADE_BY = {"pre": "pretrain", "seg": "finetune", "synth": "synthesize", "masks": "predict"}


class Bench:
    """Working folders in which the commands of ``COMMANDS`` run; what they need is made once.

    Args:
        runner: Runs them.
        folder: Empty, or that of an earlier bench.
    """

    def __init__(self, runner: Runner, folder: Path) -> None:
        self.run = runner
        self.folder = folder
        self.stock = folder / "stock"
        self.whole: dict[str, tuple[Outcome, dict[str, str]]] = {}

    def place(self, name: str) -> Path:
        """A fresh working folder for a command, with copies of what it needs."""
        import shutil

        cwd = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        for need in NEEDS[name]:
            shutil.copytree(
                self.need(need), cwd / need
            )  # with the times of the files: they are keys
        return cwd

    def need(self, need: str) -> Path:
        """Data or a finished run."""
        from radiffuse.phantoms import write_dataset

        path = self.stock / need
        if path.exists():
            return path
        if need in MADE_BY:
            _, cwd = self.reference(MADE_BY[need])
            self.stock.mkdir(exist_ok=True)
            os.symlink(cwd / "out", path)
            return path
        if need == "guided":
            from tiny_runs import volumes_run

            return volumes_run(path)
        if need in ("scans", "drawn"):
            size, seed = (24, 24, 16), ("scans", "drawn").index(need)
            write_dataset("abdomen", path, count=4, labelled=True, seed=seed, size=size)
            return path
        count = {"labelled": 10, "films": 40, "many": 150, "classes": 40}[need]
        write_dataset(
            "bitewing" if need != "classes" else "chest",
            path,
            count=count,
            labelled=need == "labelled",
            seed=1,
            size=(32, 32),
        )
        if need == "classes":
            for i, file in enumerate(sorted(path.glob("*.png"))):
                inner = path / ("even", "odd")[i % 2]
                inner.mkdir(exist_ok=True)
                file.rename(inner / file.name)
        return path

    def reference(self, name: str) -> tuple[Outcome, Path]:
        """The undisturbed run of a command, made once."""
        if name not in self.whole:
            cwd = self.place(name)
            outcome = self.run(COMMANDS[name].split(), cwd)
            assert outcome.code == 0, outcome.text
            self.whole[name] = (outcome, {"": str(cwd)})
        outcome, where = self.whole[name]
        return outcome, Path(where[""])

    def result(self, name: str, cwd: Path) -> dict[str, str]:
        """Fingerprint of what a command made."""
        return fingerprint(cwd / ("seg" if name == "report" else "out"))

    def kill(self, name: str, **moment: Any) -> tuple[str, str]:
        """Kill a command at a moment, then run it again.

        Returns:
            What became of it (``identical``, ``finished before``, or what is wrong) and details.
        """
        import shutil

        from radiffuse.system.files import PARTIAL

        _, straight = self.reference(name)
        cwd = self.place(name)
        try:
            first = self.run(COMMANDS[name].split(), cwd, **moment)
            if not first.killed:
                return ("finished before", "") if first.code == 0 else ("failed", first.text)
            if not first.told:
                return "no clear line", first.text
            if wrong := half_written(cwd):
                return "half-written file", ", ".join(wrong)
            second = self.run(COMMANDS[name].split(), cwd)
            if second.code:
                return "does not finish", second.text
            if wrong := differences(self.result(name, straight), self.result(name, cwd)):
                return "differs", ", ".join(wrong)
            if left := [str(path.relative_to(cwd)) for path in cwd.rglob(f".*{PARTIAL}")]:
                return "half done files are left", ", ".join(left)
            return "identical", ""
        finally:
            shutil.rmtree(cwd, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ server


def _child(job: Mapping[str, Any], output: int) -> None:
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(job["cwd"])
    os.environ["RADIFFUSE_CACHE"] = "cache"
    if job["clock"]:
        real = time.time
        time.time = lambda: real() + job["clock"]
    if job["file_size"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"],) * 2)
    if job["memory"] is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + job["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    count = 0
    stop = job["kill_at_write"]

    def watch(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in WRITES or (event == "open" and not values[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        count += 1
        if count - 1 == stop:
            os.kill(os.getpid(), job["number"])

    sys.addaudithook(watch)
    from radiffuse.cli import main

    code = 99
    try:
        code = main(job["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        if stop is None:
            print(f"\n#writes {count}", flush=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _one(job: Mapping[str, Any]) -> dict[str, Any]:
    # A pipe and no file: how long files may be is limited for the child.
    source, output = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(source)
        _child(job, output)
    os.close(output)
    heard = bytearray()

    def listen() -> None:
        while piece := os.read(source, 2**16):
            heard.extend(piece)

    listener = threading.Thread(target=listen)  # ends with the child, before the next fork
    listener.start()
    hung, sent = False, False
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        hung = time.monotonic() - began > job["seconds"]
        if hung:
            os.kill(pid, signal.SIGKILL)
        elif not sent and job["kill_after"] is not None and _cpu(pid) >= job["kill_after"]:
            os.kill(pid, job["number"])
            sent = True
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it left running would keep the pipe open
    listener.join()
    os.close(source)
    text, _, writes = heard.decode("utf-8", "replace").partition("\n#writes ")
    return {
        "code": os.waitstatus_to_exitcode(status),
        "cpu": usage.ru_utime + usage.ru_stime,
        "writes": int(writes) if writes.strip() else 0,
        "text": text,
        "hung": hung,
    }


def _serve() -> None:
    import importlib

    # Fork copies one thread only: none may have been started before.
    for name in HEAVY:
        importlib.import_module(name)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        out.write(json.dumps(_one(json.loads(line))) + "\n")
        out.flush()


if __name__ == "__main__":
    _serve()
