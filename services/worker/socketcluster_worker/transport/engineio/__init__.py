"""Engine.IO: sessions over long-polling and WebSocket, and the upgrade from one to the other.

``routing`` and protocols know ``engine``, ``polling`` and ``numbering``.
"""
