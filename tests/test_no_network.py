"""The block that all other tests run behind holds."""

import socket
from urllib import request

import pytest


def test_no_other_machine_can_be_reached():
    with socket.socket() as plain, pytest.raises(AssertionError, match="tried to reach"):
        plain.connect(("192.0.2.1", 80))
    with pytest.raises(AssertionError, match="tried to look up"):
        socket.create_connection(("example.org", 80))
    with pytest.raises(AssertionError, match="tried to look up"):
        request.urlopen("http://example.org")


def test_this_machine_can():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
