"""SocketCluster's wire protocols, sans-I/O.

Bytes in, events out, bytes to send out: no sockets, no event loop, no logging.
"""
