"""Running `stylize` in this process, and what every refusal must look like."""

import json
from typing import Any

from click.testing import CliRunner, Result

import cli


def invoke(*arguments: object) -> Result:
    """Run one command; what it raises besides SystemExit would be a traceback to its user."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


def succeed(*arguments: object) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refuse(code: int, *arguments: object, because: tuple[str, ...] = ()) -> str:
    """Run a command that must end in this code with one sentence, which names all of `because`; returns it."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    sentence = result.stderr.rstrip("\n").splitlines()[-1]
    assert sentence.startswith("Error: "), result.stderr
    assert result.stderr.count("Error: ") == 1, result.stderr
    assert not sentence.startswith("Error: [Errno"), sentence
    for words in because:
        assert words in sentence, sentence
    return sentence


def json_of(*arguments: object, code: int = 0) -> dict[str, Any]:
    """Run a command with --json and parse its standard output, which must hold nothing else, strictly."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == code, result.output

    def not_json(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    document: dict[str, Any] = json.loads(result.stdout, parse_constant=not_json)
    return document
