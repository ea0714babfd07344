"""The error for what a user can put right."""


class UserError(Exception):
    """Bad input or settings: one clear message, exit code 2, no traceback.

    The message says what is wrong, where, and what to do.
    """
