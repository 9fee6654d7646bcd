"""Values on key chains, which the stores keep: of the application and of sessions.

All of it may be imported from outside.
"""
