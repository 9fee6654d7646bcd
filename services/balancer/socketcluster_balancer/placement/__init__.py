"""Which worker each client is given to, and how it gets there: by handover or relay.

The service builds ``workers`` and ``dispatcher``; what is chosen by is ``choice``.
"""
