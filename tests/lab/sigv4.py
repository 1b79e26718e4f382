"""Checks Signature Version 4 of a request: header form and presigned query. Shares no code with any client."""
import calendar
import hashlib
import hmac
import re
import time
import urllib.parse

from lab.errors import AwsError

SKEW = 900                                     # seconds that a request's date may be off


class Key:
    """An access key: lasting ones have no token and no end."""

    def __init__(self, access, secret, arn, token=None, expires=None):
        self.access, self.secret, self.arn, self.token, self.expires = access, secret, arn, token, expires


class Request:
    """What of an HTTP request is signed. headers: lower-case names; target: path?query as sent."""

    def __init__(self, method, target, headers, body):
        self.method, self.headers, self.body = method, headers, body
        self.path, _, self.query = target.partition("?")


def _refuse(service_is_json, query_code, json_code, message, status=403):
    raise AwsError(json_code if service_is_json else query_code, message, 400 if service_is_json else status)


def _unquoted_pairs(query):
    return [(urllib.parse.unquote(k), urllib.parse.unquote(v))
            for k, _, v in (p.partition("=") for p in query.split("&") if p)]


def _canonical_query(pairs):
    quote = lambda s: urllib.parse.quote(s, safe="-_.~")
    return "&".join(f"{k}={v}" for k, v in sorted((quote(k), quote(v)) for k, v in pairs))


def _canonical_path(path):
    kept = []
    for part in path.split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    text = "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")
    return urllib.parse.quote(text, safe="/-_.~")               # encoded once more than on the wire, as for all but S3


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _parse(request, is_json):
    """(credential, signed header names, signature, date, lifetime or None, query pairs to sign)"""
    pairs = _unquoted_pairs(request.query)
    auth = request.headers.get("authorization")
    if auth:
        match = re.fullmatch(r"AWS4-HMAC-SHA256\s+(.*)", auth)
        fields = dict(p.strip().split("=", 1) for p in match.group(1).split(",") if "=" in p) if match else {}
        missing = [f for f in ("Credential", "SignedHeaders", "Signature") if f not in fields]
        date = request.headers.get("x-amz-date")
        if missing or not date:
            what = ", ".join(missing) or "X-Amz-Date"
            raise AwsError("IncompleteSignatureException" if is_json else "IncompleteSignature",
                           f"Authorization header requires '{what}' parameter. Authorization={auth.split(' ')[0]}")
        return fields["Credential"], fields["SignedHeaders"], fields["Signature"], date, None, pairs
    given = dict(pairs)
    if "X-Amz-Signature" in given:
        missing = [f for f in ("X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires") if f not in given]
        if missing or given.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256":
            raise AwsError("IncompleteSignature", f"the query lacks {', '.join(missing) or 'X-Amz-Algorithm'}")
        pairs = [(k, v) for k, v in pairs if k != "X-Amz-Signature"]
        return (given["X-Amz-Credential"], given["X-Amz-SignedHeaders"], given["X-Amz-Signature"], given["X-Amz-Date"],
                int(given["X-Amz-Expires"]), pairs)
    raise AwsError("MissingAuthenticationTokenException" if is_json else "MissingAuthenticationToken",
                   "Missing Authentication Token", 400 if is_json else 403)


def check(request, keys, service, region, *, is_json=False, now=None, clock=None):
    """The Key that signed the request, or the AwsError that AWS would answer.

    keys: access key id -> Key; now: the real time, for dates; clock: the lab's, for the end of session tokens."""
    now = time.time() if now is None else now
    credential, signed, signature, date, lifetime, pairs = _parse(request, is_json)
    scope = credential.split("/")
    if len(scope) != 5 or scope[4] != "aws4_request":
        raise AwsError("IncompleteSignature", f"Credential must have exactly 5 slash-delimited elements: {credential}")
    access, day, its_region, its_service, _ = scope
    key = keys.get(access)
    if key is None:
        _refuse(is_json, "InvalidClientTokenId", "UnrecognizedClientException",
                "The security token included in the request is invalid.")
    try:
        signed_at = calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise AwsError("IncompleteSignature", f"Date must be in ISO-8601 'basic format'. Got '{date}'.") from None
    wrong = lambda text: _refuse(is_json, "SignatureDoesNotMatch", "InvalidSignatureException", text)
    iso = lambda t: time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(t))
    if lifetime is not None and now > signed_at + lifetime:
        _refuse(is_json, "RequestExpired", "RequestExpired", "Request has expired.", 400)
    if lifetime is None and now - signed_at > SKEW:
        wrong(f"Signature expired: {date} is now earlier than {iso(now - SKEW)} ({iso(now)} - 15 min.)")
    if signed_at - now > SKEW:
        wrong(f"Signature not yet current: {date} is still later than {iso(now + SKEW)} ({iso(now)} + 15 min.)")
    if day != date[:8] or its_region != region or its_service != service:
        wrong(f"Credential should be scoped to {date[:8]}/{region}/{service}, not {day}/{its_region}/{its_service}.")
    _check_signed_headers(request, signed.split(";"), lifetime is not None, wrong)
    _check_token(request, dict(pairs), key, is_json, clock or now)

    payload = hashlib.sha256(request.body).hexdigest()
    claimed = request.headers.get("x-amz-content-sha256")
    if claimed not in (None, payload):
        wrong("The provided 'x-amz-content-sha256' header does not match what was computed.")
    names = signed.split(";")
    canonical = "\n".join([
        request.method, _canonical_path(request.path), _canonical_query(pairs),
        "".join(f"{n}:{re.sub(' +', ' ', request.headers.get(n, '').strip())}\n" for n in names), signed, payload])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", date, "/".join(scope[1:]), hashlib.sha256(canonical.encode()).hexdigest()])
    secret = ("AWS4" + key.secret).encode()
    for part in scope[1:]:
        secret = _hmac(secret, part)
    if not hmac.compare_digest(_hmac(secret, to_sign).hex(), signature):
        wrong("The request signature we calculated does not match the signature you provided. Check your AWS Secret "
              "Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical String "
              f"for this request should have been\n'{canonical}'\n\nThe String-to-Sign should have been\n'{to_sign}'\n")
    return key


def _check_signed_headers(request, names, presigned, wrong):
    if names != sorted(names):
        wrong(f"SignedHeaders are not sorted: {';'.join(names)}")
    must = {"host"} | (set() if presigned else {n for n in request.headers if n.startswith("x-amz-")})
    if must - set(names):
        wrong(f"'{', '.join(sorted(must - set(names)))}' must be a 'SignedHeader' in the AWS Authorization.")


def _check_token(request, query, key, is_json, now):
    token = request.headers.get("x-amz-security-token", query.get("X-Amz-Security-Token"))
    if token != key.token:
        _refuse(is_json, "InvalidClientTokenId", "UnrecognizedClientException",
                "The security token included in the request is invalid.")
    if key.expires is not None and now >= key.expires:
        _refuse(is_json, "ExpiredToken", "ExpiredTokenException",
                "The security token included in the request is expired")
