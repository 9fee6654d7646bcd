"""Which request goes where, and whether it may: hosts, origins, session cookies, the client's files.

The server knows ``router``; transports know ``origins`` and ``session_cookie``.
"""
