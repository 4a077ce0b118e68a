"""A program that passes bytes on, between its clients and an address elsewhere: `python relay.py HOST PORT`.

It prints the port of its server on this machine. After a line `guard` on its standard input, it prints `lost` where the
other end of a connection closes, in place of closing the client's; after a line `free`, connections close as they would
without it, and so they do at first. It ends when its standard input is closed: with the process that has started it.

It is a process of its own: threads of the client's process could not pass anything on while JAX, in C++, waits for an
answer and lets no Python code run.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading

_BYTES = 2**16


def main() -> None:
  """Serves until the standard input is closed."""
  target, guarded = (sys.argv[1], int(sys.argv[2])), threading.Event()
  server = socket.create_server(("127.0.0.1", 0))
  print(server.getsockname()[1], flush=True)
  threading.Thread(target=_serve, args=(server, target, guarded), daemon=True).start()
  for line in sys.stdin:
    (guarded.set if line.strip() == "guard" else guarded.clear)()
    print("done", flush=True)
  os._exit(0)


def _serve(server: socket.socket, target: tuple[str, int], guarded: threading.Event) -> None:
  while True:
    client, _ = server.accept()
    try:
      other = socket.create_connection(target)
    except OSError:  # it has not started yet: the client tries again
      client.close()
      continue
    for one in (client, other):
      one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_pass_on, args=(client, other, None), daemon=True).start()
    threading.Thread(target=_pass_on, args=(other, client, guarded), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, guarded: threading.Event | None) -> None:
  with contextlib.suppress(OSError):
    while data := source.recv(_BYTES):
      sink.sendall(data)
  if guarded is not None and guarded.is_set():
    print("lost", flush=True)
    return
  for one in (source, sink):
    with contextlib.suppress(OSError):
      one.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
  main()
