"""What a controller sees: ``worker`` and everything that can be reached from it.

All of it may be imported from outside; it knows no wire protocol and no transport.
"""
