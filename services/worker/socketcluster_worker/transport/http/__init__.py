"""HTTP/1.1: one connection's requests, how their bodies end, and what may take how long.

The server makes ``protocol``; ``forward`` passes requests on to the worker that has their session.
"""
