"""Which worker each client is given to, and how it gets there: by handover or relay.

The service builds ``workers`` and ``dispatcher``, and has ``relayed`` end what is copied; the rest is known here alone.
"""
