"""The works that servers are measured at, a module each; `registry` lists them.

Each imports `bench` and `stand`, what runs servers and clients for it, and nothing of the other works.
"""
