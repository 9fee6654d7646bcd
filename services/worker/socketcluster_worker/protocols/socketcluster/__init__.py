"""SocketCluster's protocol: its handshake, events, calls and requests, in two versions and for our own browser client.

The router makes the peers of ``peer``, ``v1`` and ``browser``; nobody else knows this folder.
"""
