"""Numbers, as the page writes them."""

from __future__ import annotations

import math
import time
from typing import Any

MINUTE, HOUR, DAY = 60, 3600, 86400
FEW_CENTS = 0.1
THIN = "\u202f"
"""A narrow space that no line breaks at, between a number and its unit."""
DASH, MINUS, TIMES = "\u2013", "\u2212", "\u00d7\u202f"


def number(value: Any) -> str:
    """With four digits where it is no whole number, and thousands apart; a dash for none."""
    if value is None:
        return DASH
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else f"{MINUS}∞")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", MINUS)
    digits = f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    return digits.replace("-", MINUS, 1) if digits.startswith("-") else digits


def duration(seconds: float | None) -> str:
    """A length of time, in its two greatest units."""
    if seconds is None:
        return DASH
    if seconds < 10:
        return f"{seconds:.2f}{THIN}s"
    if seconds < MINUTE:
        return f"{seconds:.1f}{THIN}s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE}{THIN}min {whole % MINUTE}{THIN}s"
    if whole < DAY:
        return f"{whole // HOUR}{THIN}h {whole % HOUR // MINUTE}{THIN}min"
    return f"{whole // DAY}{THIN}d {whole % DAY // HOUR}{THIN}h"


def share(part: float | None) -> str:
    """Percent; what is next to nothing, or to all, is told from it."""
    if part is None:
        return DASH
    percent = 100 * part
    if 0 < percent < 0.05:
        return f"<{THIN}0.1{THIN}%"
    if 99.95 <= percent < 100:
        return f">{THIN}99.9{THIN}%"
    return f"{percent:.1f}{THIN}%"


def size(count: float | None) -> str:
    """Bytes, in units of a thousand."""
    if count is None:
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f}{THIN}{unit}" if unit == "B" or count >= 100 else f"{count:.1f}{THIN}{unit}"
        count /= 1000
    return f"{count:.1f}{THIN}TB"


def dollars(amount: float | None) -> str:
    """Money: cents, and less where there are but few."""
    if amount is None:
        return DASH
    return f"${amount:,.2f}" if amount >= FEW_CENTS or amount == 0 else f"${amount:.2g}"


def moment(at: float | None) -> str:
    """A moment, the same for readers anywhere. at: Unix seconds."""
    return time.strftime("%d %b %Y, %H:%M UTC", time.gmtime(at)).lstrip("0") if at is not None else DASH


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def several(low: Any, high: Any) -> str:
    """From one number to another, or the one number."""
    return number(low) if low == high else f"{number(low)}{DASH}{number(high)}"
