"""Streams to stores, by gRPC or framed.

Links may know of what ``dialing`` says of both; which of them a link has is the client's to say.
"""
