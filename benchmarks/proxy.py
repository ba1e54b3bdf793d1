"""A bad network: a UDP proxy that loses, repeats, reorders, damages, delays and stalls."""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import threading
import time

import numpy as np


class Proxy:
    """Between clients, which connect to `port`, and the server at `target`.

    drop, duplicate, corrupt, reorder: shares of the datagrams, both ways; delay: s, both ways
    stall(seconds): holds everything back for so long, then delivers it in one burst
    inject(data, client=False): sends bytes as if from the client (or, to it, from the server)
    to_server, to_client: what arrived here, as sent (the last `KEPT`)
    """

    KEPT = 5000

    def __init__(self, target: tuple[str, int], seed: int = 0) -> None:
        self.target, self.rng = target, np.random.default_rng(seed)
        self.drop = self.duplicate = self.corrupt = self.reorder = self.delay = 0.0
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self._stalled_until = 0.0
        self._inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # clients' side
        self._inside.bind(("127.0.0.1", 0))
        self._outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # server's side
        self._outside.bind(("127.0.0.1", 0))
        self.port: int = self._inside.getsockname()[1]
        self._client: tuple[str, int] | None = None
        self._queue: list[tuple[float, int, bytes, bool]] = []
        self._order = itertools.count()
        self._open = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stall(self, seconds: float) -> None:
        self._stalled_until = time.monotonic() + seconds

    def inject(self, data: bytes, client: bool = False) -> None:
        self._send(data, client)

    def close(self) -> None:
        self._open = False
        self._thread.join(2.0)
        self._inside.close()
        self._outside.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while self._open:
            ready, _, _ = select.select([self._inside, self._outside], [], [], self._patience())
            for side in ready:
                try:
                    data, address = side.recvfrom(65536)
                except OSError:  # the other end has gone
                    continue
                if side is self._inside:
                    self._client = address
                kept = self.to_client if side is self._outside else self.to_server
                kept.append(data)
                del kept[: -self.KEPT]
                self._pass_on(data, side is self._outside)
            now = time.monotonic()
            while self._queue and self._queue[0][0] <= now and now >= self._stalled_until:
                _, _, data, client = heapq.heappop(self._queue)
                self._send(data, client)

    def _patience(self) -> float:
        if not self._queue:
            return 0.02
        due = max(self._queue[0][0], self._stalled_until)
        return min(max(due - time.monotonic(), 0.0), 0.02)

    def _pass_on(self, data: bytes, client: bool) -> None:
        draw = self.rng.random(4)
        if draw[0] < self.drop:
            return
        if draw[1] < self.corrupt:
            changed = bytearray(data)
            changed[self.rng.integers(len(changed))] ^= 1 << self.rng.integers(8)
            data = bytes(changed)
        due = time.monotonic() + self.delay
        if draw[2] < self.reorder:
            due += 0.03
        for _ in range(2 if draw[3] < self.duplicate else 1):
            heapq.heappush(self._queue, (due, next(self._order), data, client))

    def _send(self, data: bytes, client: bool) -> None:
        try:
            if not client:
                self._outside.sendto(data, self.target)
            elif self._client is not None:
                self._inside.sendto(data, self._client)
        except OSError:
            pass
