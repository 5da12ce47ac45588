"""The regions of Genesys Cloud: their domains, and the names that AWS gives them."""

from __future__ import annotations

from difflib import get_close_matches

BY_AWS_NAME = {
    "us-east-1": "mypurecloud.com",
    "us-east-2": "use2.us-gov-pure.cloud",
    "us-west-2": "usw2.pure.cloud",
    "ca-central-1": "cac1.pure.cloud",
    "mx-central-1": "mxc1.pure.cloud",
    "sa-east-1": "sae1.pure.cloud",
    "eu-west-1": "mypurecloud.ie",
    "eu-west-2": "euw2.pure.cloud",
    "eu-central-1": "mypurecloud.de",
    "eu-central-2": "euc2.pure.cloud",
    "eusc-de-east-1": "edee1.eusc-pure.cloud",
    "me-central-1": "mec1.pure.cloud",
    "ap-south-1": "aps1.pure.cloud",
    "ap-southeast-1": "apse1.pure.cloud",
    "ap-southeast-2": "mypurecloud.com.au",
    "ap-northeast-1": "mypurecloud.jp",
    "ap-northeast-2": "apne2.pure.cloud",
    "ap-northeast-3": "apne3.pure.cloud",
}
"""Domains by AWS region; the domains are those of the official Python SDK 269.0.0."""

_SERVICES = ("api.", "login.", "apps.")


def domain(text: str) -> str:
    """The domain of a region, given by its AWS name, its domain, or a host of one of its services."""
    for service in _SERVICES:
        text = text.removeprefix(service)
    return BY_AWS_NAME.get(text, text)


def is_known(host: str) -> bool:
    """Whether a domain is that of a region."""
    return host in BY_AWS_NAME.values()


def suggestion(host: str) -> str:
    """What to write instead of an unknown region: a similar one, or one of the list."""
    names = [*BY_AWS_NAME.values(), *BY_AWS_NAME]
    similar = get_close_matches(host, names, n=1)
    regions = ", ".join(f"{domain} ({name})" for name, domain in BY_AWS_NAME.items())
    return f"{f'did you mean {similar[0]}? ' if similar else ''}regions: {regions}"
