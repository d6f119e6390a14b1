"""Errors of the Hugging Face Hub's client in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ['clear_errors']

_LOGIN = 'log in with `hf auth login` or set HF_TOKEN'


@contextmanager
def clear_errors(what: str) -> Iterator[None]:
    """Translates the client's errors inside a `with` block.

    Args:
        what: What is being read or written, such as 'hf-hub:user/name@w0.5'.

    Raises:
        ValueError: There is no such repository, revision or file, or the name is not one.
        PermissionError: No token, a wrong one, or one that may not do this.
        ConnectionError: No network, or the Hub failed.
    """
    from huggingface_hub import errors

    http_error: type[Exception] = getattr(errors, 'HTTPError', OSError)  # of the HTTP client that this version uses
    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise PermissionError(f'{what!r} needs a token of the Hugging Face Hub: {_LOGIN}.') from error
    except errors.HFValidationError as error:
        raise ValueError(f'{what!r} is no id of the Hugging Face Hub, expected user/name: {error}') from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f'{what!r} could not be fetched from the Hugging Face Hub: no such branch or tag.') from error
    except errors.LocalEntryNotFoundError as error:  # not in the cache, and no way to fetch it
        raise ConnectionError(f'{what!r} could not be fetched from the Hugging Face Hub: {_reason(error)}') from error
    except errors.EntryNotFoundError as error:
        raise ValueError(f'{what!r} lacks a file: {_reason(error)}') from error
    except (errors.HfHubHTTPError, http_error) as error:
        raise _translated(what, error) from error
    except errors.OfflineModeIsEnabled as error:
        raise ConnectionError(f'{what!r} needs the network, but HF_HUB_OFFLINE is set; unset it.') from error
    except (ConnectionError, TimeoutError, RuntimeError) as error:  # the last from the storage client
        raise ConnectionError(f'{what!r}: the Hugging Face Hub cannot be reached: {_reason(error)}') from error


def _translated(what: str, error: Exception) -> Exception:
    """An error of the HTTP client, by its status."""
    from huggingface_hub import errors

    status = getattr(getattr(error, 'response', None), 'status_code', None)
    if status in (401, 403) and not isinstance(error, errors.RepositoryNotFoundError):
        refused = 'the token is not valid' if status == 401 else 'the token may not do this'
        return PermissionError(f'{what!r}: {refused} ({_reason(error)}); {_LOGIN} of an account that may.')
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return ValueError(
            f'{what!r} is not on the Hugging Face Hub, or private and not visible to you: check the name; for a '
            f'private repository {_LOGIN}.'
        )
    if status == 412:
        return ConnectionError(f'{what!r} was changed by someone else at the same time; run this again.')
    if status is None:
        return ConnectionError(f'{what!r}: the Hugging Face Hub cannot be reached: {_reason(error)}')
    return ConnectionError(f'{what!r}: the Hugging Face Hub failed with status {status} ({_reason(error)}); try again.')


def _reason(error: Exception) -> str:
    """The last line of a message, where the client puts what the server said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
