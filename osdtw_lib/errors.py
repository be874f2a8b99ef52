"""The one exception a user is meant to read."""


class UserError(Exception):
    """Bad input: one line saying what, where and what to do. The command line exits with status 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).splitlines()))  # a name may hold a line's end
