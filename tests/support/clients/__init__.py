"""What connects to a cluster: a browser's cookies and sockets, clients of raw bytes, and those that keep record."""
