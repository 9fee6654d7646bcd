"""Where clients come in: accepted, counted, by TLS or not, their first request read.

The service builds what is here; others know ``client``, ``reception``, ``plain``, ``limits`` and ``deadlines``.
"""
