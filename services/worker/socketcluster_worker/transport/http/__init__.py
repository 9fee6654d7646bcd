"""HTTP/1.1: one connection's requests, how their bodies end, and what may take how long.

The server makes ``protocol``, which asks ``routes`` where requests go; the router knows ``forward``, to other workers.
"""
