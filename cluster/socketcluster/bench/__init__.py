"""`socketcluster bench URL`: loads a running server as its clients would, and says how it did.

The command line imports `command`, and only when it is asked for; nothing here is imported from outside.
"""
