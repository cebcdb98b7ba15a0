"""Upload an exported folder to the Hugging Face hub."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from alignzoo.base.hub import offline_hint
from alignzoo.errors import AlignzooError, UsageError

_NETWORK = "check the network, and that HF_HUB_OFFLINE is not set"


def check_repository(repo: str) -> None:
    """Refuse a name that the hub does not allow.

    Raises:
        UsageError: it is none.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"--push {repo}: not the name of a repository", hint="OWNER/NAME") from error


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Create the repository if needed, upload the folder, and return its address.

    The token is that of ``hf auth login`` or ``$HF_TOKEN``; it is never shown.

    Raises:
        AlignzooError: no token, no permission, no network; the export stays, and the hint says how to upload it later.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    command = f"hf upload {shlex.quote(repo)} {shlex.quote(str(folder))} .{' --private' if private else ''}"
    later = f"the export in {folder} is complete; upload it later with: {command}"
    if get_token() is None:
        raise AlignzooError(f"--push {repo}: there is no token", hint=f"run hf auth login, or set HF_TOKEN; {later}")
    of_transport: Any = HfHubHTTPError.__bases__[0]  # of requests, httpx or httpx2, as the hub's client has it
    api = HfApi()
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Upload by alignzoo export")
    except HfHubHTTPError as error:
        raise AlignzooError(f"--push {repo}: {_refusal(error)}", hint=later) from error
    except (OSError, RuntimeError, of_transport) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        cause = offline_hint(first)
        hint = f"{_NETWORK}; {later}" if cause else later
        raise AlignzooError(f"--push {repo}: {first}", hint=hint) from error
    return str(made)


def _refusal(error: Any) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return "the hub does not accept the token (401)"
    if status == 403:
        return "the token may not write there (403); it needs write access to that owner"
    return str(error).splitlines()[0]
