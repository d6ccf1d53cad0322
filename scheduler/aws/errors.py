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

from scheduler.domain.errors import AccessDenied, ConfigError, Unavailable, Unstorable

DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "AuthorizationError",
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


def _is_for_good(error: ClientError) -> bool:
    """Tell whether AWS refused the content of the call, so that it would refuse it for ever."""
    code, said = code_of(error), str(error).lower()
    if code == "ValidationException":
        return any(words in said for words in ("size", "data type", "type mismatch", "unsupported type"))
    return code in {"EntityTooLarge", "ItemCollectionSizeLimitExceededException", "KeyTooLongError"}


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn botocore's errors inside the block into Unavailable, AccessDenied or Unstorable, `doing` saying what was
    tried; an endpoint variable that is no address is a ConfigError.

    Conditions that the caller understands (a failed condition, a 412) must be caught inside the block.
    """
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, NoRegionError) as error:
        raise AccessDenied(f"{doing}: {error}") from error
    except ClientError as error:
        if _is_for_good(error):
            raise Unstorable(f"{doing}: {error}") from error
        kind = AccessDenied if code_of(error) in DENIED else Unavailable
        raise kind(f"{doing}: {error}") from error
    except RuntimeError as error:
        if "credentials" not in str(error):
            raise
        raise AccessDenied(f"{doing}: {error}") from error  # botocore's own, when a refresh brought expired ones
    except ValueError as error:
        if not str(error).startswith("Invalid endpoint"):
            raise
        said = f"AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_<SERVICE>): {error}; it must be such as http://127.0.0.1:5000"
        raise ConfigError([said]) from error
    except (BotoCoreError, ResponseParserError, OSError) as error:
        # An answer that is none of AWS's (a proxy's page of HTML) cannot be parsed, and is no BotoCoreError.
        raise Unavailable(f"{doing}: {error}") from error
