"""The page of the server, self-contained, and the headers by which a browser runs nothing else in it."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

HTML = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def _hashes(tag: str) -> str:
  """Returns the checksums of the contents of a tag, as a Content-Security-Policy has them."""
  contents = re.findall(f"<{tag}>(.*?)</{tag}>", HTML, re.DOTALL)
  digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents]
  return " ".join(f"'sha256-{digest}'" for digest in digests)


_POLICY = (
  "default-src 'none'",
  "connect-src 'self'",
  "img-src blob: data:",
  f"script-src {_hashes('script')}",
  f"style-src {_hashes('style')}",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
)

HEADERS = {
  "Content-Type": "text/html; charset=utf-8",
  "Content-Security-Policy": "; ".join(_POLICY),
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
}
