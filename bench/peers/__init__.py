"""The servers that are measured: this one and its peers, each with how it is started and configured.

Works import `side`; `install` puts the peers into a folder outside the source.
"""
