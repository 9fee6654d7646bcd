"""The load generator: clients of every server, in processes of their own.

`remote` is what works import; the other modules run in the generator's process.
"""
