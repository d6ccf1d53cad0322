"""What botocore raises, said in the domain's words, at one seam."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from scheduler.domain.errors import AccessDenied, Unavailable

DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "KMS.AccessDeniedException",
        "KmsAccessDenied",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
        "403",
    }
)


def code_of(error: ClientError) -> str:
    """Return AWS's code of an error, without the namespace that some services put before it."""
    return error.response.get("Error", {}).get("Code", "").rpartition("#")[2]


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn botocore's errors inside the block into Unavailable or AccessDenied, `doing` saying what was tried.

    Conditions that the caller understands (a failed condition, a 412) must be caught inside the block.
    """
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, NoRegionError) as error:
        raise AccessDenied(f"{doing}: {error}") from error
    except ClientError as error:
        kind = AccessDenied if code_of(error) in DENIED else Unavailable
        raise kind(f"{doing}: {error}") from error
    except (BotoCoreError, ResponseParserError) as error:
        # An answer that is none of AWS's (a proxy's page of HTML) cannot be parsed, and is no BotoCoreError.
        raise Unavailable(f"{doing}: {error}") from error
