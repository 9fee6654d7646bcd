"""Which request goes where, and whether it may: hosts, origins, session cookies, the client's files.

The server knows ``router``, the settings read the patterns of ``hosts`` and ``origins``, polling asks ``origins``.
"""
