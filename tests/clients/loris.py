"""Clients that take their time: connections that say nothing, heads that do not end, bodies that do not come. Prints what it saw; fails
where an ordinary request is kept waiting, or one of them is waited for too long."""

import json
import resource
import socket
import ssl
import sys
import time

host, port, folder, request_timeout = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
SILENT, GREETED, HEADS, BODIES = 1500, 100, 50, 50
# A request of somebody else's may take so long on a machine that has other things to do.
PATIENCE = 20

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connect():
    return socket.create_connection((host, port), timeout=request_timeout + PATIENCE)


def greet(protocol="http/1.1"):
    context = ssl.create_default_context(cafile=f"{folder}/ca.crt")
    context.load_cert_chain(f"{folder}/admin.crt", f"{folder}/admin.key")
    context.set_alpn_protocols([protocol])
    return context.wrap_socket(connect(), server_hostname=host)


def answer(connection):
    """Status and body of what comes until the end."""
    said = b""
    while chunk := connection.recv(1 << 16):
        said += chunk
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def ordinary():
    begun = time.monotonic()
    connection = greet()
    connection.sendall(b"GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    code, body = answer(connection)
    took = time.monotonic() - begun
    assert code == 200 and json.loads(body)["kind"] == "NamespaceList", (code, body[:200])
    assert took < PATIENCE, took
    return took


alone = ordinary()
silent = [connect() for _ in range(SILENT)]
greeted = [greet("h2" if number % 2 else "http/1.1") for number in range(GREETED)]
heads = [greet() for _ in range(HEADS)]
for connection in heads:
    connection.sendall(b"GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nX-Long")
bodies = [greet() for _ in range(BODIES)]
for connection in bodies:
    connection.sendall(
        b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{"
    )
crowded = max(ordinary() for _ in range(5))

# What comes byte by byte comes in the end.
slow = greet()
for byte in b"GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":
    slow.sendall(bytes([byte]))
    time.sleep(0.002)
assert answer(slow)[0] == 200

# Bodies are waited for as long as a request may take.
for connection in bodies:
    code, body = answer(connection)
    assert code == 504 and json.loads(body)["reason"] == "Timeout", (code, body)

# So are those who say nothing, but for less.
for connection in silent:
    connection.settimeout(PATIENCE)
    assert connection.recv(1) == b"", "it is still open"
ordinary()
print(f"{alone:.3f} s alone, {crowded:.3f} s in the crowd: loris is content")
