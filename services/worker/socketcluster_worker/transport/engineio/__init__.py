"""Engine.IO: sessions over long-polling and WebSocket, and the upgrade from one to the other.

The router knows ``engine``, ``polling`` and ``numbering``.
"""
