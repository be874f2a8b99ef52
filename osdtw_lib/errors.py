"""The exceptions a user is meant to read."""

from .legible import legible


class UserError(Exception):
    """Bad input: one line saying what, where and what to do. The command line exits with status 2."""

    def __init__(self, message: str):
        # names of files stand in it, and it travels through notebooks and other processes
        super().__init__(legible(str(message)))


class DivergedError(UserError):
    """A training whose loss is no longer finite: another learning rate may help, the same one never will."""
