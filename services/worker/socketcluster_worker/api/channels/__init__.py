"""`exchange`: channels, who is subscribed to them on this worker, and what becomes of a publication.

Protocols know ``exchange``, ``subscribers`` and ``publish_out``.
"""
