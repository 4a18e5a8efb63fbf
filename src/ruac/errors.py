"""What can go wrong in a command other than wrong use."""


class WorkError(Exception):
    """Some of the work could not be done; what could is done. The message, of a line each failure, is for people."""
