"""What can go wrong in a command other than wrong use."""


class WorkError(Exception):
    """Some of the work could not be done; what could is done. The message, of a line each failure, is for people."""


def one_line(error: BaseException, culprit: str = "") -> str:
    """The message on one line, the culprit before it where it is not named yet; the kind of the error where there is no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if culprit in text else f"{culprit}: {text}"
