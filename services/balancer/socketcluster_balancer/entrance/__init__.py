"""Where clients come in: accepted, counted, by TLS or not, their first request read.

The service builds ``listener`` and ``reception``; others know ``client``, ``responses`` and ``deadlines``.
"""
