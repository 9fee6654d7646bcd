"""Sockets, namespaces, rooms and sessions, their events and their middleware.

Protocols make sockets; nothing here knows a wire protocol.
"""
