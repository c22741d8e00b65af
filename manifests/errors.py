"""The two exceptions that carry a sentence for the user; no sentence ever carries credentials."""

from manifests.redaction import redact


class InputError(ValueError):
    """The user's input or usage is wrong: one sentence naming the file or value and what to do (CLI exit code 2)."""

    def __init__(self, sentence: str = "") -> None:
        super().__init__(redact(sentence))


class RunError(RuntimeError):
    """The run itself failed although the input was right (CLI exit code 1)."""

    def __init__(self, sentence: str = "") -> None:
        super().__init__(redact(sentence))
