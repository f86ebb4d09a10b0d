"""Money as integers: one unit of currency is 10^9 nano.

Owns the two spellings (integer inside, decimal text at the edge), and which currencies there are. No floats: a price
per token is already tiny. Nothing is ever converted: an installation has one currency.
"""

import re
from typing import Final

from tenantry.platform.core.errors import InvalidInput

NANO: Final = 1_000_000_000
MAX_NANO: Final = 2**63 - 1  # what a bigint column holds
_CODES: Final = (  # of countries, by ISO 4217 (2025): no metals, funds or tests
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD "
    "CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF "
    "GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK "
    "LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD "
    "OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN "
    "SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XOF "
    "XPF YER ZAR ZMW ZWG"
)
CURRENCIES: Final = frozenset(_CODES.split())
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
