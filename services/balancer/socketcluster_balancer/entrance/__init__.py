"""Where clients come in: accepted, counted, by TLS or not, their first request read.

The service builds ``listener``, ``proxy_protocol``, ``limits``, ``certificate`` and ``plain`` or ``secure``; others know
``client``, ``reception``, ``responses`` and ``deadlines``.
"""
