"""The one kind of error that is the user's to mend."""


class UserError(ValueError):
    """A sentence for the user: the rule, what was found, what to do. The command line prints it alone and exits with 2."""
