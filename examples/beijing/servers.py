"""Both sample platforms, as servers: `python -m examples.beijing.servers DIR`, or `with serving(folder) as platforms:`.

Their data lies in SQLite files in DIR and outlives them. Tokens come from HOTLINE_TOKEN and STREET_TOKEN, ports from the
arguments or HOTLINE_PORT and STREET_PORT (default 18345 and 18346; 0 takes a free one). SIGTERM and SIGINT stop them cleanly.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.beijing.hotline import Hotline
from examples.beijing.http_platform import Faults, token_from_environment
from examples.beijing.street_platform import StreetPlatform

HOTLINE_PORT = 18345
STREET_PORT = 18346


@dataclass(frozen=True)
class Platforms:
    """Both platforms, running, and their tokens. Base addresses: `hotline.url`, `street.url`."""

    hotline: Hotline
    street: StreetPlatform
    hotline_token: str
    street_token: str


@contextmanager
def serving(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    hotline_port: int = 0,
    street_port: int = 0,
    hotline_token: str | None = None,
    street_token: str | None = None,
    hotline_faults: Faults = Faults(),
    street_faults: Faults = Faults(),
) -> Iterator[Platforms]:
    """Run both for the length of a `with`. A token that is not given is made up. Raises OSError if a port is taken."""
    first, second = hotline_token or secrets.token_urlsafe(24), street_token or secrets.token_urlsafe(24)
    with ExitStack() as stack:
        hotline = Hotline(folder, first, host=host, port=hotline_port, faults=hotline_faults)
        stack.enter_context(hotline)
        street = StreetPlatform(folder, second, host=host, port=street_port, faults=street_faults)
        stack.enter_context(street)
        yield Platforms(hotline, street, first, second)


def main(arguments: list[str] | None = None) -> None:
    """Serve until told to stop."""
    options = _options(arguments)
    faults = Faults(options.busy_every, options.broken_every, options.retry_after, options.seed)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with serving(
        options.folder,
        host=options.host,
        hotline_port=options.hotline_port,
        street_port=options.street_port,
        hotline_token=token_from_environment(Hotline),
        street_token=token_from_environment(StreetPlatform),
        hotline_faults=faults,
        street_faults=faults,
    ) as platforms:
        print(f"hotline {platforms.hotline.url}\nstreet {platforms.street.url}", flush=True)
        stop.wait()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.beijing.servers", description="样例平台 / sample platforms"
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="数据目录 / folder of their data")
    parser.add_argument("--host", default="127.0.0.1", help="监听地址 / address to listen at (a container: 0.0.0.0)")
    parser.add_argument("--hotline-port", type=int, default=int(os.environ.get("HOTLINE_PORT", HOTLINE_PORT)))
    parser.add_argument("--street-port", type=int, default=int(os.environ.get("STREET_PORT", STREET_PORT)))
    parser.add_argument("--busy-every", type=int, default=0, help="每 N 次请求返回 429 / every Nth request gets 429")
    parser.add_argument("--broken-every", type=int, default=0, help="每 N 次请求返回 500 / every Nth request gets 500")
    parser.add_argument("--retry-after", type=float, default=1.0, help="429 的等待秒数 / seconds to wait after a 429")
    parser.add_argument("--seed", type=int, default=0, help="错开故障 / shifts the faults")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
