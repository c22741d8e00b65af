"""Credentials come out of addresses and sentences, and nothing else does."""

import pytest
from fsspec.config import conf
from hypothesis import given
from hypothesis import strategies as st

from manifests import redaction
from manifests.redaction import has_credentials, redact, remember


@pytest.fixture(scope="module", autouse=True)
def _forget():
    """What these tests make the process remember must not blot out words of other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_remembered", set())
        yield


SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("s3://AKIA:wJal/rXU+tn@bucket/faces", "s3://bucket/faces"),
        ("ftp://me:secret-word@host:2121/faces", "ftp://host:2121/faces"),
        ("https://ghp_abcdefgh@host/x.zip", "https://host/x.zip"),
        ("https://host/x.zip?X-Amz-Signature=0f0f0f0f0f&X-Amz-Expires=9", "https://host/x.zip"),
        ("https://host/x.zip?unheard-of=0f0f0f0f0f", "https://host/x.zip"),
        ("https://host/x.zip?version=3&sig=0f0f0f0f0f", "https://host/x.zip?version=3"),
        ("az://box/x?sv=2020&sig=0f0f0f0f0f%3D", "az://box/x?sv=2020"),
        ("cannot read 'https://h/x?Signature=abcdefgh', try later", "cannot read 'https://h/x', try later"),
        ("ClientResponseError: 403, url='https://h/x?sig=abcdefgh'", "ClientResponseError: 403, url='https://h/x'"),
        ("simplecache::s3://AKIA:abcdefghij@bucket/x", "simplecache::s3://bucket/x"),
        ("options {'key': 'k', 'secret': 'abcdefgh'}", "options {'key': 'k', 'secret': '***'}"),
        ('S3FileSystem(token="abcdefgh")', 'S3FileSystem(token="***")'),
        ("The key AKIAIOSFODNN7EXAMPLE does not exist", "The key *** does not exist"),
        ("…&X-Amz-Signature=0123abcd&x=1", "…&X-Amz-Signature=***&x=1"),
    ],
)
def test_what_is_taken_out(given, shown):
    assert redact(given) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/faces/a:b@c.jpg",
        "s3://bucket/what?.jpg",
        "s3://bucket/x?versionId=7f",
        "https://host:8443/a@b.jpg",
        "tls://10.0.0.1:8786",
        "sftp://me@host/faces",
        "/data/a b/c=d?e=f.jpg",
        "3 images have no row in s3://b/list.txt and are left out (first: a.jpg, b.jpg).",
        "",
    ],
)
def test_what_stays(text):
    assert redact(text) == text
    assert not has_credentials(text)


@pytest.mark.parametrize("address", ["s3://k:secret@b/x", "https://t0ken@h/x", "https://h/x?X-Amz-Signature=1"])
def test_addresses_with_credentials_are_known(address):
    assert has_credentials(address)


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "MY_PASSWORD"]
)
def test_what_the_environment_keeps_secret(monkeypatch, name):
    monkeypatch.setenv(name, SECRET)
    assert SECRET not in redact(f"signed with {SECRET}")
    assert redact("x=wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCYEXAMPLEKEY") == "x=***"


def test_names_of_files_in_the_environment_are_no_secrets(monkeypatch):
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/token")
    assert redact("/var/run/secrets/token") == "/var/run/secrets/token"


def test_what_fsspec_was_configured_with(monkeypatch):
    monkeypatch.setitem(conf, "s3", {"key": "some-user", "client_kwargs": {"aws_secret_access_key": SECRET}})
    assert redact(f"some-user {SECRET}") == "*** ***"


def test_short_values_do_not_blot_out_words(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "face")
    assert redact("some faces") == "some faces"


# What people and services really make passwords of; percent-encoded wherever a URL needs it.
PASSWORDS = st.text("abcXYZ0189+=_.~-%", min_size=8, max_size=40).filter(lambda text: not text.isdigit())


@given(password=PASSWORDS, user=st.text("abcAKIA019", min_size=1), rest=st.text("abc/-_.", max_size=10))
def test_no_password_gets_through(password, user, rest):
    for text in (
        f"s3://{user}:{password}@bucket/{rest}",
        f"cannot list 's3://{user}:{password}@bucket/{rest}': {password} is wrong",
        f"https://host/{rest}?X-Amz-Signature={password}",
    ):
        assert password not in redact(text)


@given(text=st.text())
def test_any_text_is_survived_and_redacted_once(text):
    assert redact(redact(text)) == redact(text)


def test_what_is_remembered_is_hidden_in_every_spelling():
    remember("a/b+c=d-e-f-g-h")
    assert redact("a/b+c=d-e-f-g-h a%2Fb%2Bc%3Dd-e-f-g-h") == "*** ***"
