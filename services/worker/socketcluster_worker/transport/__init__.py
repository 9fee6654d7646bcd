"""The transports: each carries messages over TCP connections, and knows no message protocol.

The server makes them of sockets and handovers; ``endpoints`` gives a request to one of them.
"""
