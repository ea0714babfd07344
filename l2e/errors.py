"""How a run ends before its end, and how a setting is refused."""


class UserError(Exception):
    """Bad input or settings: one clear message, exit code 2, no traceback.

    The message says what is wrong, where, and what to do.
    """


class RunError(Exception):
    """A run that cannot go on: one clear message, exit code 1. Every rank raises it, and rank 0 tells it."""


class LostRankError(Exception):
    """Another process of this run has ended or does not answer: one clear message, exit code 1."""


class Stopped(BaseException):
    """A signal has stopped the run, and all that is needed to go on is saved: exit code 85.

    Like KeyboardInterrupt no Exception, so that no library takes it for a failure of its own.
    """


def require(holds: bool, key: str, allowed: str, value: object) -> None:
    """Refuse an impossible setting.

    Raises:
        ValueError: naming the key, what is allowed and what was given.
    """
    if not holds:
        raise ValueError(f"{key} must be {allowed}, not {value}")
