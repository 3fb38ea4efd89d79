"""Verifies a token key or a signed license offline, with nothing of Licet: the foreign implementation of the tests.

Reads {"keys": [JWK, ...], "texts": [TEXT, ...]} from standard input and prints for each text {"claims": ...} or
{"refused": WHY}. Needs the package `cryptography`, whose Ed25519 is OpenSSL's.
"""

import base64
import json
import re
import sys
import zlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def decode(text):
    decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != text:
        raise ValueError("base64url that is not canonical")
    return decoded


def verify(text, keys):
    types = {"licet-license+jwt"}
    key = re.fullmatch(r"([A-Z]{2,8})-(.+)-([0-9a-f]{8})", text, re.ASCII)
    if key:
        if f"{zlib.crc32(text[:-9].encode()):08x}" != key[3]:
            raise ValueError("wrong checksum")
        text, types = key[2], {"licet-key+jwt"}
    header, payload, signature = text.split(".")
    head = json.loads(decode(header))
    if head["typ"] not in types or head["alg"] != "EdDSA":
        raise ValueError("another type or algorithm")
    # By the key id we choose among the keys we trust; a key that the token brought would prove nothing.
    [x] = [jwk["x"] for jwk in keys if jwk["kid"] == head["kid"]]
    Ed25519PublicKey.from_public_bytes(decode(x)).verify(decode(signature), f"{header}.{payload}".encode())
    return json.loads(decode(payload))


asked = json.load(sys.stdin)
verdicts = []
for candidate in asked["texts"]:
    try:
        verdicts.append({"claims": verify(candidate, asked["keys"])})
    except (ValueError, KeyError, TypeError, InvalidSignature) as error:
        verdicts.append({"refused": f"{type(error).__name__}: {error}"})
print(json.dumps(verdicts))
