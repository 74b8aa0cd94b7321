"""Runs the web application, and stops it in peace."""

import uvicorn
from fastapi import FastAPI

from .batching import Batcher


KEEP_ALIVE = 65  # seconds that an idle connection stays open; longer than clients and proxies keep one
LAST_SECONDS = 5  # at the end, for answers on their way and for requests that have begun and are not there


class Server(uvicorn.Server):
    """
    Uvicorn's server. At SIGTERM or SIGINT it answers new requests with status 503 and stops when all others are
    answered, with exit code 0; at a second signal it stops at once. A request that a slow client is still sending does
    not hold it up.

    Args:
        app (`FastAPI`): see [`make_app`].
        batcher (`Batcher`): scores the requests of `app`.
        ready (`str`): line to print when clients may connect.
    """

    def __init__(self, app: FastAPI, batcher: Batcher, ready: str):
        options = {"timeout_keep_alive": KEEP_ALIVE, "timeout_graceful_shutdown": LAST_SECONDS}
        super().__init__(uvicorn.Config(app, log_level="warning", access_log=False, **options))
        self.batcher, self.ready = batcher, ready

    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.ready, flush=True)

    def handle_exit(self, sig: int, frame):
        self.should_exit = self.force_exit = self.batcher.stopping
        self.batcher.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Uvicorn calls this every tenth of a second."""
        self.should_exit |= self.batcher.stopping and not self.batcher.waiting
        return await super().on_tick(counter)

    async def shutdown(self, sockets=None):
        await super().shutdown(sockets)
        self.batcher.close()


__all__ = ["Server"]
