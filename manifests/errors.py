"""The two exceptions that carry a sentence for the user."""


class InputError(ValueError):
    """The user's input or usage is wrong: one sentence naming the file or value and what to do (CLI exit code 2)."""


class RunError(RuntimeError):
    """The run itself failed although the input was right (CLI exit code 1)."""
