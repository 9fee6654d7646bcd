"""Commands on the data of stores that are stopped: is all of it there, and what is to be done without the rest.

They are run by ``python -m``; nothing else imports them.
"""
