"""Commands that go on until they are stopped: `serve` and `watch`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import typer

from medtl.cli.shared_options import there

TOKEN = "MEDTL_SERVE_TOKEN"
"""Environment variable with what every request to another address than loopback must show."""

Port = Annotated[int, typer.Option(min=0, max=65535, help="of the page; 0 takes a free one")]


def serve(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", callback=there, help="a run, or its export")
    ],
    port: Port = 8765,
    host: Annotated[
        str, typer.Option(help=f"address; other than loopback only with a token in {TOKEN}")
    ] = "127.0.0.1",
    keep: Annotated[Path | None, typer.Option(help="folder to keep results in; no films")] = None,
) -> None:
    """Open a page on this machine: drop a film, see score, threshold, likeness and heat map."""
    from medtl.run.folder import Run
    from medtl.run.service.serve import serve as opened

    token = os.environ.get(TOKEN, "")
    with opened(Run(run), host=host, port=port, token=token, keep=keep) as server:
        print(f"http://{host}:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
        print("Research use only. Not a medical device.", flush=True)
        server.serve_forever()


def watch(
    source: Annotated[str, typer.Argument(help="folder, or address of a DICOMweb server")],
    run: Annotated[Path, typer.Option("--run", callback=there, help="a run, or its export")],
    out: Annotated[Path, typer.Option("--out", help="folder of the results")],
    query: Annotated[
        str, typer.Option(help="of a server: ModalitiesInStudy=CR&StudyDate=20260101-")
    ] = "",
    stow: Annotated[
        str, typer.Option(help="DICOMweb server that results go to as DICOM objects")
    ] = "",
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks")] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="look once, and end")] = False,
    port: Port = 8766,
) -> None:
    """Predict every study that comes in, once; go on where it was after any stop."""
    from medtl.run.folder import Run
    from medtl.run.service.loopback import make_server
    from medtl.run.service.watch import Watch, source_of

    watched = Watch(Run(run), source_of(source, query), out, stow)
    with watched.alone():
        if once:
            watched.round()
        else:
            with make_server(watched.pages(), port=port) as server, _answering(server):
                print(f"http://127.0.0.1:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
                while True:
                    watched.round()
                    time.sleep(every)
    found = watched.health()
    print(", ".join(f"{count} {what}" for what, count in found["studies"].items()) or "no study")
    print("\n".join(found["reasons"]))
    if found["reasons"]:
        raise typer.Exit(1)


def show_clinic(out: Path) -> None:
    """Run the demo with an archive, and say what it holds in the end."""
    from medtl.cli.bars import bars
    from medtl.demo.clinic import run_clinic

    with bars() as shown:
        served = run_clinic(out, progress=shown.progress, callbacks=[shown.watcher()])
    for one in served:
        objects = ", ".join(f"{count} {kind}" for kind, count in sorted(one.objects.items()))
        print(f"{one.service}, study {one.study[-12:]}: {objects}")
    print("Trained for seconds on synthetic images: the results show the way, not what they say.")
    print(f"Runs and tables: {out}")


@contextmanager
def _answering(server: ThreadingHTTPServer) -> Iterator[None]:
    """Answer beside the work."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield
    server.shutdown()
