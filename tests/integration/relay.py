#!/usr/bin/env python3
"""relay.py FAULTPROXY FOLDER: each mode of tests/tools/faultproxy.c, seen from both of its sides."""
import itertools
import pathlib
import socket
import subprocess
import sys
import time

program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
control = folder / 'relay'
numbers = itertools.count()
listener = socket.create_server(('127.0.0.1', 0))


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as probe:
        return probe.getsockname()[1]


def tell(mode, number=0):
    line = f'{mode} {number} {next(numbers)}\n'
    (folder / 'relay.write').write_text(line)
    (folder / 'relay.write').rename(control)
    now = folder / 'relay.now'
    for _ in range(500):
        if now.exists() and now.read_text() == line:
            return
        time.sleep(0.01)
    raise AssertionError(f'{mode} is not obeyed')


def connect(patience=20):
    return socket.create_connection(('127.0.0.1', port), timeout=patience)


def unanswered():
    try:
        connect(0.5)
    except TimeoutError:
        return
    raise AssertionError('a new connection is answered')


def pair():
    client = connect()
    listener.settimeout(20)
    server, _ = listener.accept()
    server.settimeout(20)
    return client, server


def silent(sock):
    sock.settimeout(0.5)
    try:
        got = sock.recv(100)
    except TimeoutError:
        sock.settimeout(20)
        return
    raise AssertionError(f'{got} came through')


def closed(sock):
    try:
        return sock.recv(100) == b''
    except ConnectionError:
        return True


def passes(client, server):
    client.sendall(b'request')
    assert server.recv(100) == b'request'
    server.sendall(b'reply')
    assert client.recv(100) == b'reply'


port = free_port()
relay = subprocess.Popen([program, str(port), str(listener.getsockname()[1]), str(control)], stdout=subprocess.PIPE, text=True)
try:
    tell('ok')
    client, server = pair()
    passes(client, server)

    tell('delay', 200)
    begun = time.monotonic()
    client.sendall(b'slow')
    assert server.recv(100) == b'slow' and time.monotonic() - begun >= 0.19

    for mode in 'stall', 'blackhole':
        tell(mode)
        client.sendall(b'kept')
        silent(server)
        if mode == 'blackhole':
            unanswered()
        tell('ok')
        assert server.recv(100) == b'kept'
        passes(client, server)

    tell('hold')
    client.sendall(b'ghost')
    silent(server)
    second, second_server = pair()
    passes(second, second_server)
    client.close()
    silent(server)
    tell('ok')
    assert server.recv(100) == b'ghost'

    client, server = pair()
    tell('holdall')
    client.sendall(b'ghost')
    silent(server)
    unanswered()
    client.close()
    tell('ok')
    assert server.recv(100) == b'ghost'

    tell('hold')
    second.sendall(b'ghost')
    time.sleep(1)
    second_server.close()
    assert closed(second)
    tell('ok')

    client, server = pair()
    tell('swallow')
    client.sendall(b'request')
    assert server.recv(100) == b'request'
    server.sendall(b'reply')
    silent(client)
    tell('ok')
    assert closed(client)

    client, server = pair()
    tell('cutafter', 5)
    client.sendall(b'1234')
    assert server.recv(100) == b'1234'
    client.sendall(b'5678')
    assert closed(client)
    client, server = pair()
    passes(client, server)

    tell('cut')
    assert closed(client)
    try:
        connect()
        raise AssertionError('a cut relay accepts')
    except ConnectionRefusedError:
        pass
    tell('ok')
    passes(*pair())
finally:
    relay.terminate()
    said = relay.communicate(timeout=10)[0]
assert 'late bytes sent: 5' in said and 'held bytes lost: 5' in said, said
