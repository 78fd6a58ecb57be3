"""Ask an exported model in a browser: `python -m bench.serve ARTIFACT`, then open what it prints.

Drop a picture, type a sentence, record a sound: the page shows probabilities and the milliseconds
of each stage at each precision, and, of a model that may lack a modality, its answer without each.
The same as JSON: POST to /predict and /explain, see bench.serving.app. Only this machine may ask,
unless --host says otherwise. Needs the extra `serve`.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path

from bench.edge import flags
from bench.edge.artifact import read
from bench.edge.entry import ends
from bench.edge.errors import BenchError
from bench.edge.predictor import Predictor

_LOCAL = ("localhost", "127.0.0.1")


@ends("Stopped.", install="pip install -e '.[serve]'")
def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    import uvicorn

    from bench.serving.app import Limits, make

    with _listener(options.host, options.port) as listener:
        app = make(
            _predictors(options),
            Limits(options.megabytes, options.seconds, options.at_once),
            (*_LOCAL, options.host) if _is_local(options.host) else ("*",),
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            # Connections beyond are refused before anything is read of them.
            limit_concurrency=64 + options.at_once,
            timeout_graceful_shutdown=round(options.seconds),
            server_header=False,
        )
        host, port = listener.getsockname()[:2]
        if not _is_local(options.host):
            print(f"note: whoever reaches {host} may ask; nothing is encrypted", file=sys.stderr)
        print(f"Open http://{host}:{port} (Ctrl-C ends it)", flush=True)
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
    if server.should_exit:
        # Told by a signal, which does not always come out of `run` as what it was.
        raise KeyboardInterrupt
    return 0


def _predictors(options) -> dict[str, Predictor]:
    """precision -> what answers at it; those that were not asked for may be wrong on this machine.

    Raises:
        BenchError: one cannot be used that was asked for, or none can.
    """
    found, why = {}, None
    for precision in options.precisions or read(options.artifact)["models"]:
        try:
            found[precision] = Predictor(options.artifact, precision, threads=options.threads)
        except BenchError as error:
            if options.precisions:
                raise
            why = error
            print(f"note: {precision} is left out: {error}", file=sys.stderr)
    if not found:
        raise BenchError(f"No precision of {options.artifact} can be used: {why}")
    return found


def _is_local(host: str) -> bool:
    try:
        return host in _LOCAL or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listener(host: str, port: int) -> socket.socket:
    """
    Raises:
        BenchError: the address cannot be had.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BenchError(
            f"{host}:{port} cannot be listened on ({reason}): give another --host or --port."
        ) from None


def _parser():
    parser = flags.parser("bench.serve", __doc__, older={"precision": "precisions"})
    add = parser.add_argument
    add("artifact", type=Path, help="what `python -m export` wrote")
    add("--precisions", type=flags.words, help="fp32,int8,...; the first answers (default: all)")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add("--port", type=int, default=8000, help="default 8000; 0 for any that is free")
    add("--threads", type=flags.positive, default=0, help="of the CPU for one answer")
    add("--megabytes", type=flags.positive, default=20, help="the largest request (20)")
    add("--seconds", type=flags.seconds, default=30.0, help="for a request, for an answer (30)")
    add("--at_once", type=flags.positive, default=4, help="requests in work (default 4)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
