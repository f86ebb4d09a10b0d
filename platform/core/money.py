"""Money as integers: one unit of currency is 10^9 nano.

Owns the two spellings (integer inside, decimal text at the edge). No floats: a price per token is already tiny.
"""

import re
from typing import Final

from tenantry.platform.core.errors import InvalidInput

NANO: Final = 1_000_000_000
MAX_NANO: Final = 2**63 - 1  # what a bigint column holds
_DECIMAL: Final = re.compile(r"(-?)(\d{1,10})(?:\.(\d{1,9}))?", re.ASCII)


def parse(text: str, param: str = "amount") -> int:
    """Decimal text such as "12.50" to nano. At most nine decimals; anything else is a 400 naming `param`."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{param} must be a decimal number with at most 9 decimals.", param=param)
    sign, whole, fraction = match.groups()
    nano = int(whole) * NANO + int((fraction or "").ljust(9, "0"))
    if nano > MAX_NANO:
        raise InvalidInput(f"{param} is too large.", param=param)
    return -nano if sign else nano


def render(nano: int) -> str:
    """Nano to the shortest exact decimal text; at least two decimals, as people write money."""
    whole, fraction = divmod(abs(nano), NANO)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}{whole}.{digits}"
