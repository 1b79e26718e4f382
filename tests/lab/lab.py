#!/usr/bin/python3
"""Starts a lab and prints one line of JSON about it when it is ready; serves until SIGTERM or SIGINT. See README.md."""
import argparse
import json
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [os.path.dirname(HERE)] + [p for p in sys.path if os.path.abspath(p or ".") != HERE]

from lab.pgserver import BINDIR                                 # noqa: E402
from lab.server import Lab                                      # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", required=True,
                        help="scratch folder for servers and snapshots; user postgres must be able to enter it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="of the AWS endpoint; a free one when not given")
    parser.add_argument("--dns-host", help="address of the DNS; --host when not given")
    parser.add_argument("--dns-port", type=int)
    parser.add_argument("--db-port", type=int, help="the one port of all instances")
    parser.add_argument("--speed", type=float, default=1.0, help="2: states last half as long (1 s each at 1)")
    parser.add_argument("--endpoint-style", choices=["ip", "name"], default="ip")
    parser.add_argument("--region", default="eu-west-1")
    parser.add_argument("--account", default="123456789012")
    parser.add_argument("--access-key", default="AKIALABLABLABLABLABL")
    parser.add_argument("--secret-key", default="lab/secret+key0123456789abcdefghijklmnop")
    parser.add_argument("--credentials-lifetime", type=float, default=3600, help="seconds, of IMDS and container credentials")
    parser.add_argument("--zone", default="app.lab", help="the hosted zone that is there from the start")
    parser.add_argument("--bindir", default=BINDIR, help="PostgreSQL's programs")
    parser.add_argument("--no-tls", action="store_true", help="servers without certificates")
    args = parser.parse_args()

    lab = Lab(args.dir, port=args.port, dns_port=args.dns_port, db_port=args.db_port, host=args.host, dns_host=args.dns_host,
              speed=args.speed, endpoint_style=args.endpoint_style, region=args.region, account=args.account,
              access_key=args.access_key, secret_key=args.secret_key, credentials_lifetime=args.credentials_lifetime,
              tls=not args.no_tls, bindir=args.bindir, zone=args.zone)
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: lab.stopping.set())
    lab.start()
    print(json.dumps(lab.info()), flush=True)
    lab.stopping.wait()
    lab.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
