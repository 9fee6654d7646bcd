"""The message protocols: each makes sockets of connections, and is the peer that they speak to.

``endpoints`` chooses one for each connection, by its path.
"""
