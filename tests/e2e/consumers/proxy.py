"""A TCP proxy that cuts connections, limits bandwidth and stalls, and counts what it passes on."""

import asyncio
import threading

PIECE = 64 << 10


class Proxy:
    """Listens on loopback and passes connections on to `target` (HOST:PORT). "Up" is what clients send.

    cut(at, …): when so many bytes have gone up, counted over all connections, the connection that sent the last of
    them breaks; the target gets every byte up to there. stall(at): from there on nothing more moves on that connection.
    cut_down(at, …) is as cut, counted in what the target sends.
    """

    def __init__(self, target, rate=None):
        host, _, port = target.rpartition(":")
        self.target = host, int(port)
        self.rate = rate
        self.up = self.down = self.connections = 0
        self.happened = []
        self._plan, self._plan_down = [], []
        self._open_at = 0.0
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE))
        self.host = "127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]

    def ref(self, name, tag="latest"):
        return f"{self.host}/{name}:{tag}"

    def cut(self, *at):
        self._plan = sorted([*self._plan, *((place, "cut") for place in at)])

    def stall(self, *at):
        self._plan = sorted([*self._plan, *((place, "stall") for place in at)])

    def cut_down(self, *at):
        self._plan_down = sorted([*self._plan_down, *at])

    def reset(self):
        """Counts from here on, with no plans."""
        self.up = self.down = self.connections = 0
        self.happened, self._plan, self._plan_down = [], [], []

    def stop(self):
        async def end():
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            to_reader, to_writer = await asyncio.open_connection(*self.target, limit=PIECE)
        except OSError:
            writer.transport.abort()
            return
        down = asyncio.create_task(self._down(to_reader, writer))
        self._tasks.add(down)
        try:
            await self._up(reader, writer, to_writer, down)
            await down
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            down.cancel()
            # What was passed on must arrive, so the target's side is closed and the client's is broken.
            to_writer.close()
            writer.transport.abort()
            self._tasks -= {asyncio.current_task(), down}

    async def _up(self, reader, writer, to_writer, down):
        while piece := await reader.read(PIECE):
            while self._plan and self.up + len(piece) >= self._plan[0][0]:
                place, what = self._plan.pop(0)
                kept, piece = piece[: max(0, place - self.up)], piece[max(0, place - self.up) :]
                self.up += len(kept)
                to_writer.write(kept)
                await to_writer.drain()
                self.happened.append((place, what))
                if what == "cut":
                    raise ConnectionResetError
                down.cancel()
                # Until the client gives up, or the proxy is stopped: reading shows when, and passes nothing on.
                while await reader.read(PIECE):
                    await asyncio.get_running_loop().create_future()
                raise ConnectionResetError
            await self._pace(len(piece))
            self.up += len(piece)
            to_writer.write(piece)
            await to_writer.drain()
        to_writer.write_eof()

    async def _down(self, reader, writer):
        while piece := await reader.read(PIECE):
            if self._plan_down and self.down + len(piece) >= self._plan_down[0]:
                self.happened.append((self._plan_down.pop(0), "cut down"))
                writer.transport.abort()
                return
            self.down += len(piece)
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def _pace(self, size):
        """Sleeps as long as `size` bytes take at the rate that all connections share."""
        if self.rate:
            now = self._loop.time()
            self._open_at = max(self._open_at, now) + size / self.rate
            await asyncio.sleep(self._open_at - now)
