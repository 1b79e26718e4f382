"""What the tests of the AWS client share: running awscall, and a server that answers what a test tells it to."""
import email.utils
import http.server
import json
import os
import subprocess
import threading
import time
import urllib.parse

import kb

AWSCALL = os.path.join(os.path.dirname(kb.BIN), "awscall")
SECRET = "fake/secret+key"
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") and "proxy" not in k.lower()}
RDS = "http://rds.amazonaws.com/doc/2014-10-31/"


class Answered:
    """What awscall printed: one value a call; the last is the error when the code isn't 0."""

    def __init__(self, args, code, out, err, seconds):
        self.args, self.code, self.err, self.seconds = args, code, err, seconds
        self.values = [json.loads(line) for line in out.splitlines()]
        self.states = [line.split()[1] for line in err.splitlines() if line.startswith("state ")]

    @property
    def value(self):
        return self.values[-1]

    def __repr__(self):
        return f"<awscall {' '.join(self.args)} ended with {self.code} after {self.seconds:.1f} s: {self.values}\n{self.err[-3000:]}>"


def awscall(*args, env, timeout=120):
    started = time.monotonic()
    done = subprocess.run([AWSCALL, *[str(a) for a in args]], env={**CLEAN, **env}, capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL)
    assert done.returncode in (0, 2, 6, 7, 71, 130), f"awscall {args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr[-5000:]}"
    return Answered([str(a) for a in args], done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def plain_env(url, folder, **more):
    """Credentials from the environment, and nothing of this machine's settings."""
    return {"AWS_ENDPOINT_URL": url, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIDFAKE", "AWS_SECRET_ACCESS_KEY": SECRET,
            "HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true", **more}


class Request:
    def __init__(self, method, path, headers, body):
        self.method, self.headers, self.body = method, headers, body
        self.path, _, self.query = path.partition("?")
        self.form = dict(urllib.parse.parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)) \
            if "urlencoded" in headers.get("content-type", "") else {}

    @property
    def action(self):
        return self.form.get("Action")


def answer(body="", status=200, drop=False, wait=0, raw=None, **headers):
    return {"body": body, "status": status, "drop": drop, "wait": wait, "raw": raw,
            "headers": {k.replace("_", "-"): v for k, v in headers.items()}}


def rds_answer(operation, inner, **more):
    return answer(f'<{operation}Response xmlns="{RDS}"><{operation}Result>{inner}</{operation}Result><ResponseMetadata>'
                  f'<RequestId>r-ok</RequestId></ResponseMetadata></{operation}Response>', **more)


def error(code, message="refused", status=400, **more):
    return answer(f'<ErrorResponse xmlns="{RDS}"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>'
                  f'<RequestId>r-{code}</RequestId></ErrorResponse>', status=status, **more)


IDENTITY = answer('<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
                  '<Arn>arn:aws:iam::1:user/x</Arn><UserId>AID</UserId><Account>1</Account></GetCallerIdentityResult>'
                  '</GetCallerIdentityResponse>')


class FakeAws:
    """Gives the answers of `script` (values or functions of the request) one after the other, then those of `always`."""

    def __init__(self, *script, always=None, tls=None, port_range=(23100, 23499)):
        self.script, self.always = list(script), always
        self.requests, self.connections = [], 0
        self.lock = threading.Lock()
        self.offset = 0                         # of its clock against ours, seconds
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 64 * 1024
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                with fake.lock:
                    fake.connections += 1

            def log_message(self, *_):
                pass

            def date_time_string(self, timestamp=None):
                return email.utils.formatdate(time.time() + fake.offset, usegmt=True)

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                with fake.lock:
                    fake.requests.append(request)
                    given = fake.script.pop(0) if fake.script else fake.always
                if callable(given):
                    given = given(request)
                if given is None:
                    given = answer("no answer is scripted", status=418)
                time.sleep(given["wait"])
                if given["drop"]:
                    self.close_connection = True
                    return
                if given["raw"] is not None:
                    self.wfile.write(given["raw"])
                    self.wfile.flush()
                    self.close_connection = True
                    return
                text = given["body"].encode() if isinstance(given["body"], str) else given["body"]
                self.send_response(given["status"])
                for name, value in given["headers"].items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_CONNECT = handle_any

        for port in range(*port_range):
            try:
                self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
                break
            except OSError:
                continue
        self.server.daemon_threads = True
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.scheme = "https" if tls else "http"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}"

    def actions(self):
        return [r.action for r in self.requests]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
