"""Handlers of clients' events that are added once for all clients, and what their annotations say of arguments.

Protocols know ``client_handlers``.
"""
