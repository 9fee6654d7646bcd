"""Certificates: those of gRPC between the services, and when any of them ends.

``rpc_tls`` is for ``rpc`` and the settings; the rest may be imported from outside.
"""
