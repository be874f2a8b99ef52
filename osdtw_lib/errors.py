"""The one exception a user is meant to read."""

from .legible import legible


class UserError(Exception):
    """Bad input: one line saying what, where and what to do. The command line exits with status 2."""

    def __init__(self, message: str):
        # names of files stand in it, and it travels through notebooks and other processes
        super().__init__(legible(str(message)))
