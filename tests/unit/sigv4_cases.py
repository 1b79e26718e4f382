#!/usr/bin/python3
"""Prints requests and what botocore's own signer makes of them, one JSON object a line, for test_sigv4.c.

Half are signed by header, half presigned. The numbers of a seed are the same every time, so a failure can be repeated.
"""
import datetime
import json
import random
import sys
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials

PLAIN = "abcXYZ019-._~"
ODD = PLAIN + " /:@!$'()*,;&=+%\"<>{}é漢\t"


def text(rng, alphabet, most):
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, most)))


def path(rng):
    kind = rng.random()
    if kind < 0.4:
        return "/"
    parts = [rng.choice([text(rng, PLAIN, 8), urllib.parse.quote(text(rng, ODD, 6), safe=""), "", ".", ".."])
             for _ in range(rng.randint(1, 5))]
    return "/" + "/".join(parts) + rng.choice(["", "/"])


def query(rng):
    if rng.random() < 0.4:
        return ""
    names = [rng.choice(["a", "a-b", "a.b", "A", "marker", "name", text(rng, ODD, 5) or "x"]) for _ in range(rng.randint(1, 6))]
    return "&".join(urllib.parse.quote(n, safe="-_.~") + "=" + urllib.parse.quote(text(rng, ODD, 8), safe="-_.~") for n in names)


def headers(rng):
    found = {}
    for name in rng.sample(["Content-Type", "X-Amz-Target", "X-Custom", "x-amz-meta-a", "My-Header", "Accept-X"], rng.randint(0, 4)):
        found[name] = rng.choice([text(rng, PLAIN, 12), "  two   blanks  ", "a\tb", "application/x-amz-json-1.1", ""])
    return found


class Frozen(datetime.datetime):
    now_is = None

    @classmethod
    def utcnow(cls):
        return cls.now_is


def case(rng, number):
    stamp = datetime.datetime(2015, 1, 1) + datetime.timedelta(seconds=rng.randrange(15 * 365 * 86400))
    Frozen.now_is = stamp
    host = rng.choice(["rds.eu-west-1.amazonaws.com", "127.0.0.1:23456", "example.com:8443", "[::1]:9000"])
    scheme = rng.choice(["http", "https"])
    presign = number % 2 == 1
    method = "GET" if presign else rng.choice(["GET", "POST", "PUT", "DELETE"])
    body = b"" if presign or method in ("GET", "DELETE") else text(rng, ODD, 300).encode()
    url_path, url_query = path(rng), query(rng)
    if presign:         # botocore rebuilds the query from a dict there: names must differ
        url_query = "&".join({p.split("=")[0]: p for p in url_query.split("&") if p}.values())
    keys = botocore.credentials.Credentials("AKID" + text(rng, "ABC123", 12), "s/+" + text(rng, ODD[:-1], 40),
                                            rng.choice([None, "tok/en+" + text(rng, PLAIN + "/+=", 200)]))
    region, service = rng.choice(["eu-west-1", "us-east-1", "cn-north-1"]), rng.choice(["rds", "kms", "route53", "rds-db"])
    sent = headers(rng)
    request = botocore.awsrequest.AWSRequest(method=method, url=f"{scheme}://{host}{url_path}" + ("?" + url_query if url_query else ""),
                                             data=body, headers=dict(sent))
    expires = rng.randint(1, 604800)
    signer = botocore.auth.SigV4QueryAuth(keys, service, region, expires) if presign else botocore.auth.SigV4Auth(keys, service, region)
    seen = {}
    original = signer.canonical_request

    def spy(r):
        seen["canonical"] = original(r)
        return seen["canonical"]
    signer.canonical_request = spy
    signer.add_auth(request)
    return {"presign": presign, "method": method, "path": url_path, "query": url_query, "host": host, "headers": list(sent.items()),
            "body": body.decode(), "id": keys.access_key, "secret": keys.secret_key, "token": keys.token, "region": region,
            "service": service, "when": int((stamp - datetime.datetime(1970, 1, 1)).total_seconds()), "expires": expires,
            "canonical": seen["canonical"],
            "expected": request.url.rsplit("=", 1)[1] if presign else request.headers["Authorization"]}


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    botocore.auth.datetime = type("module", (), {"datetime": Frozen})
    for number in range(count):
        print(json.dumps(case(rng, number)))


main()
